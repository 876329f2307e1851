"""Settings as the command that would set them, to be pasted."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from gradscope.config import DataSettings, FixSettings, ProbeSettings, Settings


def command_for(settings: Settings) -> str:
    """The command that makes a report with these settings."""
    return " ".join(["gradscope", "inspect", shlex.quote(settings.model), *_options(settings)])


def next_command(settings: Settings, options: str) -> str:
    """The command that makes a report with these settings and more options: without a trial of its
    own, and with one without what a trial does not go together with."""
    probe = replace(settings.probe, trial=0)
    if "--trial" in options:
        probe = replace(probe, gradients=True, dtype=None, device_map=None)
    return f"{command_for(replace(settings, probe=probe))} {options}"


def fix_command(settings: Settings) -> str:
    """The command that repairs the model, beside it under another name."""
    stem, suffix = os.path.splitext(settings.model)
    words = [*_model_and_data(settings), "--out", shlex.quote(f"{stem}-fixed{suffix}")]
    return " ".join(["gradscope", "fix", shlex.quote(settings.model), *words])


def compare_command(settings: Settings, other: str) -> str:
    """The command that puts a model and another one of its form side by side, on its data."""
    models = map(shlex.quote, (settings.model, other))
    return " ".join(["gradscope", "compare", *models, *_model_and_data(settings)])


def repeat_command(settings: Settings, repair: FixSettings) -> str:
    """The command that repairs the model as it was repaired, with every option."""
    words = [*_model_and_data(settings), *_repair(repair)]
    return " ".join(["gradscope", "fix", shlex.quote(settings.model), *words])


def check_command(models: Sequence[str], flags: Mapping[str, object]) -> str:
    """The command of a check.

    Args:
        models: names and globs as they were typed.
        flags: by key, as ``gradscope check`` takes them; None and empty lists are left out.
    """
    words = ["gradscope", "check", *map(shlex.quote, models)]
    for key, value in flags.items():
        if isinstance(value, bool):
            words.append(f"--{key}" if value else f"--no-{key}")
            continue
        for single in value if isinstance(value, list | tuple) else [value]:
            words += [] if single is None else [f"--{key}", shlex.quote(str(single))]
    return " ".join(words)


def _repair(repair: FixSettings) -> Iterator[str]:
    yield from _option("--out", repair.out)
    yield from _option("--method", repair.method)
    if repair.rescale:
        yield "--rescale"
    yield from _option("--alpha", _text(repair.alpha))
    for name in repair.layers:
        yield from _option("--layers", name)
    if not repair.finetune:
        yield "--no-finetune"
    yield from _option("--regularize", repair.regularize)
    yield from _option("--strength", _text(repair.strength))
    yield from _option("--epochs", _text(repair.epochs))
    yield from _option("--lr", _text(repair.rate))
    yield from _option("--optimizer", repair.optimizer)
    yield from _option("--batch-size", str(repair.batch_size))
    yield from _option("--patience", str(repair.patience))
    for name in repair.freeze:
        yield from _option("--freeze", name)
    yield from _option("--max-drift", _text(repair.max_drift), _text(FixSettings.max_drift))
    if repair.tensorboard:
        yield "--tensorboard"


def _text(number: float | None) -> str | None:
    return None if number is None else repr(number)


def _model_and_data(settings: Settings) -> Iterator[str]:
    """Options that say what to open and what to run it on: those of every command."""
    load, data = settings.load, settings.data
    yield from _option("--arch", load.arch)
    yield from _option("--arch-args", json.dumps(dict(load.arch_args)) if load.arch_args else None)
    for name in load.allow:
        yield from _option("--allow", name)
    if load.trust_model:
        yield "--trust-model"
    yield from _option("--key", load.key)
    for name, value in load.values.items():
        text = value if isinstance(value, str) else json.dumps(value)
        yield from _option("--input-value", f"{name}={text}")
    yield from _option("--data", data.data)
    yield from _option("--val", data.val)
    yield from _option("--label-column", data.label_column)
    if data.standardise:
        yield "--standardise"
    for name, shape in data.input_shape.items():
        size = "x".join(map(str, shape))
        yield from _option("--input-shape", f"{name}={size}" if name else size)
    samples = "all" if data.samples is None else str(data.samples)
    yield from _option("--samples", samples, str(DataSettings.samples))
    yield from _option("--seed", str(data.seed), str(DataSettings.seed))
    yield from _option("--loss", settings.probe.loss, ProbeSettings.loss)
    if settings.probe.device_map is None:  # which says itself where the model runs
        yield from _option("--device", settings.probe.device, ProbeSettings.device)


def _options(settings: Settings) -> Iterator[str]:
    """Those that are not at their defaults, and change what is examined."""
    data, probe = settings.data, settings.probe
    yield from _model_and_data(settings)
    yield from _option("--batch-size", str(data.batch_size), str(DataSettings.batch_size))
    for name in probe.outputs:
        yield from _option("--head", name)
    yield from _option("--draws", str(probe.draws), str(ProbeSettings.draws))
    if not probe.gradients:
        yield "--no-gradients"
    yield from _option("--trial", str(probe.trial), "0")
    if probe.trial:
        yield from _option("--trial-optimizer", probe.trial_optimizer)
        yield from _option("--trial-lr", _text(probe.trial_rate))
        yield from _option("--trial-momentum", _text(probe.trial_momentum))
    yield from _option("--mode", probe.mode, ProbeSettings.mode)
    yield from _option("--dtype", probe.dtype)
    yield from _option("--device-map", probe.device_map)
    for text in settings.limits:
        yield from _option("--limit", text)


def _option(name: str, value: str | None, default: str | None = None) -> Iterator[str]:
    if value != default:
        yield name
        yield shlex.quote(str(value))

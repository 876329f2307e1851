"""The next command to type. Each one works as printed."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import replace

from gradscope.config import DataSettings, LoadSettings, ProbeSettings, Settings
from gradscope.diagnosis import Inspection
from gradscope.measurements import Measurements


def next_commands(inspection: Inspection) -> list[tuple[str, str]]:
    """(command, what it is good for), the most useful first."""
    m = inspection.measurements
    settings = inspection.settings or _settings_of(m)
    base = command_for(settings)
    if not m.heads:
        return [
            (f"gradscope inspect {shlex.quote(m.model.path)} --arch FILE.py:factory "
             "--data SAMPLE.npz",
             "with the code that builds the model: activations, gradients and the ledger")
        ]  # fmt: skip
    found = []
    if m.sample.synthetic:
        real = replace(settings, data=replace(settings.data, data="SAMPLE.npz", input_shape={}))
        found.append((command_for(real), "with real samples (x, and labels y): a verdict"))
    elif not m.sample.labels:
        why = "with labels y: tells converged from stuck"
        labelled = replace(settings, data=replace(settings.data, data="LABELLED.npz"))
        found.append((command_for(labelled), why))
    elif m.skill is not None and not m.skill.held_out:
        found.append((f"{base} --val HELD_OUT.npz", "skill on data that it was not trained on"))
    found.append((f"{base} --all", "every layer, gate, parameter and finding"))
    if len(found) < 2:
        found.append((f"{base} --format json", "all numbers, for a script"))
    return found


def command_for(settings: Settings) -> str:
    """The command that makes a report with these settings."""
    return " ".join(["gradscope", "inspect", shlex.quote(settings.model), *_options(settings)])


def _settings_of(m: Measurements) -> Settings:
    """As far as measurements tell."""
    arch = m.model.format.partition(" + ")[2].partition(",")[0] or None
    data = DataSettings(m.sample.path, m.sample.validation)
    return Settings(m.model.path, LoadSettings(arch), data)


def _options(settings: Settings) -> Iterator[str]:
    """Those that are not at their defaults, and change what is examined."""
    load, data, probe = settings.load, settings.data, settings.probe
    yield from _option("--arch", load.arch)
    yield from _option("--arch-args", json.dumps(dict(load.arch_args)) if load.arch_args else None)
    for name in load.allow:
        yield from _option("--allow", name)
    if load.trust_model:
        yield "--trust-model"
    yield from _option("--key", load.key)
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
    yield from _option("--batch-size", str(data.batch_size), str(DataSettings.batch_size))
    yield from _option("--seed", str(data.seed), str(DataSettings.seed))
    for name in probe.outputs:
        yield from _option("--output", name)
    yield from _option("--loss", probe.loss, ProbeSettings.loss)
    yield from _option("--draws", str(probe.draws), str(ProbeSettings.draws))
    yield from _option("--trial", str(probe.trial), "0")
    yield from _option("--mode", probe.mode, ProbeSettings.mode)
    yield from _option("--device", probe.device, ProbeSettings.device)


def _option(name: str, value: str | None, default: str | None = None) -> Iterator[str]:
    if value != default:
        yield name
        yield shlex.quote(str(value))

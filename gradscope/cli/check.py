"""``gradscope check``: a gate on trained models, for CI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from gradscope.checking import local, model_files, next_steps
from gradscope.cli.baseline import BaselineFile, baseline_file
from gradscope.cli.data_options import InputShape, LabelColumn
from gradscope.cli.gate_options import (
    BASELINE,
    FAIL_ON,
    FORMAT,
    GRADIENTS,
    IGNORE,
    MODELS,
    OUTPUT,
    PRUNE_BASELINE,
    SELECT,
    SHOW_SETTINGS,
    STANDARDISE,
    TOLERANCE,
    WRITE_BASELINE,
)
from gradscope.cli.launch import ranks_of
from gradscope.cli.layers import (
    Layer,
    Layers,
    fail_on_of,
    place_of,
    settings_of,
    texts,
    tolerance_of,
)
from gradscope.cli.model_options import Allow, Arch, ArchArgs, InputValue, Key, TrustModel
from gradscope.cli.options import FailOn, Mode
from gradscope.cli.output import emit, keep_imports, quiet
from gradscope.cli.probe_options import (
    BATCH_SIZE,
    DATA,
    DEVICE,
    DEVICE_MAP,
    DRAWS,
    DTYPE,
    HEAD,
    LIMIT,
    LOSS,
    MODE,
    SAMPLES,
    SEED,
    VAL,
)
from gradscope.cli.reports import Formats, planned
from gradscope.cli.shown_settings import shown
from gradscope.cli.status import CLEAN
from gradscope.commandline import check_command
from gradscope.config import CheckSettings, Settings
from gradscope.errors import OptionError
from gradscope.ranks import Ranks
from gradscope.report import CHECK_FORMATS, check_format
from gradscope.settings_file import find_settings

if TYPE_CHECKING:
    from gradscope.checking import CheckResult


def check(
    context: typer.Context,
    models: Annotated[list[str] | None, MODELS] = None,
    data: Annotated[str | None, DATA] = None,
    val: Annotated[str | None, VAL] = None,
    samples: Annotated[str | None, SAMPLES] = None,
    batch_size: Annotated[int | None, BATCH_SIZE] = None,
    label_column: LabelColumn = None,
    standardise: Annotated[bool | None, STANDARDISE] = None,
    input_shape: InputShape = None,
    arch: Arch = None,
    arch_args: ArchArgs = None,
    allow: Allow = None,
    key: Key = None,
    trust_model: TrustModel = False,
    input_value: InputValue = None,
    loss: Annotated[str | None, LOSS] = None,
    head: Annotated[list[str] | None, HEAD] = None,
    draws: Annotated[int | None, DRAWS] = None,
    gradients: Annotated[bool | None, GRADIENTS] = None,
    mode: Annotated[Mode | None, MODE] = None,
    seed: Annotated[int | None, SEED] = None,
    device: Annotated[str | None, DEVICE] = None,
    device_map: Annotated[str | None, DEVICE_MAP] = None,
    dtype: Annotated[str | None, DTYPE] = None,
    fail_on: Annotated[FailOn | None, FAIL_ON] = None,
    select: Annotated[list[str] | None, SELECT] = None,
    ignore: Annotated[list[str] | None, IGNORE] = None,
    limit: Annotated[list[str] | None, LIMIT] = None,
    baseline: Annotated[str | None, BASELINE] = None,
    write_baseline: Annotated[bool, WRITE_BASELINE] = False,
    prune_baseline: Annotated[bool, PRUNE_BASELINE] = False,
    tolerance: Annotated[float | None, TOLERANCE] = None,
    formats: Annotated[list[str] | None, FORMAT] = None,
    output: Annotated[list[str] | None, OUTPUT] = None,
    show_settings: Annotated[bool, SHOW_SETTINGS] = False,
) -> int:
    """Examine saved models for CI: findings only, one summary, an exit status."""
    flags: dict[str, object] = {
        "data": data, "val": val, "samples": samples, "batch-size": batch_size,
        "label-column": label_column, "standardise": standardise, "input-shape": input_shape,
        "arch": arch, "arch-args": arch_args, "allow": allow, "key": key,
        "trust-model": trust_model or None, "input-value": input_value, "loss": loss,
        "head": head, "draws": draws, "gradients": gradients,
        "mode": mode and mode.value, "seed": seed, "device": device,
        "device-map": device_map, "dtype": dtype,
        "fail-on": fail_on and fail_on.value, "select": select, "ignore": ignore,
        "baseline": baseline, "tolerance": tolerance, "format": formats, "output": output,
    }  # fmt: skip
    layers = Layers(flags, find_settings())
    run = layers.whole_run()
    names = _models(models or (), layers, needed=not show_settings)
    subjects = [settings_of(name, layers, tuple(limit or ())) for name in names]
    wanted = replace(_wanted(run, layers), accept=write_baseline)
    if show_settings:
        return _show(layers, names, limit or ())
    file = baseline_file(run, write_baseline, prune_baseline)
    read = [*(name for s in subjects for name in s.inputs()), file.read_from]
    every = Formats(CHECK_FORMATS, check_format)
    printed, written = texts(run, "format"), texts(run, "output")
    reports = planned(every, printed, written, [*read, file.written_to])
    file.check_target(read)
    ranks = ranks_of(context)
    found = _run(subjects, wanted, file, ranks)
    if ranks.rank:
        return CLEAN  # the first process reports, and writes
    result = file.renew(found)
    again = _again(models or (), {**flags, "limit": limit})
    known = not write_baseline and file.path is not None
    result = replace(result, next=tuple(next_steps(result, again, baseline=known)))
    reports.write(result)
    return result.summary.exit_status


def _again(models: Sequence[str], flags: Mapping[str, object]) -> str:
    """The command that repeats the check, without what it writes."""
    paths = {key: local(str(flags[key])) for key in ("data", "val", "baseline") if flags[key]}
    return check_command(
        [local(m) for m in models], {**flags, **paths, "format": None, "output": None}
    )


def _show(layers: Layers, models: Sequence[str], limits: Sequence[str]) -> int:
    """The settings, and nothing is examined."""
    from gradscope.rules import check_limits, parse_limit

    file = check_limits(layers.file.rules, layers.file_name or "rules")
    flags = [parse_limit(text, "--limit") for text in limits]
    emit("\n".join(shown(layers, models, file, flags)), None)
    return CLEAN


def _models(given: Sequence[str], layers: Layers, needed: bool) -> tuple[str, ...]:
    """Those of the command line, else those of the settings file."""
    patterns = given or [table.path for table in layers.file.models]
    if needed and not patterns:
        hint = "Name a model, a glob, or [[tool.gradscope.model]] in pyproject.toml."
        raise OptionError("missing", where="MODEL", hint=hint)
    return model_files(patterns)


def _wanted(run: Layer, layers: Layers) -> CheckSettings:
    from gradscope.rules import codes_of, selected

    return CheckSettings(
        fail_on=fail_on_of(run),
        codes=selected(
            texts(run, "select"), texts(run, "ignore"),
            (place_of(run, "select"), place_of(run, "ignore")),
        ),
        ignores=tuple(
            (i, codes_of(i.rule, f"{layers.file_name}: ignore")) for i in layers.file.ignores
        ),
        tolerance=tolerance_of(run),
    )  # fmt: skip


def _run(
    subjects: list[Settings], wanted: CheckSettings, file: BaselineFile, ranks: Ranks
) -> CheckResult:
    # Here and not above: these import torch, and --help should not wait for it.
    with quiet():
        from rich.console import Console

        from gradscope import several
        from gradscope.cli.progress import TerminalProgress

        keep_imports()
        with TerminalProgress(Console(stderr=True)) as progress:
            known = {s.model: file.entries(s.model) for s in subjects}
            return several.check(subjects, wanted, known, progress, ranks)

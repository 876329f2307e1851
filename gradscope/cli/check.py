"""``gradscope check``: a gate on trained models, for CI."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from gradscope.checking import model_files, next_steps
from gradscope.cli.baseline import BaselineFile, baseline_file
from gradscope.cli.data_options import InputShape, LabelColumn
from gradscope.cli.layers import (
    Layer,
    Layers,
    fail_on_of,
    place_of,
    settings_of,
    shown,
    texts,
    tolerance_of,
)
from gradscope.cli.model_options import Allow, Arch, ArchArgs, Key, TrustModel
from gradscope.cli.options import FailOn, Mode
from gradscope.cli.output import emit, quiet
from gradscope.cli.probe_options import (
    BATCH_SIZE,
    DATA,
    DEVICE,
    DRAWS,
    LIMIT,
    LOSS,
    MODE,
    SAMPLES,
    SEED,
    VAL,
)
from gradscope.cli.reports import planned
from gradscope.cli.status import CLEAN
from gradscope.commandline import check_command
from gradscope.config import CheckSettings, Settings
from gradscope.errors import OptionError
from gradscope.settings_file import find_settings

if TYPE_CHECKING:
    from gradscope.checking import CheckResult

_GATE, _BASELINE, _REPORT = "Gate", "Baseline", "Report"


def check(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL...",
            help="Saved models, also as globs: 'models/*.pt'. Without any: those that the settings "
            "file names.",
        ),
    ] = None,
    data: Annotated[str | None, DATA] = None,
    val: Annotated[str | None, VAL] = None,
    samples: Annotated[str | None, SAMPLES] = None,
    batch_size: Annotated[int | None, BATCH_SIZE] = None,
    label_column: LabelColumn = None,
    standardise: Annotated[
        bool | None,
        typer.Option(
            "--standardise/--no-standardise",
            help="Feed (x - mean) / sd, each column or channel by itself.",
            rich_help_panel="Data",
        ),
    ] = None,
    input_shape: InputShape = None,
    arch: Arch = None,
    arch_args: ArchArgs = None,
    allow: Allow = None,
    key: Key = None,
    trust_model: TrustModel = False,
    loss: Annotated[str | None, LOSS] = None,
    draws: Annotated[int | None, DRAWS] = None,
    mode: Annotated[Mode | None, MODE] = None,
    seed: Annotated[int | None, SEED] = None,
    device: Annotated[str | None, DEVICE] = None,
    fail_on: Annotated[
        FailOn | None,
        typer.Option(
            help="Exit with status 1 on findings of this severity or above (default: error); "
            "undetermined: on errors, and if no verdict could be reached.",
            rich_help_panel=_GATE,
        ),
    ] = None,
    select: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CODE",
            help="Only these rules: a code, a prefix (GS2) or a name. Repeatable.",
            rich_help_panel=_GATE,
        ),
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CODE",
            help="Not these rules, in the same forms. Repeatable.",
            rich_help_panel=_GATE,
        ),
    ] = None,
    limit: Annotated[list[str] | None, LIMIT] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Findings that are known: they pass unless they get worse.",
            rich_help_panel=_BASELINE,
        ),
    ] = None,
    write_baseline: Annotated[
        bool,
        typer.Option(
            "--write-baseline",
            help="Accept what is found now: write it to the baseline.",
            rich_help_panel=_BASELINE,
        ),
    ] = False,
    prune_baseline: Annotated[
        bool,
        typer.Option(
            "--prune-baseline",
            help="Take out of the baseline what is fixed, and hold the rest to its better numbers.",
            rich_help_panel=_BASELINE,
        ),
    ] = False,
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            metavar="SHARE",
            help="By how much a known number may get worse, as a share of it or of its threshold, "
            "whichever is larger (default: 0.1).",
            rich_help_panel=_BASELINE,
        ),
    ] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="What is printed: terminal (default), concise or json. Repeatable.",
            rich_help_panel=_REPORT,
        ),
    ] = None,
    output: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FORMAT:PATH",
            help="Write a report in a format to a file as well. Repeatable.",
            rich_help_panel=_REPORT,
        ),
    ] = None,
    show_settings: Annotated[
        bool,
        typer.Option(
            "--show-settings",
            help="Print the settings in force and where each comes from, and examine nothing.",
            rich_help_panel=_REPORT,
        ),
    ] = False,
) -> int:
    """Examine saved models for CI: findings only, one summary, an exit status."""
    flags: dict[str, object] = {
        "data": data, "val": val, "samples": samples, "batch-size": batch_size,
        "label-column": label_column, "standardise": standardise, "input-shape": input_shape,
        "arch": arch, "arch-args": arch_args, "allow": allow, "key": key,
        "trust-model": trust_model or None, "loss": loss, "draws": draws,
        "mode": mode and mode.value, "seed": seed, "device": device,
        "fail-on": fail_on and fail_on.value, "select": select, "ignore": ignore,
        "baseline": baseline, "tolerance": tolerance, "format": formats, "output": output,
    }  # fmt: skip
    layers = Layers(flags, find_settings())
    run = layers.whole_run()
    names = _models(models or (), layers, needed=not show_settings)
    subjects = [settings_of(name, layers, tuple(limit or ())) for name in names]
    wanted = replace(_wanted(run, layers), accept=write_baseline)
    if show_settings:
        emit("\n".join(shown(layers, names)), None)
        return CLEAN
    file = baseline_file(run, write_baseline, prune_baseline)
    read = [*(name for s in subjects for name in s.inputs()), file.read_from]
    reports = planned(texts(run, "format"), texts(run, "output"), [*read, file.written_to])
    file.check_target(read)
    result = file.renew(_run(subjects, wanted, file))
    again = check_command(models or (), {**flags, "limit": limit, "format": None, "output": None})
    known = not write_baseline and file.path is not None
    result = replace(result, next=tuple(next_steps(result, again, baseline=known)))
    reports.write(result)
    return result.summary.exit_status


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


def _run(subjects: list[Settings], wanted: CheckSettings, file: BaselineFile) -> CheckResult:
    # Here and not above: these import torch, and --help should not wait for it.
    with quiet():
        from rich.console import Console

        from gradscope import pipeline
        from gradscope.cli.progress import TerminalProgress

        gc.freeze()
        with TerminalProgress(Console(stderr=True)) as progress:
            known = {s.model: file.entries(s.model) for s in subjects}
            return pipeline.check(subjects, wanted, known, progress)

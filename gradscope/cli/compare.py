"""``gradscope compare``: models, checkpoints and saved reports side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gradscope.checking import local
from gradscope.cli.data_options import InputShape, LabelColumn
from gradscope.cli.gate_options import GRADIENTS, STANDARDISE, TOLERANCE
from gradscope.cli.launch import ranks_of
from gradscope.cli.layers import Layers, settings_of, tolerance_of
from gradscope.cli.model_options import Allow, Arch, ArchArgs, InputValue, Key, TrustModel
from gradscope.cli.options import Mode
from gradscope.cli.output import keep_imports, quiet
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
from gradscope.cli.status import CLEAN
from gradscope.config import Settings
from gradscope.errors import OptionError
from gradscope.ranks import Ranks
from gradscope.report import COMPARE_FORMATS, compare_format
from gradscope.settings_file import find_settings

if TYPE_CHECKING:
    from gradscope.comparing import Comparison

_REPORT = "Report"


def compare(
    context: typer.Context,
    subjects: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL|REPORT",
            help="Two or more: saved models, checkpoints, or reports of inspect --format json. "
            "The first is what the others are compared with.",
        ),
    ],
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
    limit: Annotated[list[str] | None, LIMIT] = None,
    fail_on_regression: Annotated[
        bool,
        typer.Option(
            "--fail-on-regression",
            help="Exit with status 1 if a later one has a worse verdict, a new error or warning, "
            "or one whose number got worse beyond --tolerance.",
            rich_help_panel=_REPORT,
        ),
    ] = False,
    tolerance: Annotated[float | None, TOLERANCE] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help=f"What is printed: {', '.join(COMPARE_FORMATS)} (default: terminal). Repeatable.",
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
    all_layers: Annotated[
        bool, typer.Option("--all", help="Show every layer.", rich_help_panel=_REPORT)
    ] = False,
) -> int:
    """Compare models, checkpoints of one run or saved reports: what changed, what got worse."""
    if len(subjects) < 2:
        hint = "Name at least two: models or saved reports."
        raise OptionError("there is nothing to compare it with", where=subjects[0], hint=hint)
    flags: dict[str, object] = {
        "data": data, "val": val, "samples": samples, "batch-size": batch_size,
        "label-column": label_column, "standardise": standardise, "input-shape": input_shape,
        "arch": arch, "arch-args": arch_args, "allow": allow, "key": key,
        "trust-model": trust_model or None, "input-value": input_value, "loss": loss,
        "head": head, "draws": draws, "gradients": gradients, "mode": mode and mode.value,
        "seed": seed, "device": device, "device-map": device_map, "dtype": dtype,
        "tolerance": tolerance,
    }  # fmt: skip
    layers = Layers(flags, find_settings())
    each = [settings_of(local(name), layers, tuple(limit or ())) for name in subjects]
    inputs = [name for settings in each for name in settings.inputs()]
    # Formats and files of the settings file are those of check.
    every = Formats(COMPARE_FORMATS, compare_format)
    reports = planned(every, formats or ["terminal"], output or (), inputs)
    ranks = ranks_of(context)
    found = _run(each, tolerance_of(layers.whole_run()), fail_on_regression, ranks)
    if ranks.rank:
        return CLEAN  # the first process reports, and writes
    reports.write(found, all_layers=all_layers)
    return found.exit_status


def _run(each: list[Settings], tolerance: float, fails: bool, ranks: Ranks) -> Comparison:
    # Here and not above: these import torch where there is a model, and --help should not wait.
    with quiet():
        from rich.console import Console

        from gradscope import several
        from gradscope.cli.progress import TerminalProgress

        keep_imports()
        with TerminalProgress(Console(stderr=True)) as progress:
            return several.compare(each, tolerance, progress, ranks, fails=fails)

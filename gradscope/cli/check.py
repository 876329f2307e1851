"""``gradscope check``: a gate on trained models, for CI."""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import Annotated

import typer

from gradscope.checking import CheckResult
from gradscope.checking.paths import local, model_files
from gradscope.cli.data_options import InputShape, LabelColumn, Standardise, check_data_options
from gradscope.cli.model_options import Allow, Arch, ArchArgs, Key, TrustModel, load_settings
from gradscope.cli.options import FailOn, Mode, parse_input_shapes, parse_loss, parse_samples
from gradscope.cli.output import quiet
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
from gradscope.config import CheckSettings, DataSettings, ProbeSettings, Settings
from gradscope.settings_file import find_settings

_GATE, _REPORT = "Gate", "Report"


def check(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help="Saved models, also as globs: 'models/*.pt'."),
    ],
    data: Annotated[str | None, DATA] = None,
    val: Annotated[str | None, VAL] = None,
    samples: Annotated[str, SAMPLES] = "512",
    batch_size: Annotated[int, BATCH_SIZE] = 512,
    label_column: LabelColumn = None,
    standardise: Standardise = False,
    input_shape: InputShape = None,
    arch: Arch = None,
    arch_args: ArchArgs = None,
    allow: Allow = None,
    key: Key = None,
    trust_model: TrustModel = False,
    loss: Annotated[str, LOSS] = "auto",
    draws: Annotated[int, DRAWS] = 4,
    mode: Annotated[Mode, MODE] = Mode.EVAL,
    seed: Annotated[int, SEED] = 0,
    device: Annotated[str, DEVICE] = "cpu",
    fail_on: Annotated[
        FailOn,
        typer.Option(
            help="Exit with status 1 on findings of this severity or above; undetermined: on "
            "errors, and if no verdict could be reached.",
            rich_help_panel=_GATE,
        ),
    ] = FailOn.ERROR,
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
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="What is printed. Repeatable.",
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
) -> int:
    """Examine saved models for CI: findings only, one summary, an exit status."""
    from gradscope.rules import selected

    file = find_settings()
    check_data_options(data, label_column, standardise)
    common = Settings(
        model="",
        load=load_settings(arch, arch_args, allow, trust_model, key),
        data=DataSettings(
            data=local(data) if data else data,
            val=local(val) if val else val,
            samples=parse_samples(samples),
            batch_size=batch_size,
            seed=seed,
            input_shape=parse_input_shapes(input_shape or ()),
            label_column=label_column,
            standardise=standardise,
        ),
        probe=ProbeSettings(loss=parse_loss(loss), draws=draws, mode=mode.value, device=device),
        rules=file.rules,
        rules_from=file.path,
        limits=tuple(limit or ()),
    )
    subjects = [replace(common, model=name) for name in model_files(models)]
    wanted = CheckSettings(fail_on.value, selected(select or (), ignore or ()))
    read = [name for settings in subjects for name in settings.inputs()]
    reports = planned(formats or (), output or (), read)
    result = _result(subjects, wanted)
    reports.write(result)
    return result.summary.exit_status


def _result(subjects: list[Settings], wanted: CheckSettings) -> CheckResult:
    # Here and not above: these import torch, and --help should not wait for it.
    with quiet():
        from rich.console import Console

        from gradscope import pipeline
        from gradscope.cli.progress import TerminalProgress

        gc.freeze()
        with TerminalProgress(Console(stderr=True)) as progress:
            return pipeline.check(subjects, wanted, progress)

"""``gradscope inspect``: options to settings, inspection to report and exit status."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from gradscope.cli.data_options import (
    InputShape,
    LabelColumn,
    Standardise,
    check_data_options,
)
from gradscope.cli.events import check_events
from gradscope.cli.launch import ranks_of
from gradscope.cli.model_options import (
    Allow,
    Arch,
    ArchArgs,
    InputValue,
    Key,
    Model,
    TrustModel,
    load_settings,
)
from gradscope.cli.options import (
    FailOn,
    Format,
    Mode,
    parse_input_shapes,
    parse_loss,
    parse_outputs,
    parse_samples,
)
from gradscope.cli.output import canvas, emit, keep_imports, quiet
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
from gradscope.cli.status import CLEAN, exit_status
from gradscope.cli.trial_options import TrialLr, TrialMomentum, TrialOptimizer, check_trial
from gradscope.config import DataSettings, ProbeSettings, Settings
from gradscope.errors import OptionError
from gradscope.files import check_target
from gradscope.ranks import Ranks
from gradscope.settings_file import find_settings

_PROBE, _REPORT = "Measuring", "Report"


def inspect(
    context: typer.Context,
    model: Model,
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
    input_value: InputValue = None,
    loss: Annotated[str, LOSS] = "auto",
    head: Annotated[list[str] | None, HEAD] = None,
    draws: Annotated[int, DRAWS] = 4,
    no_gradients: Annotated[
        bool,
        typer.Option(
            "--no-gradients",
            help="Saturation, dead units and weights only, about twice as fast: nothing "
            "runs backward, recurrent layers run fused.",
            rich_help_panel=_PROBE,
        ),
    ] = False,
    trial: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="STEPS",
            help="Decide by experiment: train a copy as it is and a repaired one for so many "
            "steps, and up to four times as many while they gain, and compare them on held-out "
            "data. Needs labels; --samples all helps.",
            rich_help_panel=_PROBE,
        ),
    ] = 0,
    trial_optimizer: TrialOptimizer = None,
    trial_lr: TrialLr = None,
    trial_momentum: TrialMomentum = None,
    mode: Annotated[Mode, MODE] = Mode.EVAL,
    seed: Annotated[int, SEED] = 0,
    device: Annotated[str, DEVICE] = "cpu",
    device_map: Annotated[str | None, DEVICE_MAP] = None,
    dtype: Annotated[str | None, DTYPE] = None,
    save_gradients: Annotated[
        str | None,
        typer.Option(
            metavar="OUT.safetensors",
            help="Write the mean |gradient| of every parameter element.",
            rich_help_panel=_PROBE,
        ),
    ] = None,
    format_: Annotated[
        Format,
        typer.Option("--format", help="For people or for programs.", rich_help_panel=_REPORT),
    ] = Format.TERMINAL,
    output: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FORMAT:FILE",
            help="Write the report in a format to a file as well: html:FILE, json:FILE or "
            "terminal:FILE. Repeatable. (A name is taken as one of --head.)",
            rich_help_panel=_REPORT,
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Write the report there instead of to stdout.",
            rich_help_panel=_REPORT,
        ),
    ] = None,
    tensorboard: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Write events for TensorBoard there, too: scalars, and histograms of weights and "
            "gradients.",
            rich_help_panel=_REPORT,
        ),
    ] = None,
    limit: Annotated[list[str] | None, LIMIT] = None,
    all_layers: Annotated[
        bool,
        typer.Option(
            "--all", help="Show every layer, the healthy ones too.", rich_help_panel=_REPORT
        ),
    ] = False,
    fail_on: Annotated[
        FailOn,
        typer.Option(
            help="Exit with status 1 on findings of this severity or above; undetermined: on "
            "errors, and if no verdict could be reached.",
            rich_help_panel=_REPORT,
        ),
    ] = FailOn.NEVER,
) -> int:
    """Examine a saved model: where its gradient goes, why, whether it matters, and what now."""
    file = find_settings()
    names, written = parse_outputs(output or ())
    settings = Settings(
        model=model,
        load=load_settings(arch, arch_args, allow, trust_model, key, input_value),
        data=DataSettings(
            data=data,
            val=val,
            samples=parse_samples(samples),
            batch_size=batch_size,
            seed=seed,
            input_shape=parse_input_shapes(input_shape or ()),
            label_column=label_column,
            standardise=standardise,
        ),
        probe=ProbeSettings(
            loss=parse_loss(loss),
            draws=draws,
            mode=mode.value,
            device=device,
            save_gradients=save_gradients,
            outputs=(*(head or ()), *names),
            trial=trial,
            trial_optimizer=trial_optimizer.value if trial_optimizer else None,
            trial_rate=trial_lr,
            trial_momentum=trial_momentum,
            gradients=not no_gradients,
            dtype=dtype,
            device_map=device_map,
        ),
        rules=file.rules,
        rules_from=file.path,
        limits=tuple(limit or ()),
    )
    if no_gradients and (trial or save_gradients is not None):
        other = "--trial" if trial else "--save-gradients"
        raise OptionError(f"{other} needs gradients", where="--no-gradients")
    check_trial(settings.probe)
    if trial and dtype is not None:
        raise OptionError(
            "trains in the type of the file", where="--trial", hint="Leave --dtype out."
        )
    if trial and device_map is not None:
        hint = "Leave --device-map out."
        raise OptionError("trains copies of the model on one device", where="--trial", hint=hint)
    check_data_options(data, label_column, standardise)
    if out in [path for _, path in written]:
        raise OptionError(f"'{out}' is named twice", where="--out")
    for option, target in (("--out", out), *(("--output", path) for _, path in written)):
        if target is not None:
            check_target(target, inputs=(*settings.inputs(), save_gradients), option=option)
    check_events(tensorboard)
    # Files first, so that a closed stdout loses none.
    reports = [*((name, path, "--output") for name, path in written), (format_, out, "--out")]
    return _run(settings, reports, tensorboard, all_layers, fail_on, ranks_of(context))


def _run(
    settings: Settings,
    reports: Sequence[tuple[Format, str | None, str]],
    events: str | None,
    all_layers: bool,
    fail_on: FailOn,
    ranks: Ranks,
) -> int:
    """Inspect, write the reports, and say how it went."""
    # Here and not above: these import torch, and --help should not wait for it.
    with quiet():
        from rich.console import Console

        from gradscope import pipeline, report
        from gradscope.cli.progress import TerminalProgress

        keep_imports()
        with TerminalProgress(Console(stderr=True)) as progress:
            inspection = pipeline.inspect(settings, progress, None, ranks)
    if ranks.rank:
        return CLEAN  # the first process reports
    if events is not None:
        report.write_events(inspection, events)
    for name, target, option in reports:
        page = canvas(target)
        text = report.render(
            name.value,
            inspection,
            width=page.width,
            colour=page.colour,
            unicode=page.unicode,
            all_layers=all_layers,
        )
        emit(text, target, option)
    return exit_status(inspection, fail_on)

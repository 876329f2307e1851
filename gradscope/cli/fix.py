"""``gradscope fix``: parse, repair, render, exit status."""

from __future__ import annotations

import gc
from enum import StrEnum
from typing import Annotated

import typer

from gradscope.cli import status
from gradscope.cli.data_options import (
    InputShape,
    LabelColumn,
    Standardise,
    check_data_options,
)
from gradscope.cli.emitted import check_folder, emit_run
from gradscope.cli.model_options import (
    Allow,
    Arch,
    ArchArgs,
    Key,
    Model,
    TrustModel,
    load_settings,
)
from gradscope.cli.options import (
    Format,
    parse_input_shapes,
    parse_loss,
    parse_samples,
)
from gradscope.cli.output import canvas, emit, quiet
from gradscope.config import DataSettings, FixSettings, ProbeSettings, Settings
from gradscope.errors import OptionError
from gradscope.settings_file import find_settings

_DATA, _REPAIR, _TRAIN, _REPORT = "Data", "Repair", "Fine-tuning", "Report"


class Regularize(StrEnum):
    """What keeps weights small."""

    NONE = "none"
    L2 = "l2"
    L1 = "l1"
    ADAMW = "adamw"
    MAX_NORM = "max-norm"
    SPECTRAL = "spectral"


class Optimizer(StrEnum):
    """What trains."""

    ADAM = "adam"
    ADAMW = "adamw"
    SGD = "sgd"


STRENGTHS = {"none": 0.0, "l2": 1e-4, "l1": 1e-5, "adamw": 1e-2, "max-norm": 3.0, "spectral": 3.0}
"""Of --regularize, where --strength is not given: a small L2 after one shrink on data is what was
measured to be best; a strong one kills small weights, and under Adam it is slow."""


def fix(
    model: Model,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|MODULE:FN", help="Labelled samples to train on.", rich_help_panel=_DATA
        ),
    ] = None,
    val: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|MODULE:FN",
            help="Held-out samples; without them a quarter of --data is kept from training.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    samples: Annotated[
        str,
        typer.Option(metavar="N|all", help="How many samples to use.", rich_help_panel=_DATA),
    ] = "all",
    label_column: LabelColumn = None,
    standardise: Standardise = False,
    input_shape: InputShape = None,
    arch: Arch = None,
    arch_args: ArchArgs = None,
    allow: Allow = None,
    key: Key = None,
    trust_model: TrustModel = False,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="The repaired model, in the format of MODEL.",
            rich_help_panel=_REPAIR,
        ),
    ] = None,
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Say what would be done and why.", rich_help_panel=_REPAIR),
    ] = False,
    method: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="One remedy: kappa, kappa-refit, kappa-gates, centre, revive, batch-norm-fold, "
            "polar, identity, temperature, std-restore, standardise, alpha or restart. "
            "Without it the diagnosis decides, and what fits is tried.",
            rich_help_panel=_REPAIR,
        ),
    ] = None,
    rescale: Annotated[
        bool,
        typer.Option(
            "--rescale", help="Without a restart: rescalings only.", rich_help_panel=_REPAIR
        ),
    ] = False,
    alpha: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="phi to alpha phi(z / alpha) in a plain chain, folded exactly.",
            rich_help_panel=_REPAIR,
        ),
    ] = None,
    layers: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GLOB",
            help="Layers or parameters that remedies may change. Repeatable.",
            rich_help_panel=_REPAIR,
        ),
    ] = None,
    no_finetune: Annotated[
        bool,
        typer.Option("--no-finetune", help="Stop after the remedy.", rich_help_panel=_REPAIR),
    ] = False,
    regularize: Annotated[
        Regularize, typer.Option(help="What keeps weights small.", rich_help_panel=_TRAIN)
    ] = Regularize.L2,
    strength: Annotated[
        float | None,
        typer.Option(min=0.0, metavar="X", help="Of --regularize.", rich_help_panel=_TRAIN),
    ] = None,
    epochs: Annotated[
        int, typer.Option(min=1, metavar="N", help="At most.", rich_help_panel=_TRAIN)
    ] = 40,
    lr: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Learning rate; 1e-3, or 3e-4 from 30 hidden layers.",
            rich_help_panel=_TRAIN,
        ),
    ] = None,
    optimizer: Annotated[
        Optimizer, typer.Option(help="sgd has momentum .9.", rich_help_panel=_TRAIN)
    ] = Optimizer.ADAM,
    batch_size: Annotated[
        int, typer.Option(min=1, metavar="N", help="Samples a step.", rich_help_panel=_TRAIN)
    ] = 32,
    patience: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Epochs without a better score after which it ends; 0: never.",
            rich_help_panel=_TRAIN,
        ),
    ] = 10,
    freeze: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GLOB",
            help="Parameters that stay as they are. Repeatable.",
            rich_help_panel=_TRAIN,
        ),
    ] = None,
    loss: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="auto, cross-entropy, bce, mse, nll or MODULE:FN.",
            rich_help_panel=_TRAIN,
        ),
    ] = "auto",
    seed: Annotated[
        int,
        typer.Option(
            min=0, max=2**63 - 1, metavar="N", help="Of all that is drawn.", rich_help_panel=_TRAIN
        ),
    ] = 0,
    device: Annotated[
        str, typer.Option(help="Where to run, e.g. cpu or cuda.", rich_help_panel=_TRAIN)
    ] = "cpu",
    format_: Annotated[
        Format,
        typer.Option("--format", help="For people or for programs.", rich_help_panel=_REPORT),
    ] = Format.TERMINAL,
) -> int:
    """Repair a saved model: rescale, fine-tune, verify, and write it back as it came."""
    if out is None and not plan:
        hint = "Name the file to write, or pass --plan."
        raise OptionError("missing", where="--out", hint=hint)
    if data is None and not plan:
        raise OptionError("missing", where="--data", hint="A repair is trained and proven on it.")
    if lr is not None and not 0 < lr < 1e3:
        raise OptionError(f"{lr} is no learning rate", where="--lr", hint="For example: 1e-3.")
    _check_remedy(method, rescale, alpha)
    if out is not None and not plan and not no_finetune:
        check_folder(out)
    check_data_options(data, label_column, standardise)
    file = find_settings()
    settings = Settings(
        model=model,
        load=load_settings(arch, arch_args, allow, trust_model, key),
        data=DataSettings(
            data=data,
            val=val,
            samples=parse_samples(samples),
            seed=seed,
            input_shape=parse_input_shapes(input_shape or ()),
            label_column=label_column,
            standardise=standardise,
        ),
        probe=ProbeSettings(loss=parse_loss(loss), device=device),
        rules=file.rules,
        rules_from=file.path,
    )
    kind = regularize.value
    repair = FixSettings(
        out=out,
        plan_only=plan,
        method=method,
        finetune=not no_finetune,
        regularize=kind,
        strength=STRENGTHS[kind] if strength is None else strength,
        epochs=epochs,
        rate=lr,
        optimizer=optimizer.value,
        batch_size=batch_size,
        patience=patience,
        freeze=tuple(freeze or ()),
        rescale=rescale,
        alpha=alpha,
        layers=tuple(layers or ()),
    )
    return _run(settings, repair, format_)


def _check_remedy(method: str | None, rescale: bool, alpha: float | None) -> None:
    """Options that contradict one another.

    Raises:
        OptionError: they do, or alpha is no scale.
    """
    if rescale and method == "restart":
        hint = "Leave one of them out."
        raise OptionError("a restart is no rescaling", where="--method restart", hint=hint)
    if alpha is not None and method not in (None, "alpha"):
        hint = "Leave one of them out."
        raise OptionError(f"has no meaning for --method {method}", where="--alpha", hint=hint)
    if alpha is not None and not 0 < alpha < 1e6:
        raise OptionError(f"{alpha} is no scale", where="--alpha", hint="For example: 2.")


def _run(settings: Settings, repair: FixSettings, format_: Format) -> int:
    # Here and not above: these import torch, and --help should not wait for it.
    with quiet():
        from rich.console import Console

        from gradscope import pipeline
        from gradscope.cli.progress import TerminalProgress
        from gradscope.report import render_treatment

        gc.freeze()
        with TerminalProgress(Console(stderr=True)) as progress:
            treatment = pipeline.fix(settings, repair, progress)
        trained = treatment.outcome.value == "improved" and repair.finetune
        folder = emit_run(treatment, settings, repair) if trained and treatment.written else None
    emit(render_treatment(format_.value, treatment, canvas(None).width, folder), None)
    return status.FINDINGS if treatment.outcome.value == "not improved" else status.CLEAN

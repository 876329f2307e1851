"""``gradscope fix``: parse, repair, render, exit status."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from gradscope.cli import status
from gradscope.cli.data_options import (
    InputShape,
    LabelColumn,
    Standardise,
    check_data_options,
)
from gradscope.cli.fix_options import (
    STRENGTHS,
    Optimizer,
    Regularize,
    check_beside_run,
    check_remedy,
    check_shard,
    check_training,
    here,
)
from gradscope.cli.launch import ranks_of
from gradscope.cli.model_options import (
    Allow,
    Arch,
    ArchArgs,
    InputValue,
    Key,
    TrustModel,
    load_settings,
)
from gradscope.cli.options import (
    Format,
    parse_input_shapes,
    parse_loss,
    parse_samples,
)
from gradscope.cli.output import canvas, emit, keep_imports, quiet
from gradscope.cli.run_folder import RunFolder, ended, new_run, old_run, wants_run
from gradscope.config import DataSettings, FixSettings, ProbeSettings, Settings
from gradscope.errors import GradscopeError, Interrupted, OptionError
from gradscope.ranks import LostError, Ranks
from gradscope.run_file import located, read_run
from gradscope.settings_file import find_settings
from gradscope.treatment import Outcome, Treatment

_DATA, _REPAIR, _TRAIN, _REPORT = "Data", "Repair", "Fine-tuning", "Report"


def fix(
    context: typer.Context,
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="The saved model.")] = None,
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
    input_value: InputValue = None,
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
            "polar, identity, temperature, std-restore, standardise, tanh, alpha or restart. "
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
            help="phi to alpha phi(z / alpha), its scale folded exactly where it can go.",
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
    max_drift: Annotated[
        float,
        typer.Option(
            min=0.0,
            metavar="X",
            help="Without labels: by how much of their size the outputs may move.",
            rich_help_panel=_REPAIR,
        ),
    ] = FixSettings.max_drift,
    emit_only: Annotated[
        bool,
        typer.Option(
            "--emit-only",
            help="Write FILE.run, ready to be started elsewhere, and train nothing.",
            rich_help_panel=_REPAIR,
        ),
    ] = False,
    run: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Go on with a run that was broken off, or repeat one: FILE.run. Its settings "
            "stand in it; MODEL, --data, --val, --arch and --out say where files are now.",
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
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Passes over the data at most; by default 40, of 25 steps or more each.",
            rich_help_panel=_TRAIN,
        ),
    ] = None,
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
            help="Epochs without a better score after which it ends, unless that is a plateau on "
            "the way; 0: never.",
            rich_help_panel=_TRAIN,
        ),
    ] = 10,
    freeze: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GLOB",
            help="Layers or parameters that stay as they are. Repeatable.",
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
    shard: Annotated[
        bool,
        typer.Option(
            "--shard",
            help="Under torchrun: gradients and optimiser in parts over the processes (FSDP2).",
            rich_help_panel=_TRAIN,
        ),
    ] = False,
    tensorboard: Annotated[
        bool,
        typer.Option(
            "--tensorboard",
            help="Keep events for TensorBoard in FILE.run/tensorboard.",
            rich_help_panel=_TRAIN,
        ),
    ] = False,
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
    if run is not None:
        check_beside_run(_given(context))
        where = (model, data, val, arch, out, trust_model)
        return _again(Path(run), *where, format_, ranks_of(context))
    if model is None:
        raise OptionError("missing", where="MODEL", hint="Name the saved model, or a --run.")
    if out is None and not plan:
        hint = "Name the file to write, or pass --plan."
        raise OptionError("missing", where="--out", hint=hint)
    if data is None and not plan:
        raise OptionError("missing", where="--data", hint="A repair is trained and proven on it.")
    check_remedy(method, rescale, alpha)
    check_data_options(data, label_column, standardise)
    file = find_settings()
    settings = Settings(
        model=model,
        load=load_settings(arch, arch_args, allow, trust_model, key, input_value),
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
        emit_only=emit_only,
        max_drift=max_drift,
        tensorboard=tensorboard,
        shard=shard,
    )
    check_training(repair, "optimizer" in _given(context))
    ranks = ranks_of(context)
    check_shard(repair, ranks.size)
    with ranks.together():
        kept = new_run(settings, repair) if wants_run(repair) and ranks.rank == 0 else None
    return _run(settings, repair, kept, format_, ranks)


def _given(context: typer.Context) -> list[str]:
    """Parameters that the user gave a value to."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return [n for n, s in sources.items() if s is not None and s.name == "COMMANDLINE"]


def _again(
    folder: Path,
    model: str | None,
    data: str | None,
    val: str | None,
    arch: str | None,
    out: str | None,
    trust_model: bool,
    format_: Format,
    ranks: Ranks,
) -> int:
    """Go on with a run, or repeat it."""
    found = read_run(folder)
    if found.settings.load.trust_model and not trust_model:
        hint = "Repeat it if you trust the model: --run DIR --trust-model."
        raise OptionError("the run was begun with --trust-model", where="--run", hint=hint)
    there = located(found, folder)
    settings, repair = here(there.settings, there.repair, model, data, val, arch, out)
    repair = replace(repair, emit_only=False)
    check_shard(repair, ranks.size)
    options = {"--data": data, "--val": val, "--arch": arch, "--out": out}
    moved = [w for name, value in options.items() if value is not None for w in (name, value)]
    words = (*([model] if model is not None else []), *moved)
    with ranks.together():
        kept = old_run(folder, found, settings, repair, words) if ranks.rank == 0 else None
    return _run(settings, repair, kept, format_, ranks)


def _run(
    settings: Settings,
    repair: FixSettings,
    kept: RunFolder | None,
    format_: Format,
    ranks: Ranks,
) -> int:
    # Here and not above: these import torch, and --help should not wait for it.
    with quiet():
        from rich.console import Console

        from gradscope import pipeline
        from gradscope.cli.progress import TerminalProgress
        from gradscope.report import render_treatment

        keep_imports()
        try:
            with TerminalProgress(Console(stderr=True)) as progress:
                treatment = pipeline.fix(settings, repair, progress, kept, ranks)
            if kept is not None and ended(treatment):
                kept.finish(treatment)
        except KeyboardInterrupt as error:
            raise Interrupted(kept.go_on if kept is not None else None) from error
        except LostError as error:
            if kept is None or kept.go_on is None:
                raise
            raise LostError(error.what, hint=f"Go on with: {kept.go_on}") from error
        except (GradscopeError, OSError):
            if kept is not None:
                kept.abandon()
            raise
        finally:
            if kept is not None:
                kept.release()
    if ranks.rank:
        return status.CLEAN  # the first process reports
    folder = kept.path if kept is not None and _has_run(treatment) else None
    emit(render_treatment(format_.value, treatment, canvas(None).width, folder), None)
    return status.FINDINGS if treatment.outcome.value == "not improved" else status.CLEAN


def _has_run(treatment: Treatment) -> bool:
    return treatment.outcome is Outcome.EMITTED or ended(treatment)

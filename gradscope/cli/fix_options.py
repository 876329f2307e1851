"""Choices of ``gradscope fix``, and what does not go together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from enum import StrEnum

from gradscope.cli.events import check_package
from gradscope.config import FixSettings, Settings
from gradscope.errors import OptionError


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


def check_remedy(method: str | None, rescale: bool, alpha: float | None) -> None:
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


def check_training(repair: FixSettings, optimizer_given: bool) -> None:
    """Raises :class:`OptionError` for numbers and pairs that make no sense."""
    rate, kind = repair.rate, repair.regularize
    if rate is not None and not 0 < rate < 1e3:
        raise OptionError(f"{rate} is no learning rate", where="--lr", hint="For example: 1e-3.")
    if kind in ("max-norm", "spectral") and not repair.strength > 0:
        what = f"{repair.strength:g} as a limit leaves no weights"
        raise OptionError(what, where="--strength", hint="For example: 3.")
    if kind == "adamw" and optimizer_given and repair.optimizer != "adamw":
        what = f"adamw is a decay of its own optimiser, which is not {repair.optimizer}"
        raise OptionError(what, where="--regularize", hint="Leave --optimizer out, or take l2.")
    if repair.emit_only and not repair.finetune:
        hint = "Leave one of them out."
        raise OptionError("without fine-tuning there is no run", where="--emit-only", hint=hint)
    if repair.tensorboard:
        check_package()


def check_shard(repair: FixSettings, processes: int) -> None:
    """Raises :class:`OptionError` where parameters cannot lie in parts."""
    if not repair.shard or repair.plan_only or repair.emit_only:
        return
    if processes == 1:
        hint = "Start several: torchrun --nproc-per-node 2 -m gradscope fix ... --shard."
        raise OptionError("there is one process, which has no parts", where="--shard", hint=hint)
    if repair.regularize == "spectral":
        what = "spectral needs every matrix whole after each step"
        raise OptionError(what, where="--shard", hint="Take max-norm, or leave --shard out.")


WITH_RUN = frozenset({"run", "model", "data", "val", "arch", "out", "trust_model", "format_"})
"""Parameters that may stand beside --run: where things are now, and how to report."""


def check_beside_run(given: Iterable[str]) -> None:
    """Raises :class:`OptionError` for a setting that stands in the run already."""
    for name in given:
        if name not in WITH_RUN:
            option = {"lr": "--lr"}.get(name, "--" + name.replace("_", "-"))
            hint = "Begin a new run without --run to change it."
            raise OptionError("is a setting of the run that stands in its run.toml", where=option,
                              hint=hint)  # fmt: skip


def here(
    settings: Settings,
    repair: FixSettings,
    model: str | None,
    data: str | None,
    val: str | None,
    arch: str | None,
    out: str | None,
) -> tuple[Settings, FixSettings]:
    """The settings of a run with files where the user says that they are now."""
    at = settings.data
    return (
        replace(
            settings,
            model=model or settings.model,
            load=replace(settings.load, arch=arch or settings.load.arch),
            data=replace(at, data=data or at.data, val=val or at.val),
        ),
        replace(repair, out=out or repair.out),
    )

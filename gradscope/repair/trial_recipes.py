"""How the copies of a trial are trained: as the user says, else as the checkpoint says, else as a
good engineer would try, at several rates."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gradscope.config import ProbeSettings
from gradscope.errors import OptionError
from gradscope.findings import Cause
from gradscope.measurements import Measurements
from gradscope.optimisers import KINDS, Optimiser, usual
from gradscope.repair.recipe import Recipe

BATCH = 32
LONGEST = 4
"""Times the steps asked for that a copy is trained at most."""
DEEP = 30
"""Hidden activations from which the first rate is lower."""
LOWER = 0.3
CLIP = 1.0
"""Largest norm of the whole gradient."""


@dataclass(frozen=True)
class Choice:
    """The optimiser of a trial.

    Attributes:
        optimiser: its rate is the first one to be tried.
        rates: that an untreated copy is trained with, in this order; one where the rate is known.
        source: where this is from, for the report.
    """

    optimiser: Optimiser
    rates: tuple[float, ...]
    source: str


def choose(probe: ProbeSettings, own: Optimiser | str | None, *, deep: bool) -> Choice:
    """What trains.

    Args:
        probe: optimiser, rate and momentum, where the user chose.
        own: of the checkpoint; or why it is of no use; None: it has none.
        deep: whether the usual rate is too high for so many layers.

    Raises:
        OptionError: a momentum was asked for, and the optimiser has none.
    """
    known = own if isinstance(own, Optimiser) else None
    asked, rate, momentum = probe.trial_optimizer, probe.trial_rate, probe.trial_momentum
    if asked is None and known is not None:
        chosen, source = known, "as in the checkpoint"
        if known.remark:
            source += f" ({known.remark})"
    else:
        chosen = usual(asked or "adam", momentum)
        if known is not None and known.kind == asked and rate is None:
            chosen = known
        source = "as asked for" if asked else "the file keeps no optimiser"
        if asked is None and isinstance(own, str):
            source = f"the checkpoint's is not used: {own}"
    if momentum is not None and "momentum" not in KINDS[chosen.kind].takes:
        hint = "Add --trial-optimizer sgd, or leave it out."
        what = f"{KINDS[chosen.kind].name} has no momentum of its own"
        raise OptionError(what, where="--trial-momentum", hint=hint)
    if momentum is not None:
        settings: dict[str, object] = {**dict(chosen.settings), "momentum": momentum}
        if not momentum:
            settings.pop("nesterov", None)  # it looks ahead along the momentum
        chosen = Optimiser(chosen.kind, chosen.rate, tuple(settings.items()))
    if rate is not None:
        return Choice(chosen.with_rate(rate), (rate,), f"{source}, the rate as asked for")
    if chosen.rate is not None:
        return Choice(chosen, (chosen.rate,), source)
    rates = tuple(r * (LOWER if deep else 1.0) for r in KINDS[chosen.kind].rates)
    return Choice(chosen.with_rate(rates[0]), rates, source)


def recipe_of(
    choice: Choice,
    measured: Measurements,
    causes: tuple[Cause, ...],
    steps: int,
    fixed: int | None,
) -> Recipe:
    """Of the repaired copy. Where gradients explode it is trained with clipping, as a part of its
    repair: see :func:`untreated`."""
    clip = CLIP if is_recurrent(measured) or Cause.EXPLODING in causes else None
    optimiser = choice.optimiser
    return Recipe(
        steps, choice.rates[0], fixed or BATCH, clip, optimiser.kind,
        beyond=(LONGEST - 1) * steps, settings=optimiser.settings,
    )  # fmt: skip


def untreated(recipe: Recipe, measured: Measurements, rate: float) -> Recipe:
    """Of an untreated copy: clipped only where everyone clips, in recurrent networks."""
    return replace(recipe, rate=rate, clip=CLIP if is_recurrent(measured) else None)


def is_recurrent(measured: Measurements) -> bool:
    """Whether gradients flow back through time."""
    return measured.ledger is not None and bool(measured.ledger.time)


def is_deep(measured: Measurements) -> bool:
    """Whether so many activations lie in a row that the usual rate is too high."""
    ledger = measured.ledger
    return ledger is not None and len(ledger.entries) >= DEEP

"""Which of the ledger's three sources a loss of gradient comes from. Imports no torch.

Used by the rules and by the diagnosis, so that both name the same cause.
"""

from __future__ import annotations

from gradscope.findings import Cause
from gradscope.measurements import Ledger, Measurements, Role, Site

SMALL_WEIGHT_DECADES = 0.45
"""Decades a layer above which weights are called small, and not only deep (first calibration)."""

SATURATED_SITE = 0.70
"""Saturated share of a layer from which saturation is what makes its derivative small."""

INPUT_RMS = 3.0
"""Root mean square of an input's effect that points at the input and not at the weights."""


ALONE = 3.0
"""Decades of slope that are enough by themselves, whatever the other sources add."""


def attenuation_causes(measured: Measurements, ledger: Ledger) -> tuple[Cause, ...]:
    """The largest of -S, -W, -A first, then what costs at least half as much and a decade.

    The slope is a property of the activation and does not move with training; where it alone is
    enough to lose the gradient it comes before the derivative, which saturation adds to it. Where
    one saturated layer makes most of the derivative's part, what saturates it is the cause.
    """
    parts = {"slope": ledger.slope, "weight": ledger.weight, "activation": ledger.activation}
    losses = {name: -value for name, value in parts.items() if value is not None}
    if not losses or max(losses.values()) <= 0:
        return ()
    order = sorted(losses, key=lambda name: -losses[name])
    if order[0] == "activation" and losses.get("slope", 0.0) >= ALONE:
        order = ["slope", *(name for name in order if name != "slope")]
    floor = max(1.0, losses[order[0]] / 2)
    kept = [name for i, name in enumerate(order) if i == 0 or losses[name] >= floor]
    layers = max(len(ledger.entries) - 1, 1)
    causes = [_cause(name, losses[name] / layers) for name in kept]
    behind = _behind_derivative(measured, ledger, losses.get("activation", 0.0))
    if behind is not None:
        causes = [behind if c is Cause.DEPTH_DERIVATIVE else c for c in causes]
    return tuple(causes)


def _behind_derivative(measured: Measurements, ledger: Ledger, lost: float) -> Cause | None:
    """What saturates the one layer at which most of the derivative's part is lost, if one does."""
    known = [e for e in ledger.entries if e.activation is not None]
    worst = min(known, key=lambda e: e.activation or 0.0, default=None)
    if worst is None or -(worst.activation or 0.0) < lost / 2:
        return None
    site = next((s for s in measured.sites if s.id == worst.site), None)
    if site is None or (site.saturated_fraction or 0.0) <= SATURATED_SITE:
        return None
    return saturation_cause(measured, site)


def _cause(source: str, per_layer: float) -> Cause:
    if source == "weight":
        return Cause.SMALL_WEIGHTS if per_layer > SMALL_WEIGHT_DECADES else Cause.DEPTH_GAIN
    return Cause.FLAT_SLOPE if source == "slope" else Cause.DEPTH_DERIVATIVE


def bounded_hidden(measured: Measurements) -> list[Site]:
    """Hidden activations that can saturate, in execution order."""
    hidden = (s for s in measured.sites if s.role is Role.HIDDEN)
    return [s for s in hidden if s.saturated_fraction is not None]


def weights_feeding(measured: Measurements, site: Site) -> list[float]:
    """init_ratio of the matrices that feed a site."""
    ratios = {p.name: p.weight.init_ratio for p in measured.parameters}
    return [r for r in (ratios.get(name) for name in site.parameters) if r is not None]


def saturation_cause(measured: Measurements, site: Site) -> Cause | None:
    """What makes z large at a saturated site: its weights, or the scale of what comes in.

    The input of a layer is at most 1 behind another bounded activation, so only the first layer
    can meet large inputs; its weights are then of an ordinary size.
    """
    ratios = weights_feeding(measured, site)
    if not ratios or site.pre_activation_rms is None:
        return None
    largest = max(ratios)
    first = next(iter(bounded_hidden(measured)), None)
    incoming = site.pre_activation_rms / largest if largest else 0.0
    if first is not None and first.id == site.id and largest < 3.0 and incoming > INPUT_RMS:
        return Cause.LARGE_INPUTS
    return Cause.LARGE_PARAMETERS if largest >= 2.0 else None

"""Findings weighed: which of them decide, the order of causes, the words. Imports no torch.

A finding is an error where it makes a model unhealthy; the rules have read labelled data already.
Findings that hinge on what the model can do leave the verdict open while there are no labels.
"""

from __future__ import annotations

from collections.abc import Sequence

from gradscope.attribution import (
    DEAD_LAYER,
    FAR_TOO_LARGE,
    SATURATED_MODEL,
    attenuation_causes,
    bounded_hidden,
    is_at_chance,
    typical_ratio,
)
from gradscope.findings import Cause, Finding, Severity
from gradscope.measurements import Measurements, Role

_ATTENUATION = (Cause.SMALL_WEIGHTS, Cause.DEPTH_GAIN, Cause.FLAT_SLOPE, Cause.DEPTH_DERIVATIVE)
_ORDER = (
    Cause.NONFINITE, Cause.LARGE_INPUTS, Cause.LARGE_PARAMETERS, Cause.EXPLODING, Cause.DEAD_UNITS,
    *_ATTENUATION, Cause.VANISHING_THROUGH_TIME, Cause.FORWARD_COLLAPSE,
)  # fmt: skip
"""Causes before their effects: large weights make gradients explode and units die, attenuation
makes features collapse."""

_WEIGHTS = (Cause.SMALL_WEIGHTS, Cause.DEPTH_GAIN)

WORDS = {
    Cause.NONFINITE: "numbers are not finite",
    Cause.LARGE_INPUTS: "the input's scale, not the weights', is too large for the first layer",
    Cause.LARGE_PARAMETERS: "large weights drive the units out of their working range",
    Cause.EXPLODING: "the gradient explodes on its way back",
    Cause.DEAD_UNITS: "a whole layer of units is dead",
    Cause.FLAT_SLOPE: "the activation's slope is at most a fraction, layer after layer",
    Cause.DEPTH_DERIVATIVE: "the product of the activations' derivatives shrinks with depth",
    Cause.SMALL_WEIGHTS: "the weights are too small, layer after layer",
    Cause.DEPTH_GAIN: "the weights' gain is a little too small, layer after layer",
    Cause.VANISHING_THROUGH_TIME: "the gradient dies on its way back through time",
    Cause.FORWARD_COLLAPSE: "all samples look alike to the last hidden activation",
}


_HOME = {
    Cause.NONFINITE: "GS401", Cause.LARGE_INPUTS: "GS501", Cause.LARGE_PARAMETERS: "GS301",
    Cause.EXPLODING: "GS102", Cause.DEAD_UNITS: "GS203", Cause.SMALL_WEIGHTS: "GS304",
    Cause.DEPTH_GAIN: "GS101", Cause.FLAT_SLOPE: "GS101", Cause.DEPTH_DERIVATIVE: "GS101",
    Cause.VANISHING_THROUGH_TIME: "GS104", Cause.FORWARD_COLLAPSE: "GS204",
}  # fmt: skip
"""The rule that knows what to do about a cause; others find it as well."""


def advice(causes: Sequence[Cause], findings: Sequence[Finding]) -> str | None:
    """What to do about the first cause."""
    if not findings:
        return None
    home = _HOME.get(causes[0]) if causes else None
    return next((f.advice for f in findings if f.code == home), lead(causes, findings).advice)


def deciding(findings: Sequence[Finding], *, labelled: bool) -> list[Finding]:
    """Findings that make a model unhealthy."""
    return [f for f in findings if f.severity is Severity.ERROR and (labelled or not f.hinges)]


def open_questions(findings: Sequence[Finding]) -> list[Finding]:
    """Findings that labels would turn into an error or into nothing."""
    return [f for f in findings if f.hinges and f.cause is not None]


def not_acquitted(measured: Measurements, findings: Sequence[Finding]) -> list[Finding]:
    """What stays a warning where the first head works: numbers that are not finite, and what keeps
    the gradient of another head, of which its skill says nothing."""
    others = {head.name for head in measured.heads[1:]}
    return [f for f in cautions(findings) if f.cause is Cause.NONFINITE or f.about in others]


def behind(findings: Sequence[Finding], deciding: Sequence[Finding]) -> list[Finding]:
    """Warnings of large inputs that do not decide, but bring about what does."""
    return [f for f in cautions(findings) if f.code == "GS501" and f not in deciding]


def cautions(findings: Sequence[Finding]) -> list[Finding]:
    """Findings that make a warning of the verdict."""
    return [f for f in findings if f.severity is Severity.WARNING and f.cause is not None]


_OF_A_START = ("GS107", "GS303")
"""What a usual start may warn of: branches whose last scale begins at 0."""


def left_open(measured: Measurements, findings: Sequence[Finding]) -> list[Finding]:
    """Warnings without a cause, where labelled data show nothing but chance: they convict nobody,
    and yet nothing says that the model is well."""
    if not is_at_chance(measured):
        return []
    warned = [f for f in findings if f.severity is Severity.WARNING and f.cause is None]
    return [f for f in warned if f.code not in _OF_A_START]


def causes_of(measured: Measurements, findings: Sequence[Finding]) -> tuple[Cause, ...]:
    """Their causes, most important first."""
    found = {f.cause for f in findings if f.cause is not None}
    order = list(_ORDER)
    attenuated = any(f.code == "GS101" for f in findings)
    if attenuated and measured.ledger is not None:
        mine = attenuation_causes(measured, measured.ledger)
        if any(c in _ATTENUATION for c in found):
            found.update(mine)
        # In the order of what they cost, where the ledger tells.
        at = order.index(_ATTENUATION[0])
        costly = [c for c in mine if c in _ATTENUATION]
        rest = [c for c in _ATTENUATION if c not in costly]
        order[at : at + len(_ATTENUATION)] = [*costly, *rest]
        if costly and costly[0] in _WEIGHTS and _partly_dead(findings):
            # Where the weights lose the signal, biases switch units off: an effect.
            order.remove(Cause.DEAD_UNITS)
            order.insert(order.index(rest[-1] if rest else costly[-1]) + 1, Cause.DEAD_UNITS)
    sized = any(f.code == "GS301" and f.cause and f.about == "model" for f in findings)
    moderate = (typical_ratio(measured) or 0.0) < FAR_TOO_LARGE and not sized
    if moderate or _explodes_unsaturated(measured, findings):
        order.remove(Cause.EXPLODING)
        order.insert(order.index(Cause.LARGE_PARAMETERS), Cause.EXPLODING)
    return tuple(c for c in order if c in found)


def _explodes_unsaturated(measured: Measurements, findings: Sequence[Finding]) -> bool:
    """Whether the gradient explodes on a chain of bounded activations that are not saturated as a
    whole: then the gain is what does harm, however large the weights. With skips what explodes is
    the sum of many ways."""
    sat, ledger = measured.hidden_saturation, measured.ledger
    if sat is None or sat > SATURATED_MODEL or ledger is None:
        return False
    if any(e.bypass for e in ledger.entries):
        return False
    hidden = [s for s in measured.sites if s.role is Role.HIDDEN]
    bounded = len(bounded_hidden(measured)) == len(hidden)
    return bounded and any(f.code == "GS102" and f.about for f in findings)


def _partly_dead(findings: Sequence[Finding]) -> bool:
    """Whether units are dead, but nowhere a whole layer."""
    shares = [f.value or 0.0 for f in findings if f.cause is Cause.DEAD_UNITS]
    return bool(shares) and max(shares) < DEAD_LAYER


def lead(causes: Sequence[Cause], findings: Sequence[Finding]) -> Finding:
    """The finding to be told: of the first cause, its own rule's before others, the gravest."""
    mine = [f for f in findings if causes and f.cause is causes[0]]
    home = _HOME.get(causes[0]) if causes else None
    return min(mine or findings, key=lambda f: (f.code != home, -f.severity.rank))


def sentence(causes: Sequence[Cause], findings: Sequence[Finding]) -> str:
    """What is wrong, in one sentence with its numbers."""
    first = lead(causes, findings)
    what = WORDS[causes[0]] if causes else first.name.replace("-", " ")
    return f"{what[:1].upper()}{what[1:]} ({first.where}: {first.message})."

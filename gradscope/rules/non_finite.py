"""GS401: NaN or infinity in inputs, weights, activations or gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gradscope.findings import Cause, Finding, Severity
from gradscope.measurements import (
    FirstNonfinite,
    GradientStats,
    InputStats,
    Measurements,
    Parameter,
    Role,
    State,
)
from gradscope.rules.base import Remedy, Rule
from gradscope.rules.examples import measured, parameter, site, weight


class NonFinite(Rule):
    """Names every weight and input, and the first operation, that is not finite."""

    code = "GS401"
    name = "non-finite"
    summary = "Weights, activations or gradients are NaN or infinite."
    explanation = (
        "Anything computed from a NaN is NaN, so only the first place matters: the input, bad "
        "weights, else the first operation whose result is not finite although all that it was "
        "given is, forward or backward. An infinite bias in front of a bounded activation is a "
        "constant to all that follows, and its gradient is 0: where every gradient and the loss "
        "are finite such weights are a warning, with labels or without. They break nothing, but "
        "they are lost, and a sum, a penalty or a cast that meets them is lost as well."
    )
    causes = (Cause.NONFINITE,)
    remedy = Remedy(
        "Load the last checkpoint without NaN; lower the learning rate, clip the gradient; guard "
        "the named operation (log and sqrt near 0, division, exp), e.g. with a small epsilon."
    )

    def check(self, measured: Measurements) -> Iterator[Finding]:
        bad = [p for p in measured.parameters if p.weight.state is State.NONFINITE]
        contained = bool(bad) and _is_contained(measured, bad)
        severity = Severity.WARNING if contained else Severity.ERROR
        for found in bad:
            share = found.weight.nonfinite_fraction or 0.0
            message = f"{share:.2%} of its values are NaN or infinite"
            if contained:
                message += "; the bounded activation behind makes constants of them"
            yield self._found(severity, found.name, message, share)
        entering = [i for i in measured.inputs if i.nonfinite_fraction]
        for given in entering:
            share = given.nonfinite_fraction
            message = f"{share:.2%} of the data given as this input are NaN or infinite"
            yield self._error(f"input {given.name}", message, share)
        if not bad and not entering:
            yield from self._first(measured)

    def _first(self, measured: Measurements) -> Iterator[Finding]:
        """The first operation, else the first activation, else the first gradient."""
        first = measured.first_nonfinite
        if first is not None:
            when = "in the backward pass, " if first.backward else ""
            after = f"after {first.after}" if first.after else "before any parameter"
            message = f"{when}its result is the first that is not finite, {after}"
            yield self._error(f"{first.operation} {after}", message, None)
            return
        seen = next((s for s in measured.sites if s.nonfinite_fraction), None)
        if seen is not None:
            share = seen.nonfinite_fraction or 0.0
            message = f"{share:.2%} of its inputs are NaN or infinite, before any other's"
            yield self._error(seen.id, message, share)
            return
        for found in measured.parameters:
            for kind, stats in (("loss-free", found.gradient), ("loss", found.loss_gradient)):
                if stats is not None and stats.state is State.NONFINITE:
                    message = f"its {kind} gradient is not finite, though all weights are"
                    yield self._error(found.name, message, stats.nonfinite_fraction)
                    return

    def _error(self, where: str, message: str, value: float | None) -> Finding:
        return self._found(Severity.ERROR, where, message, value)

    def _found(self, severity: Severity, where: str, message: str, value: float | None) -> Finding:
        return self.finding(
            severity, where, message, value=value, threshold=0.0, cause=Cause.NONFINITE
        )

    @staticmethod
    def passes() -> tuple[Measurements, ...]:
        return (measured(site("0/tanh"), parameters=(parameter("0.weight"),)),)

    @staticmethod
    def fails() -> tuple[Measurements, ...]:
        bad = weight(state=State.NONFINITE, nonfinite_fraction=0.01)
        gradient = GradientStats(State.NONFINITE, 64, 0.1, 0.1, 0.1, nonfinite_fraction=0.5)
        return (
            measured(site("0/tanh"), parameters=(parameter("0.weight", weight=bad),)),
            measured(
                site("0/relu", kind="relu", saturated_fraction=None),
                parameters=(parameter("0.weight", weight=bad),),
            ),
            measured(site("0/tanh", nonfinite_fraction=0.2)),
            measured(site("0/tanh"), parameters=(parameter("0.weight", gradient=gradient),)),
            measured(site("0/tanh"), inputs=(InputStats("x", 8, 1.0, 0.0, 1.0, 0.1),)),
            measured(site("0/tanh"), first_nonfinite=FirstNonfinite("log", "0.bias", False)),
        )


def _is_contained(measured: Measurements, bad: Sequence[Parameter]) -> bool:
    """Whether bounded activations make constants of all that is not finite.

    A NaN comes through anything, and an infinity through what is not bounded: then a gradient or
    the loss is not finite.
    """
    bounded = {
        name
        for s in measured.sites
        if s.role in (Role.HIDDEN, Role.GATE) and s.saturated_fraction is not None
        for name in s.parameters
    }
    if not measured.heads or any(p.name not in bounded for p in bad):
        return False
    every = (g for p in measured.parameters for g in (p.gradient, p.loss_gradient))
    known = [g for g in every if g is not None]
    if not known or any(g.state is State.NONFINITE for g in known):
        return False
    return all(s is None or s.loss is not None for s in (measured.skill, measured.sample_skill))

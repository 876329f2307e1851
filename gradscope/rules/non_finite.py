"""GS401: NaN or infinity in weights, activations or gradients."""

from __future__ import annotations

from collections.abc import Iterator

from gradscope.findings import Cause, Finding, Severity
from gradscope.measurements import GradientStats, Measurements, State, WeightStats
from gradscope.rules.base import Rule
from gradscope.rules.examples import measured, parameter, site


class NonFinite(Rule):
    """Names every weight, and the first activation and gradient, that is not finite."""

    code = "GS401"
    name = "non-finite"
    summary = "Weights, activations or gradients are NaN or infinite."
    explanation = (
        "Anything computed from a NaN is NaN, so only the first place matters: bad weights, else "
        "the first activation in execution order, else the first parameter whose gradient is not."
    )

    def check(self, measured: Measurements) -> Iterator[Finding]:
        bad = [p for p in measured.parameters if p.weight.state is State.NONFINITE]
        for found in bad:
            share = found.weight.nonfinite_fraction or 0.0
            yield self._error(found.name, f"{share:.2%} of its values are NaN or infinite", share)
        first = next((s for s in measured.sites if s.nonfinite_fraction), None)
        if first is not None:
            share = first.nonfinite_fraction or 0.0
            message = f"{share:.2%} of its inputs are NaN or infinite, before any other's"
            yield self._error(first.id, message, share)
        if bad or first is not None:
            return
        for found in measured.parameters:
            for kind, stats in (("loss-free", found.gradient), ("loss", found.loss_gradient)):
                if stats is not None and stats.state is State.NONFINITE:
                    message = f"its {kind} gradient is not finite, though all weights are"
                    yield self._error(found.name, message, stats.nonfinite_fraction)
                    return

    def _error(self, where: str, message: str, value: float | None) -> Finding:
        return self.finding(
            Severity.ERROR, where, message, value=value, threshold=0.0, cause=Cause.NONFINITE
        )

    @staticmethod
    def passes() -> tuple[Measurements, ...]:
        return (measured(site("0/tanh"), parameters=(parameter("0.weight"),)),)

    @staticmethod
    def fails() -> tuple[Measurements, ...]:
        weight = WeightStats(State.NONFINITE, 0.3, 1.0, None, None, None, 0.0, 0.01)
        gradient = GradientStats(State.NONFINITE, 64, 0.1, 0.1, 0.1, nonfinite_fraction=0.5)
        return (
            measured(site("0/tanh"), parameters=(parameter("0.weight", weight=weight),)),
            measured(site("0/tanh", nonfinite_fraction=0.2)),
            measured(site("0/tanh"), parameters=(parameter("0.weight", gradient=gradient),)),
        )

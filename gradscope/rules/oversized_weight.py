"""GS301: weights so large that they saturate what they feed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from gradscope.attribution import bounded_hidden, saturation_cause
from gradscope.findings import Cause, Finding, Severity
from gradscope.measurements import Measurements, State, WeightStats
from gradscope.rules.base import Rule, Threshold
from gradscope.rules.examples import measured, parameter, site


class OversizedWeight(Rule):
    """Judges weights by their effect: a large number alone is none."""

    code = "GS301"
    name = "oversized-weight"
    summary = "A layer's weights are so large that they saturate the activation behind it."
    explanation = (
        "Compared is init_ratio, the weights' root mean square over 1 / sqrt(fan_in), and only "
        "where the activation they feed is mostly saturated. A constant filter bank or a large "
        "weight before a ReLU is nothing to worry about."
    )
    thresholds: ClassVar = {
        "saturated": Threshold(0.70, "share", "of the activation that the weights feed"),
        "init_ratio": Threshold(2.0, "ratio", "twice what every usual initialisation gives"),
    }

    def check(self, measured: Measurements) -> Iterator[Finding]:
        saturated = {
            name: s
            for s in bounded_hidden(measured)
            if (s.saturated_fraction or 0.0) > self.thresholds["saturated"].value
            and saturation_cause(measured, s) is Cause.LARGE_PARAMETERS
            for name in s.parameters
        }
        limit = self.thresholds["init_ratio"].value
        for found in measured.parameters:
            ratio, weight = found.weight.init_ratio, found.weight
            at = saturated.get(found.name)
            if at is None or ratio is None or ratio < limit:
                continue
            spectral = f", spectral norm {_number(weight.spectral_norm)}"
            message = (
                f"{ratio:.1f} x the usual size (limit {limit:.1f}), max |w| "
                f"{_number(weight.max_abs)}{spectral}; saturates {at.saturated_fraction:.0%}"
            )
            yield self.finding(
                Severity.WARNING, found.name, message, value=ratio, threshold=limit,
                cause=Cause.LARGE_PARAMETERS,
            )  # fmt: skip

    @staticmethod
    def passes() -> tuple[Measurements, ...]:
        large = WeightStats(State.VALUE, 6.0, 10.0, 60.0, 1e-6, 17.0, 0.0, 0.0)
        bank = measured(site("0/tanh"), parameters=(parameter("0.weight", weight=large),))
        return (bank, measured(site("0/tanh"), parameters=(parameter("0.weight"),)))

    @staticmethod
    def fails() -> tuple[Measurements, ...]:
        large = WeightStats(State.VALUE, 6.0, 10.0, 60.0, 1e-6, 17.0, 0.0, 0.0)
        full = site("0/tanh", saturated_fraction=0.95, pre_activation_rms=20.0)
        return (measured(full, parameters=(parameter("0.weight", weight=large),)),)


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g}"

"""GS105: the gradient explodes in a few samples and is dead in the rest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from gradscope.attribution import saturation_cause
from gradscope.findings import Cause, Finding, Severity
from gradscope.measurements import Measurements, Role, Site
from gradscope.rules.base import Remedy, Rule, Threshold
from gradscope.rules.examples import measured, site


class GradientImbalance(Rule):
    """Compares root mean square and median over samples of the gradient at the first layer."""

    code = "GS105"
    name = "gradient-imbalance"
    summary = "The first layer's gradient comes from a few samples; the others give next to none."
    explanation = (
        "Norms alone mislead: saturated networks can have a large gradient that is the work of a "
        "few samples near the middle of their activations, while it is dead for all others. "
        "Compared are two magnitudes of the gradient at the first hidden activation under random "
        "cotangents: the root mean square over samples and the median."
    )
    thresholds: ClassVar = {
        "gap": Threshold(1.5, "decades", "trained nets up to 1.3; U[-10, 10] 1.8; stuck 6"),
    }
    causes = (Cause.LARGE_PARAMETERS, Cause.LARGE_INPUTS)
    remedy = Remedy(
        "See what the samples are lost to: saturation (GS201) asks for smaller weights or a "
        "standardised input, depth (GS101) for another start."
    )
    eased = True

    def check(self, measured: Measurements) -> Iterator[Finding]:
        limit = self.limit("gap")
        first = next((s for s in measured.sites if s.role is Role.HIDDEN), None)
        gap = None if first is None else _gap(first)
        if first is None or gap is None or gap <= limit:
            return
        message = (
            f"root mean square {gap:.1f} decades above the median sample (limit {limit:.1f}): "
            "a few samples make the gradient"
        )
        yield self.finding(
            Severity.WARNING, first.id, message, value=gap, threshold=limit,
            cause=saturation_cause(measured, first),
        )  # fmt: skip

    @staticmethod
    def passes() -> tuple[Measurements, ...]:
        return (
            measured(site("0/tanh", output_gain=0.5, output_gain_median=0.1)),
            measured(site("0/tanh", output_gain=0.5, output_gain_median=None)),
        )

    @staticmethod
    def fails() -> tuple[Measurements, ...]:
        return (measured(site("0/tanh", output_gain=1.9, output_gain_median=-7.9)),)


def _gap(site: Site) -> float | None:
    if site.output_gain is None or site.output_gain_median is None:
        return None
    return site.output_gain - site.output_gain_median

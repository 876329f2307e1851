"""GS108: the gradient reaches the first layer in few directions only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from gradscope.attribution import is_scored
from gradscope.findings import Cause, Finding, Severity
from gradscope.measurements import Measurements
from gradscope.rules.base import TRIAL, Remedy, Rule, Threshold
from gradscope.rules.examples import chain, measured, poor_skill
from gradscope.typical import typical_gain


class NarrowGradient(Rule):
    """Compares what a signal spread over all directions loses, by the sizes of the weights."""

    code = "GS108"
    name = "narrow-gradient"
    summary = "A deep chain passes a few directions of the gradient and loses all others."
    explanation = (
        "Deep networks that start with too small a gain can learn a little through a few "
        "directions that become strong, while everything else is still lost on its way: the ledger "
        "is even and training stands still. Compared is what a signal spread over all directions "
        "loses between the first hidden activation and the last: the product of the weights' "
        "init_ratio and of the activations' mean derivatives. Only on a chain of layers without "
        "normalisation or branches, and where one layer does not lose most of it. An error where "
        "labelled data tell how well the model does, else information."
    )
    thresholds: ClassVar = {
        "total": Threshold(
            -2.75, "decades", "plateaued nets of 12 to 18 layers -2.9 to -11, trained ones -1.6"
        ),
        "layers": Threshold(5, "layers", "fewer lose it in one or two of them, which grow back"),
    }
    causes = (
        Cause.DEPTH_GAIN, Cause.SMALL_WEIGHTS, Cause.DEPTH_DERIVATIVE, Cause.FLAT_SLOPE,
    )  # fmt: skip
    remedy = Remedy(
        "Start again with Xavier or orthogonal weights (He for ReLU), a normalisation layer or "
        "skip connections: training on does not open the other directions.",
        TRIAL,
    )
    eased = True

    def check(self, measured: Measurements) -> Iterator[Finding]:
        limit, found = self.limit("total"), typical_gain(measured)
        if found is None or found.total >= limit or found.lone:
            return
        if found.layers < self.limit("layers"):
            return
        known = is_scored(measured)
        parts = (f"weights {found.weight:+.1f}, slope {found.slope:+.1f}, "
                 f"derivative {found.derivative:+.1f}")  # fmt: skip
        yield self.finding(
            Severity.ERROR if known else Severity.INFORMATION,
            f"{found.first} ... {found.last}",
            f"{found.total:.1f} decades for a typical direction (limit {limit:.3g}): {parts}",
            value=found.total, threshold=limit, cause=found.cause if known else None, about="model",
        )  # fmt: skip

    @staticmethod
    def passes() -> tuple[Measurements, ...]:
        return (chain(1.0), chain(0.5, layers=6, skill=poor_skill()), measured())

    @staticmethod
    def fails() -> tuple[Measurements, ...]:
        return (chain(0.58), chain(0.58, skill=poor_skill()))

"""GS101: the gradient is lost on its way from the output to the first layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from gradscope.attribution import attenuation_causes
from gradscope.findings import Cause, Finding, Severity
from gradscope.measurements import Measurements
from gradscope.rules.base import Remedy, Rule, Threshold
from gradscope.rules.examples import measured, site


class VanishingGradient(Rule):
    """Compares g = min(total, median) of the ledger, in decades."""

    code = "GS101"
    name = "vanishing-gradient"
    summary = "The gradient shrinks by orders of magnitude between the output and the first layer."
    explanation = (
        "g is the smaller of two gains from the last hidden activation to the first, in decades: "
        "the root mean square over samples, and the median. It is measured with random cotangents "
        "at the output, so it says nothing about how far the loss has come down. The ledger of the "
        "report says at which layer the decades are lost, and whether to the weights, the slope of "
        "the activation or its derivative."
    )
    thresholds: ClassVar = {
        "total": Threshold(
            -3.0, "decades", "tanh nets of 20 layers: -3.1 trains to .73, -4.1 to .40 (of .96)"
        ),
        "warning": Threshold(-2.0, "decades", "-2.1 trains to .88 (of .96)"),
    }
    causes = (Cause.DEPTH_GAIN, Cause.SMALL_WEIGHTS, Cause.FLAT_SLOPE, Cause.DEPTH_DERIVATIVE)
    remedy = Remedy(
        "Start again with Xavier or orthogonal weights (He for ReLU), a normalisation layer or "
        "skip connections; replace the logistic function by tanh.",
        "{inspect} --trial 400",
    )
    eased = True

    def check(self, measured: Measurements) -> Iterator[Finding]:
        for head in measured.heads:
            g = head.ledger.gain
            error, warning = self.limit("total"), self.limit("warning")
            if g is None or g >= max(warning, error):
                continue
            severity = Severity.ERROR if g < error else Severity.WARNING
            limit = error if g < error else warning
            entries = [e.label for e in head.ledger.entries]
            where = f"{entries[-1]} ... {entries[0]}" if len(entries) > 1 else head.name
            which = f" for {head.name}" if len(measured.heads) > 1 else ""
            message = f"{g:.1f} decades{which} (limit {limit:.1f})"
            cause = next(iter(attenuation_causes(measured, head.ledger)), None)
            yield self.finding(severity, where, message, value=g, threshold=limit, cause=cause)

    @staticmethod
    def passes() -> tuple[Measurements, ...]:
        return (measured(site("0/tanh"), total=-1.9), measured(site("0/tanh"), total=None))

    @staticmethod
    def fails() -> tuple[Measurements, ...]:
        return (measured(site("0/tanh"), total=-5.8), measured(site("0/tanh"), total=-2.5))

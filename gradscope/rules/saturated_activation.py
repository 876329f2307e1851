"""GS201: most of an activation works where its derivative is nearly zero."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from gradscope.attribution import bounded_hidden, saturation_cause
from gradscope.findings import Cause, Finding, Severity
from gradscope.measurements import Measurements, Role
from gradscope.rules.base import Remedy, Rule, Threshold
from gradscope.rules.examples import measured, poor_skill, site


class SaturatedActivation(Rule):
    """Compares the share of (unit, sample) pairs whose relative derivative is below 0.1."""

    code = "GS201"
    name = "saturated-activation"
    summary = "Nearly all units of a hidden sigmoid-type activation are saturated."
    explanation = (
        "Saturated: the derivative is below a tenth of its largest value. One saturated layer is "
        "no verdict: healthy networks have been measured with .90 to .96 in one dense layer of "
        "eight. Judged are hidden activations only; gates are often meant to be shut, and an "
        "output is meant to be confident. Over the whole network it is an error where labelled "
        "data show that the model does not work: trained networks saturate too, and work."
    )
    thresholds: ClassVar = {
        "site": Threshold(0.96, "share", "above what healthy networks show in a single layer"),
        "model": Threshold(
            0.70, "share", "mean over hidden activations; 163 planted faults, 127 healthy nets"
        ),
    }
    causes = (Cause.LARGE_PARAMETERS, Cause.LARGE_INPUTS)
    remedy = Remedy(
        "Shrink the weights once so that every layer's pre-activations have a root mean square of "
        "1 on data, then train with a small L2 (1e-4); standardise the input.",
        "{inspect} --trial 400",
    )
    eased = True

    def check(self, measured: Measurements) -> Iterator[Finding]:
        mean = measured.hidden_saturation
        model, single = self.limit("model"), self.limit("site")
        widespread = mean is not None and mean > model
        for found in bounded_hidden(measured):
            share = found.saturated_fraction or 0.0
            limit = model if widespread else single
            if share <= limit:
                continue
            message = f"{share:.0%} of it saturated (limit {limit:.0%})"
            if widespread:
                message += f"; {mean:.0%} over all hidden activations"
            severity = self.graver(measured) if widespread else Severity.WARNING
            yield self.finding(
                severity, found.id, message, value=share, threshold=limit,
                cause=saturation_cause(measured, found), hinges=widespread,
            )  # fmt: skip

    @staticmethod
    def passes() -> tuple[Measurements, ...]:
        full = {"saturated_fraction": 0.99}
        return (
            measured(site("0/tanh"), site("2/tanh", saturated_fraction=0.9)),
            measured(site("0/tanh"), site("lstm.l0/forget", role=Role.GATE, **full)),
            measured(site("0/tanh"), site("2/sigmoid", role=Role.OUTPUT, **full)),
        )

    @staticmethod
    def fails() -> tuple[Measurements, ...]:
        full = site("0/tanh", saturated_fraction=0.8)
        return (
            measured(site("0/tanh"), site("2/tanh", saturated_fraction=0.99)),
            measured(full, full),
            measured(full, full, skill=poor_skill()),
        )

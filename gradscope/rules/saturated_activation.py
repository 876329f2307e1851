"""GS201: most of an activation works where its derivative is nearly zero."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from gradscope.attribution import (
    SATURATED_ALONE,
    SATURATED_MODEL,
    USUAL_RATIO,
    bounded_hidden,
    saturation_cause,
    typical_ratio,
)
from gradscope.findings import Cause, Finding, Severity
from gradscope.measurements import Measurements, Role
from gradscope.rules.base import TRIAL, Remedy, Rule, Threshold
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
        "data show that the model does not work: trained networks saturate too, and work. Where "
        "weights of a usual size saturate because of what comes in, GS501 judges how large that is."
    )
    thresholds: ClassVar = {
        "site": Threshold(
            SATURATED_ALONE, "share", "above what healthy networks show in a single layer"
        ),
        "model": Threshold(
            SATURATED_MODEL,
            "share",
            "mean over hidden activations; 163 planted faults, 127 healthy nets",
        ),
    }
    causes = (Cause.LARGE_PARAMETERS, Cause.LARGE_INPUTS)
    remedy = Remedy(
        "Shrink the weights once so that every layer's pre-activations have a root mean square of "
        "1 on data, then train with a small L2 (1e-4); standardise the input.",
        TRIAL,
    )
    eased = True

    def check(self, measured: Measurements) -> Iterator[Finding]:
        mean = measured.hidden_saturation
        model, single = self.limit("model"), self.limit("site")
        widespread = mean is not None and mean > model
        by_inputs = _by_inputs(measured)
        for found in bounded_hidden(measured):
            share = found.saturated_fraction or 0.0
            limit = model if widespread else single
            if share <= limit:
                continue
            message = f"{share:.0%} of it saturated (limit {limit:.0%})"
            if widespread:
                message += f"; {mean:.0%} over all hidden activations"
            severity = Severity.WARNING
            if widespread and not by_inputs:
                severity = self.graver(measured)
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


def _by_inputs(measured: Measurements) -> bool:
    """Whether the inputs saturate the first layer and the weights are of a usual size: what lies
    behind is then carried along, by a residual sum for example."""
    causes = (saturation_cause(measured, s) for s in bounded_hidden(measured))
    usual = (typical_ratio(measured) or 0.0) < USUAL_RATIO
    return usual and Cause.LARGE_INPUTS in causes

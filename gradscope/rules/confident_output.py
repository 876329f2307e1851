"""GS206: a model's own output activation is saturated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from gradscope.findings import Finding, Severity
from gradscope.measurements import Measurements, Role
from gradscope.rules.base import Remedy, Rule, Threshold
from gradscope.rules.examples import measured, site


class ConfidentOutput(Rule):
    """Never more than information: an output is meant to be confident."""

    code = "GS206"
    name = "confident-output"
    summary = "The model's output activation is saturated for nearly every sample."
    explanation = (
        "A sigmoid or tanh at the end of a trained model is meant to be confident. It matters only "
        "for the loss: computed from the saturated output instead of the logits, its gradient is "
        "0 where the model is confident and wrong. The probe's cotangent enters before it."
    )
    thresholds: ClassVar = {
        "share": Threshold(0.90, "share", "a confident binary output; information only"),
    }
    remedy = Remedy(
        "Compute the loss from the logits (BCEWithLogitsLoss, CrossEntropyLoss), not from the "
        "activation's output."
    )

    def check(self, measured: Measurements) -> Iterator[Finding]:
        limit = self.limit("share")
        for found in measured.sites:
            share = found.saturated_fraction
            if found.role is Role.OUTPUT and share is not None and share > limit:
                message = f"{share:.0%} saturated (limit {limit:.0%})"
                yield self.finding(
                    Severity.INFORMATION, found.id, message, value=share, threshold=limit
                )

    @staticmethod
    def passes() -> tuple[Measurements, ...]:
        return (
            measured(site("0/tanh", saturated_fraction=0.99)),
            measured(site("2/sigmoid", role=Role.OUTPUT, saturated_fraction=0.5)),
        )

    @staticmethod
    def fails() -> tuple[Measurements, ...]:
        return (measured(site("2/sigmoid", role=Role.OUTPUT, saturated_fraction=0.99)),)

"""GS104: the gradient of a recurrent layer dies on its way back through time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from gradscope.findings import Cause, Finding, Severity
from gradscope.measurements import Measurements
from gradscope.rules.base import Remedy, Rule, Threshold
from gradscope.rules.examples import measured, poor_skill, site, time_ledger


class VanishingThroughTime(Rule):
    """Compares the gain from the step with the largest gradient back to the first."""

    code = "GS104"
    name = "vanishing-through-time"
    summary = "The gradient of a recurrent layer vanishes on its way back through time."
    explanation = (
        "What happened many steps ago can then no longer be learned from. Whether it matters "
        "depends on the task: a network that only needs the last few steps forgets the rest, and "
        "works. So this is information, unless labelled data show that the model does not work."
    )
    thresholds: ClassVar = {
        "total": Threshold(-3.0, "decades", "as along the layers: -3.1 learns .73, -4.1 .40"),
        "skill": Threshold(0.5, "skill", "above it the model works without the early steps"),
    }
    causes = (Cause.VANISHING_THROUGH_TIME,)
    remedy = Remedy(
        "Start the recurrent matrix as identity or orthogonal, an LSTM's forget bias at 1; clip "
        "the gradient; read out more than the last step.",
        "{inspect} --trial 400",
    )

    def check(self, measured: Measurements) -> Iterator[Finding]:
        limit, skill = self.limit("total"), measured.skill
        poor = skill is not None and skill.value is not None and skill.value < self.limit("skill")
        severity = Severity.WARNING if poor else Severity.INFORMATION
        for time in measured.ledger.time if measured.ledger is not None else ():
            if time.total is None or time.total >= limit:
                continue
            per = time.decades_per_step
            pace = "" if per is None else f", {per:+.2f} a step"
            message = f"{time.total:.1f} decades over {time.output_at[1] + 1} steps{pace}"
            yield self.finding(
                severity, time.site, f"{message} (limit {limit:.1f})", value=time.total,
                threshold=limit, cause=Cause.VANISHING_THROUGH_TIME,
            )  # fmt: skip

    @staticmethod
    def passes() -> tuple[Measurements, ...]:
        return (measured(site("rnn.l0/tanh"), time=(time_ledger(total=-1.2),)),)

    @staticmethod
    def fails() -> tuple[Measurements, ...]:
        lost = (time_ledger(total=-9.0),)
        return (
            measured(site("rnn.l0/tanh"), time=lost),
            measured(site("rnn.l0/tanh"), time=lost, skill=poor_skill()),
        )

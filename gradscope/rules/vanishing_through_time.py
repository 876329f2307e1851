"""GS104: the gradient of a recurrent layer dies on its way back through time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar

from gradscope.attribution import LOST_IN_TIME
from gradscope.findings import Cause, Finding, Severity
from gradscope.measurements import Measurements, TimeLedger
from gradscope.rules.base import TRIAL, Remedy, Rule, Threshold
from gradscope.rules.examples import measured, poor_skill, site, time_ledger


class VanishingThroughTime(Rule):
    """Compares the gain from the step with the largest gradient back to the first."""

    code = "GS104"
    name = "vanishing-through-time"
    summary = "The gradient of a recurrent layer vanishes on its way back through time."
    explanation = (
        "What happened many steps ago can then no longer be learned from. Whether it matters "
        "depends on the task: a network that only needs the last few steps forgets the rest, and "
        "works. So this is information; where labelled data show that it does not work a warning, "
        "and an error if more is lost at each step than cells lose when they start by default."
    )
    thresholds: ClassVar = {
        "total": Threshold(
            LOST_IN_TIME,
            "decades",
            "fresh cells -1 to -2; shut forget gates -12, recurrent gain .3 -14",
        ),
        "pace": Threshold(
            -0.35,
            "decades a step",
            "default starts lose up to .24 (plain cell) and .30 (forget gate at a half)",
        ),
        "steps": Threshold(8.0, "steps", "fewer are no long way back"),
    }
    causes = (Cause.VANISHING_THROUGH_TIME,)
    remedy = Remedy(
        "Start the recurrent matrix as identity or orthogonal, an LSTM's forget bias at 1; clip "
        "the gradient; read out more than the last step.",
        TRIAL,
    )

    def check(self, measured: Measurements) -> Iterator[Finding]:
        limit = self.limit("total")
        gravest = self.graver(measured, Severity.INFORMATION)
        for time in measured.ledger.time if measured.ledger is not None else ():
            lost = _lost(time)
            if lost is None or lost >= limit or time.steps < self.limit("steps"):
                continue
            per = time.decades_per_step
            pace = "" if per is None else f", {per:+.2f} a step"
            usual = lost / max(time.output_at[1], 1) >= self.limit("pace")
            severity = Severity.WARNING if usual and gravest is Severity.ERROR else gravest
            amount = "all" if lost == -math.inf else f"{lost:.1f} decades"
            message = f"{amount} lost over {time.output_at[1] + 1} steps{pace} (limit {limit:.1f})"
            yield self.finding(
                severity, time.site, message, value=time.total, threshold=limit,
                cause=Cause.VANISHING_THROUGH_TIME, hinges=True,
            )  # fmt: skip

    @staticmethod
    def passes() -> tuple[Measurements, ...]:
        short = time_ledger(total=-9.0, steps=4, output_at=(0, 3))
        return (
            measured(site("rnn.l0/tanh"), time=(time_ledger(total=-1.2),)),
            measured(site("rnn.l0/tanh"), time=(short,)),
        )

    @staticmethod
    def fails() -> tuple[Measurements, ...]:
        lost = (time_ledger(total=-9.0),)
        return (
            measured(site("rnn.l0/tanh"), time=lost),
            measured(site("rnn.l0/tanh"), time=lost, skill=poor_skill()),
            measured(
                site("rnn.l0/tanh"),
                time=(time_ledger(total=-18.0),),
                skill=poor_skill(),
            ),
            measured(site("rnn.l0/tanh"), time=(time_ledger(total=None),)),
        )


def _lost(time: TimeLedger) -> float | None:
    """Decades; minus infinity where nothing at all arrives at the first step."""
    if time.total is None and time.output_at[1] > 0:
        return -math.inf
    return time.total

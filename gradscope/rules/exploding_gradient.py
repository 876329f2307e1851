"""GS102: the gradient grows by orders of magnitude on its way to the first layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from gradscope.findings import Cause, Finding, Severity
from gradscope.measurements import Measurements
from gradscope.rules.base import TRIAL, Remedy, Rule, Threshold
from gradscope.rules.examples import measured, poor_skill, site, time_ledger


class ExplodingGradient(Rule):
    """Compares the root-mean-square gain of the ledger, and of the ledger through time."""

    code = "GS102"
    name = "exploding-gradient"
    summary = "The gradient grows by orders of magnitude between the output and the first layer."
    explanation = (
        "Compared is the root mean square over samples of the gain from the last hidden activation "
        "to the first, and in recurrent networks from the last step to the one with the largest "
        "gradient. A step of the optimiser that suits the last layer is then far too long for the "
        "first. Widths and pooling put an offset into the number. A warning becomes an error where "
        "labelled data show that the model does not work, and beyond the digits of float32."
    )
    thresholds: ClassVar = {
        "total": Threshold(6.0, "decades", "the same number of decades as float32 has digits"),
        "warning": Threshold(2.0, "decades", "469 healthy nets: up to 1.2; gain 3: 2.2"),
        "time": Threshold(3.0, "decades", "healthy recurrent nets: up to 2.0"),
    }
    causes = (Cause.EXPLODING,)
    remedy = Remedy(
        "Clip the gradient's norm, start again with Xavier weights (He for ReLU; orthogonal for a "
        "recurrent matrix), or add normalisation layers.",
        TRIAL,
    )
    eased = True

    def check(self, measured: Measurements) -> Iterator[Finding]:
        error, warning = self.limit("total"), self.limit("warning")
        for head in measured.heads:
            total = head.ledger.total
            entries = [e.label for e in head.ledger.entries]
            if total is not None and total > min(warning, error):
                where = f"{entries[-1]} ... {entries[0]}" if len(entries) > 1 else head.name
                severity = Severity.ERROR if total > error else self.graver(measured)
                limit = error if total > error else warning
                yield self._found(severity, where, f"{total:+.1f} decades", total, limit, head.name)
        for time in measured.ledger.time if measured.ledger is not None else ():
            limit = self.limit("time")
            if time.growth is not None and time.growth > limit:
                message = f"{time.growth:+.1f} decades, going back {time.steps} steps in time"
                yield self._found(self.graver(measured), time.site, message, time.growth, limit)

    def _found(
        self,
        severity: Severity,
        where: str,
        message: str,
        value: float,
        limit: float,
        about: str = "",
    ) -> Finding:
        text = f"{message} (limit {limit:+.1f})"
        return self.finding(
            severity, where, text, value=value, threshold=limit, cause=Cause.EXPLODING,
            hinges=True, about=about,
        )  # fmt: skip

    @staticmethod
    def passes() -> tuple[Measurements, ...]:
        return (
            measured(site("0/tanh"), total=1.7),
            measured(site("rnn.l0/tanh"), total=None, time=(time_ledger(growth=0.4),)),
        )

    @staticmethod
    def fails() -> tuple[Measurements, ...]:
        return (
            measured(site("0/relu", kind="relu"), total=8.0),
            measured(site("0/relu", kind="relu"), total=3.5),
            measured(site("0/relu", kind="relu"), total=3.5, skill=poor_skill()),
            measured(site("rnn.l0/tanh"), total=None, time=(time_ledger(growth=9.0),)),
        )

"""GS205: a gate that is nearly always fully open or shut."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from gradscope.findings import Finding, Severity
from gradscope.measurements import Measurements, Role, Site
from gradscope.places import place
from gradscope.rules.base import Remedy, Rule, Threshold
from gradscope.rules.examples import measured, poor_skill, site, time_ledger


class SaturatedGate(Rule):
    """Information, unless the gradient through time dies with it."""

    code = "GS205"
    name = "saturated-gate"
    summary = "A gate is nearly always fully open or shut."
    explanation = (
        "Gates multiply a signal and are often meant to be open or shut: working recurrent models "
        "have been measured with .60 to .86 of some gates saturated. So this is information, and a "
        "warning only where the gradient through time of the same cell vanishes as well and "
        "labelled data do not show that the model works."
    )
    thresholds: ClassVar = {
        "share": Threshold(0.75, "share", "working recurrent models: .60 to .86 in some gates"),
        "time": Threshold(-3.0, "decades", "gradient through time of the same cell"),
    }
    remedy = Remedy(
        "Shrink the rows of the gate's weights and biases; start an LSTM's forget bias at 1."
    )
    eased = True

    def check(self, measured: Measurements) -> Iterator[Finding]:
        limit = self.limit("share")
        for found in measured.sites:
            share = found.saturated_fraction
            if found.role is not Role.GATE or share is None or share <= limit:
                continue
            lost = self._lost_through_time(measured, found)
            message = f"{share:.0%} saturated (limit {limit:.0%})"
            if lost is not None:
                message += f", and {lost:.1f} decades lost through time"
            known = measured.skill is not None and lost is not None
            severity = Severity.WARNING if known else Severity.INFORMATION
            yield self.finding(
                severity, place(measured, found), message, value=share, threshold=limit
            )

    def _lost_through_time(self, measured: Measurements, gate: Site) -> float | None:
        cell = gate.id.rpartition("/")[0]
        for time in measured.ledger.time if measured.ledger is not None else ():
            same = time.site.rpartition("/")[0] == cell
            if same and time.total is not None and time.total < self.limit("time"):
                return time.total
        return None

    @staticmethod
    def passes() -> tuple[Measurements, ...]:
        working = site("lstm.l0/input", gate="input", role=Role.GATE, saturated_fraction=0.73)
        return (measured(working), measured(site("0/tanh", saturated_fraction=0.99)))

    @staticmethod
    def fails() -> tuple[Measurements, ...]:
        shut = site("lstm.l0/forget", gate="forget", role=Role.GATE, saturated_fraction=0.99)
        dead = time_ledger(site="lstm.l0/state", total=-8.0)
        return (measured(shut), measured(shut, time=(dead,), skill=poor_skill()))

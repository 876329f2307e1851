"""GS205: a gate that is nearly always fully open or shut."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from gradscope.attribution import is_at_chance
from gradscope.findings import Cause, Finding, Severity
from gradscope.measurements import Measurements, Role, Site
from gradscope.places import place
from gradscope.rules.base import Remedy, Rule, Threshold
from gradscope.rules.examples import at_chance, measured, poor_skill, site, time_ledger


class SaturatedGate(Rule):
    """Information, unless the gradient through time dies with it."""

    code = "GS205"
    name = "saturated-gate"
    summary = "A gate is nearly always fully open or shut."
    explanation = (
        "Gates multiply a signal and are often meant to be open or shut: working recurrent models "
        "have been measured with .60 to .86 of some gates saturated. So this is information, and "
        "a warning only where the gradient through time of the same cell vanishes as well and "
        "labelled data do not show that the model works, or where an update or input gate is so "
        "far shut at every step that the state hardly leaves its start, and the labelled data "
        "show nothing but chance: all samples then look alike to what reads the state. Some such "
        "networks open the gate by themselves, so that it is no error."
    )
    thresholds: ClassVar = {
        "share": Threshold(0.75, "share", "working recurrent models: .60 to .86 in some gates"),
        "time": Threshold(-3.0, "decades", "gradient through time of the same cell"),
        "passed": Threshold(
            0.1, "of a new state, all steps together", "shut to 8: .01; saturated both ways: .1 up"
        ),
    }
    causes = (Cause.FORWARD_COLLAPSE,)
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
            passed = _passed(found)
            shut = passed is not None and passed < self.limit("passed")
            if shut:
                message += f"; lets {passed:.2g} of what is new in, over {found.calls} steps"
            known = measured.skill is not None and lost is not None
            kept_out = shut and is_at_chance(measured)
            yield self.finding(
                Severity.WARNING if known or kept_out else Severity.INFORMATION,
                place(measured, found), message, value=share, threshold=limit,
                cause=Cause.FORWARD_COLLAPSE if kept_out else None,
            )  # fmt: skip

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
        held = site(
            "gru.l0/update", kind="sigmoid", gate="update", role=Role.GATE, calls=20,
            saturated_fraction=1.0, activation_rms=0.9996, mean_relative_derivative=0.0014,
            pre_activation_rms=8.0,
        )  # fmt: skip
        return (
            measured(shut),
            measured(shut, time=(dead,), skill=poor_skill()),
            measured(held, skill=at_chance()),
        )


_NEAR_ONE = 0.98
"""Root mean square of a gate that is open for (nearly) all units, samples and steps."""


def _passed(gate: Site) -> float | None:
    """How much of what is new a gate lets into the state over all steps, 1 for all of it at one
    step: 1 - z of an update gate, which a logistic's relative derivative 4 z (1 - z) tells where z
    is near 1; an input gate's own value. None for other gates, and where it is not known."""
    mean, derivative = gate.activation_rms, gate.mean_relative_derivative
    if gate.kind != "sigmoid" or mean is None or derivative is None:
        return None
    if gate.gate == "update":
        return gate.calls * derivative / 4 if mean > _NEAR_ONE else None
    return gate.calls * mean if gate.gate == "input" else None

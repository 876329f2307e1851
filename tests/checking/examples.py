"""Inspections whose findings are made by hand, so that no test here rests on a rule's threshold."""

from __future__ import annotations

from dataclasses import replace

from gradscope.diagnosis import Inspection, diagnose
from gradscope.findings import Cause, Finding, Severity
from gradscope.measurements import SampleInfo
from gradscope.rules.examples import measured, poor_skill, site
from tests.report.examples import EXAMPLES

LOST = Finding(
    "GS101", "vanishing-gradient", Severity.ERROR, "layers.0/tanh ... layers.19/tanh",
    "-5.3 decades (limit -2.5)", -5.3162, -2.5, Cause.DEPTH_GAIN, hinges=True, about="output",
)  # fmt: skip
UNITS = Finding(
    "GS202", "saturated-unit", Severity.WARNING, "0/tanh[0, 1, 2]", "94% of its units", 0.94, 0.5
)
SATURATED = Finding(
    "GS201", "saturated-activation", Severity.ERROR, "0/tanh", "96% of it", 0.96, 0.7,
    Cause.LARGE_PARAMETERS,
)  # fmt: skip

WORKS_NOT = measured(site("0/tanh"), skill=poor_skill())
UNLABELLED = measured(site("0/tanh"))
MADE_UP = replace(UNLABELLED, sample=SampleInfo(None, 64, None, True, False, {"input": (8,)}))


def found(*findings: Finding, of: object = WORKS_NOT) -> Inspection:
    """With the verdict that follows."""
    return Inspection(of, findings, diagnose(of, findings))


INSPECTIONS = {
    "healthy": found(),
    "warning": found(replace(LOST, severity=Severity.WARNING)),
    "unhealthy": found(LOST),
    "undetermined, no labels": found(replace(LOST, severity=Severity.WARNING), of=UNLABELLED),
    "undetermined, made-up input": found(of=MADE_UP),
    "undetermined, weights only": found(of=EXAMPLES["weights-only"]()),
    "saturated": found(SATURATED, UNITS, replace(SATURATED, where="2/tanh")),
}

"""The provisional verdict, case by case."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gradscope.diagnosis import Verdict, diagnose
from gradscope.findings import Cause
from gradscope.measurements import InputStats, LedgerEntry, Measurements, Role, SampleInfo, Skill
from gradscope.rules import run_rules
from gradscope.rules.examples import measured, parameter, site
from tests.report.examples import EXAMPLES


def skill(value: float | None, error: float = 0.02) -> Skill:
    return Skill(value, error, 1.0, "cross-entropy", "integer labels", 0.5, False, 500)


def attenuated(total: float, weight: float, slope: float, activation: float, n: int = 11):
    entry = LedgerEntry("0/tanh", "0/tanh", "tanh", total, weight, slope, activation, total, total)
    m = measured(site("0/tanh"), total=total, entries=(entry,) * n)
    ledger = replace(m.heads[0].ledger, weight=weight, slope=slope, activation=activation)
    return replace(m, heads=(replace(m.heads[0], ledger=ledger),))


LARGE_INPUT = InputStats("x", 8, 100.0, 0.0, 100.0, 0.0)


def saturated(rms: float = 30.0, ratio: float = 20.0, **given) -> Measurements:
    weight = replace(parameter("0.weight").weight, init_ratio=ratio)
    full = site("0/tanh", saturated_fraction=0.95, pre_activation_rms=rms)
    return measured(full, parameters=(parameter("0.weight", weight=weight),), **given)


def collapsed() -> Measurements:
    entry = LedgerEntry("2/tanh", "2/tanh", "tanh", None, None, None, None, 0.0, 0.0)
    last = site("2/tanh", sample_variance_ratio=1e-9)
    return measured(site("0/tanh"), last, total=-0.5, entries=(entry, entry))


def short() -> Measurements:
    return measured(site("0/tanh"), total=None)


CASES = {
    "nothing found": (measured(site("0/tanh")), Verdict.HEALTHY, ()),
    "weak": (attenuated(-2.5, -2.0, 0, -0.5), Verdict.WARNING, (Cause.DEPTH_GAIN,)),
    "deep": (attenuated(-5.8, -5.3, 0, -0.5, 20), Verdict.UNHEALTHY, (Cause.DEPTH_GAIN,)),
    "small": (attenuated(-17, -17, 0, 0, 20), Verdict.UNHEALTHY, (Cause.SMALL_WEIGHTS,)),
    "derivative": (
        attenuated(-5, 0.5, 0, -5.5), Verdict.UNHEALTHY, (Cause.DEPTH_DERIVATIVE,)
    ),
    "slope": (attenuated(-6, 0, -5.4, -0.6), Verdict.UNHEALTHY, (Cause.FLAT_SLOPE,)),
    "slope before derivative": (
        attenuated(-6, 6, -5.4, -5.8), Verdict.UNHEALTHY,
        (Cause.FLAT_SLOPE, Cause.DEPTH_DERIVATIVE),
    ),
    "skilled, whatever else": (
        replace(attenuated(-6, -6, 0, 0), skill=skill(0.9)), Verdict.HEALTHY, ()
    ),
    "a little skill acquits nobody": (
        replace(attenuated(-6, -6, 0, 0, 20), skill=skill(0.15)), Verdict.UNHEALTHY,
        (Cause.DEPTH_GAIN,),
    ),
    "skill within its error": (
        replace(attenuated(-6, -6, 0, 0, 20), skill=skill(0.6, 0.2)), Verdict.UNHEALTHY,
        (Cause.DEPTH_GAIN,),
    ),
    "saturated with labels": (
        saturated(skill=skill(-0.1)), Verdict.UNHEALTHY, (Cause.LARGE_PARAMETERS,)
    ),
    "saturated without labels": (
        saturated(), Verdict.UNDETERMINED, (Cause.LARGE_PARAMETERS,)
    ),
    "saturated by inputs": (
        saturated(ratio=1.0, skill=skill(-0.1), inputs=(LARGE_INPUT,)), Verdict.UNHEALTHY,
        (Cause.LARGE_INPUTS,),
    ),
    "saturated and skilled": (saturated(skill=skill(0.9)), Verdict.HEALTHY, ()),
    "collapsed": (collapsed(), Verdict.UNHEALTHY, (Cause.FORWARD_COLLAPSE,)),
    "shut gates": (
        measured(site("lstm.l0/input", role=Role.GATE, saturated_fraction=0.99)),
        Verdict.HEALTHY, (),
    ),
    "confident output": (
        measured(site("0/sigmoid", role=Role.OUTPUT, saturated_fraction=0.99)),
        Verdict.HEALTHY, (),
    ),
    "too short for a ledger": (short(), Verdict.HEALTHY, ()),
    "not finite": (EXAMPLES["broken"](), Verdict.UNHEALTHY, (Cause.NONFINITE,)),
    "weights only": (EXAMPLES["weights-only"](), Verdict.UNDETERMINED, ()),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_verdict_and_causes(name):
    m, verdict, causes = CASES[name]
    found = diagnose(m, run_rules(m))
    assert found.verdict is verdict
    assert found.causes == causes
    assert found.provisional
    assert found.evidence
    assert found.summary.endswith(".")
    assert (found.settle is not None) == (verdict is Verdict.UNDETERMINED)


@pytest.mark.parametrize("name", [n for n in CASES if n not in ("not finite", "weights only")])
def test_no_verdict_rests_on_a_made_up_input(name):
    made_up = SampleInfo(None, 64, None, True, False)
    m = replace(CASES[name][0], sample=made_up, skill=None)
    found = diagnose(m, run_rules(m))
    assert found.verdict is Verdict.UNDETERMINED
    assert found.settle == "--data SAMPLE"

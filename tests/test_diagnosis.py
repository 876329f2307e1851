"""The verdict, case by case."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gradscope.diagnosis import Verdict, diagnose
from gradscope.findings import Cause
from gradscope.measurements import (
    GradientStats,
    InputStats,
    Layer,
    LedgerEntry,
    Measurements,
    Reference,
    Role,
    SampleInfo,
    Skill,
    State,
    Units,
)
from gradscope.rules import run_rules
from gradscope.rules.examples import chain, measured, parameter, site, time_ledger, weight
from tests.report.examples import EXAMPLES


def skill(value: float | None, error: float = 0.02) -> Skill:
    return Skill(value, error, 1.0, "cross-entropy", "integer labels", 0.5, False, 500)


def accurate(value: float, by_loss: float = -20.0) -> Skill:
    """Accuracy above guessing, whatever the loss says."""
    return replace(skill(by_loss), accuracy_skill=value, accuracy_error=0.02)


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


AROUND = LedgerEntry("0/tanh", "0/tanh", "tanh", 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, bypass=True)


def branch(**given) -> Measurements:
    """A weight whose gradient is 0, since the scale behind it starts at 0."""
    zero = GradientStats(State.ZERO, 64, 0.0, 0.0, 0.0)
    return measured(site("0/tanh"), parameters=(parameter("0.weight", gradient=zero),), **given)


def one_large(**given) -> Measurements:
    usual = tuple(parameter(f"{n}.weight") for n in (2, 4, 6))
    large = parameter("0.weight", weight=weight(init_ratio=50.0))
    full = site("0/tanh", saturated_fraction=0.95, pre_activation_rms=30.0, shrink=50.0)
    return measured(full, site("2/tanh"), parameters=(large, *usual), **given)


def held(relative: float = 0.0014, **given) -> Measurements:
    """A GRU whose update gate holds the state, by its mean relative derivative 4 z (1 - z)."""
    gate = site(
        "gru.l0/update", kind="sigmoid", gate="update", role=Role.GATE, calls=20,
        saturated_fraction=0.99, activation_rms=0.999, mean_relative_derivative=relative,
        pre_activation_rms=8.0,
    )  # fmt: skip
    return measured(gate, total=None, **given)


def zeros(*names: str, **given) -> Measurements:
    """Matrices of 0 behind the first activation."""
    first = site("0/silu", kind="silu", saturated_fraction=None, gradient_state=State.ZERO)
    none = tuple(parameter(n, weight=weight(init_ratio=0.0)) for n in names)
    return measured(first, total=None, parameters=(parameter("6.weight"), *none), **given)


def idle(z: float, **given) -> Measurements:
    small = parameter("0.weight", weight=weight(init_ratio=0.05))
    last = site("0/gelu", kind="gelu", saturated_fraction=None, pre_activation_rms=z)
    return measured(last, parameters=(small,), entries=(AROUND, AROUND), **given)


def carried(read: float, saturated: float | None = None, **given) -> Measurements:
    """Branches around which the input comes to a head that reads features of this size."""
    kind = "relu" if saturated is None else "tanh"
    z = 1.0 if saturated is None else 90.0
    first = site(f"0/{kind}", kind=kind, saturated_fraction=saturated, pre_activation_rms=z)
    gradient = GradientStats(State.VALUE, 64, read * 8**0.5, 0.1, 0.4)
    both = (parameter("0.weight"), parameter("9.weight", gradient=gradient))
    return measured(
        first, inputs=(LARGE_INPUT,), parameters=both, entries=(AROUND, AROUND), **given
    )


def dead_behind(ratio: float, **given) -> Measurements:
    off = site("0/relu", kind="relu", saturated_fraction=None,
               units=Units(8, None, None, 8, (), tuple(range(8))))  # fmt: skip
    before = parameter("0.weight", weight=weight(init_ratio=ratio))
    return measured(off, parameters=(before, parameter("2.weight")), **given)


def sizes_of(*ratios: float, **given) -> Measurements:
    """ReLU layers with weights of these sizes."""
    every = (parameter(f"{i}.weight", weight=weight(init_ratio=r)) for i, r in enumerate(ratios))
    return measured(site("0/relu", kind="relu"), parameters=tuple(every), **given)


def explosive(share: float, bypass: bool = False, **given) -> Measurements:
    """Tanh layers of gain 4, on a chain or in branches."""
    m = chain(4.0, total=3.5, **given)
    ledger = m.heads[0].ledger
    entries = tuple(replace(e, bypass=bypass) for e in ledger.entries)
    m = replace(m, heads=(replace(m.heads[0], ledger=replace(ledger, entries=entries)),))
    full = {"saturated_fraction": share, "shrink": 6.0, "pre_activation_rms": 4.0}
    return replace(m, sites=tuple(replace(s, **full) for s in m.sites))


def short() -> Measurements:
    return measured(site("0/tanh"), total=None)


POOR = skill(0.02)


def plain(score: float, error: float = 0.01) -> Reference:
    """What a plain learner reaches, by its answers."""
    return Reference(score, error, "accuracy", "kernel ridge", 512, 64)


def by_squares(score: float) -> Reference:
    return replace(plain(score), metric="skill")


def two_heads(g: float, **given) -> Measurements:
    """A head that loses nothing, and another."""
    first, other = (attenuated(x, x, 0, 0, 20).heads[0] for x in (-0.2, g))
    heads = (replace(first, name="output[0]"), replace(other, name="output[1]"))
    return measured(site("0/tanh"), heads=heads, **given)


def infinite(
    kind: str = "tanh",
    saturated_fraction: float | None = 0.1,
    gradient: State = State.VALUE,
    **given,
) -> Measurements:
    bad = weight(state=State.NONFINITE, nonfinite_fraction=0.05, init_ratio=None)
    stats = replace(parameter("0.weight").gradient, state=gradient)
    feeding = ("0.weight", "0.bias")
    return measured(
        site(f"0/{kind}", kind=kind, parameters=feeding, saturated_fraction=saturated_fraction),
        parameters=(parameter("0.weight"), parameter("0.bias", weight=bad, gradient=stats)),
        **given,
    )


def stuck(*arguments: float, **given) -> Measurements:
    return replace(attenuated(*arguments, **given), skill=POOR)


def in_time(total: float | None, growth: float = 0.0, **given) -> Measurements:
    ledger = time_ledger(total=total, growth=growth)
    return measured(site("rnn.l0/tanh"), total=None, time=(ledger,), **given)


def sized(ratio: float, **given) -> Measurements:
    """Nothing saturates: ReLU, or a normalisation in between."""
    relu = site("0/relu", kind="relu", saturated_fraction=None, shrink=None)
    weights = tuple(parameter(f"{i}.weight", weight=weight(init_ratio=ratio)) for i in range(3))
    return measured(relu, parameters=weights, **given)


def partly(*ratios: float, kind: str = "relu", **given) -> Measurements:
    """One activation after each of these weights but the last."""
    weights = tuple(
        parameter(f"{i}.weight", weight=weight(init_ratio=r)) for i, r in enumerate(ratios)
    )
    sites = (
        site(f"{i}/{kind}", kind=kind, saturated_fraction=None, shrink=None)
        for i in range(len(ratios) - 1)
    )
    return measured(*sites, parameters=weights, **given)


def dead(count: int = 8, **given) -> Measurements:
    units = Units(8, None, None, count, (), tuple(range(count)))
    gone = site("0/relu", kind="relu", saturated_fraction=None, units=units)
    return measured(gone, **{"total": None, **given})


def fed(rms: float, mean: float = 0.0, kind: str = "relu", **given) -> Measurements:
    first = site("0/relu", kind=kind, saturated_fraction=None, pre_activation_rms=0.6 * rms)
    return measured(
        first, parameters=(parameter("0.weight"),),
        inputs=(InputStats("x", 8, rms, mean, rms, 0.0),), **given,
    )  # fmt: skip


def steep(ratio: float) -> Measurements:
    """Saturated, and a gradient that grows by three decades."""
    m = chain(ratio, total=3.0, skill=POOR)
    full = (replace(s, saturated_fraction=0.75, pre_activation_rms=4.0) for s in m.sites)
    return replace(m, sites=tuple(full))


TORCH_NAMES = ("rnn.weight_ih_l0", "rnn.weight_hh_l0")
ONNX_NAMES = ("onnx::RNN_7", "onnx::RNN_8")


def recurrent(*small: str, names: tuple[str, ...] = TORCH_NAMES) -> Measurements:
    """An RNN whose gradient dies in time, with these weights a tenth of the usual size."""
    tiny = weight(init_ratio=0.1)
    own = (parameter(n, weight=tiny) if n in small else parameter(n) for n in names)
    cell = site("rnn.l0/relu", kind="relu", parameters=names, saturated_fraction=None)
    m = measured(
        cell, total=None, time=(time_ledger(total=-22.0),), parameters=tuple(own), skill=POOR
    )
    return replace(m, layers=(Layer("rnn", "RNN", names, (cell.id,), 128),))


ONE_ENTRY = (
    LedgerEntry("4/tanh", "4/tanh", "tanh", None, None, None, None, 0.0, 0.0),
    LedgerEntry("2/tanh", "2/tanh", "tanh", -0.1, -0.1, 0.0, 0.0, -0.1, -0.1),
    LedgerEntry("0/tanh", "0/tanh", "tanh", -4.9, -4.8, 0.0, -0.1, -5.0, -5.0),
)

H, W, U, Q = Verdict.HEALTHY, Verdict.WARNING, Verdict.UNHEALTHY, Verdict.UNDETERMINED
CASES = {
    "nothing found": (measured(site("0/tanh")), H, ()),
    "nothing found, untrained": (measured(site("0/tanh"), skill=POOR), H, ()),
    "weak": (stuck(-2.3, -2.0, 0, -0.3), W, (Cause.DEPTH_GAIN,)),
    "deep": (stuck(-5.8, -5.3, 0, -0.5, 20), U, (Cause.DEPTH_GAIN,)),
    "small": (stuck(-17, -17, 0, 0, 20), U, (Cause.SMALL_WEIGHTS,)),
    "derivative": (stuck(-5, 0.5, 0, -5.5), U, (Cause.DEPTH_DERIVATIVE,)),
    "slope": (stuck(-6, 0, -5.4, -0.6), U, (Cause.FLAT_SLOPE,)),
    "slope before derivative": (
        stuck(-6, 6, -5.4, -5.8), U, (Cause.FLAT_SLOPE, Cause.DEPTH_DERIVATIVE)
    ),
    "attenuated, no labels": (attenuated(-5.8, -5.3, 0, -0.5, 20), Q, (Cause.DEPTH_GAIN,)),
    "one layer's weights": (
        measured(site("0/tanh"), total=-5.0, entries=ONE_ENTRY, skill=skill(0.08)), H, ()
    ),
    "one layer's weights, at chance": (
        measured(site("0/tanh"), total=-5.0, entries=ONE_ENTRY, skill=POOR), W, ()
    ),
    "a branch that starts at 0, at chance": (branch(skill=POOR), H, ()),
    "one layer far too large, at chance": (
        one_large(skill=accurate(0.0)), W, (Cause.LARGE_PARAMETERS,)
    ),
    "one layer far too large, better than chance": (one_large(skill=accurate(0.2)), H, ()),
    "one layer far too large, no labels": (one_large(), H, ()),
    "a shut update gate, at chance": (held(skill=POOR), W, (Cause.FORWARD_COLLAPSE,)),
    "a shut update gate that works": (held(skill=skill(0.9)), H, ()),
    "a shut update gate, no labels": (held(), H, ()),
    "an update gate a little open": (held(0.1, skill=POOR), H, ()),
    "weights of 0": (zeros("2.weight", "4.weight", skill=POOR), U, (Cause.SMALL_WEIGHTS,)),
    "one matrix of 0, which grows": (zeros("0.weight", skill=POOR), W, (Cause.SMALL_WEIGHTS,)),
    "a head that starts at 0": (zeros("4.weight", skill=POOR), H, ()),
    "idle branches": (idle(0.02, skill=POOR), W, (Cause.SMALL_WEIGHTS,)),
    "small weights behind a norm": (idle(0.22, skill=POOR), H, ()),
    "large inputs by the skips": (carried(200.0, skill=POOR), W, (Cause.LARGE_INPUTS,)),
    "large inputs by the skips, learned": (carried(200.0, skill=skill(0.9)), H, ()),
    "skips after a norm": (carried(1.0, skill=POOR), H, ()),
    "a regression that large inputs throw": (
        carried(200.0, 0.99, skill=replace(skill(-33.0), loss_kind="mse", accuracy=None)),
        U, (Cause.LARGE_INPUTS,),
    ),
    "answers that large inputs throw": (
        carried(200.0, 0.99, skill=accurate(0.0)), W, (Cause.LARGE_INPUTS,)
    ),
    "exploding, large, not saturated": (
        explosive(0.6, skill=POOR), U, (Cause.EXPLODING, Cause.LARGE_PARAMETERS)
    ),
    "exploding, large, over skips": (
        explosive(0.6, bypass=True, skill=POOR),
        U, (Cause.LARGE_PARAMETERS, Cause.EXPLODING),
    ),
    "a likelihood that large inputs throw": (
        carried(200.0, 0.99, skill=replace(skill(-33.0), loss_kind="nll", accuracy=None)),
        W, (Cause.LARGE_INPUTS,),
    ),
    "dead behind weights of 0": (
        dead_behind(0.0, skill=POOR), U, (Cause.SMALL_WEIGHTS,)
    ),
    "dead behind others": (dead_behind(1.0, skill=POOR), U, (Cause.DEAD_UNITS,)),
    "large in half, 0 in the other": (
        sizes_of(0.0, 0.0, 0.0, 0.0, 9.0, skill=POOR), H, ()
    ),
    "exploding, large, saturated": (
        explosive(0.85, skill=POOR), U, (Cause.LARGE_PARAMETERS, Cause.EXPLODING)
    ),
    "skilled, whatever else": (replace(attenuated(-6, -6, 0, 0), skill=skill(0.9)), H, ()),
    "right answers, whatever the loss": (
        replace(attenuated(-6, -6, 0, 0), skill=accurate(0.9)), H, ()
    ),
    "wrong labels": (sized(20.0, skill=accurate(0.55, 0.3)), H, ()),
    "half of the answers with a bad loss": (
        sized(20.0, skill=accurate(0.55)), U, (Cause.LARGE_PARAMETERS,)
    ),
    "a little skill acquits nobody": (
        replace(attenuated(-6, -6, 0, 0, 20), skill=skill(0.15)), U, (Cause.DEPTH_GAIN,)
    ),
    "skill within its error": (
        replace(attenuated(-6, -6, 0, 0, 20), skill=skill(0.6, 0.2)), U, (Cause.DEPTH_GAIN,)
    ),
    "saturated with labels": (saturated(skill=skill(-0.1)), U, (Cause.LARGE_PARAMETERS,)),
    "saturated without labels": (saturated(), Q, (Cause.LARGE_PARAMETERS,)),
    "saturated by inputs": (
        saturated(ratio=1.0, skill=skill(-0.1), inputs=(LARGE_INPUT,)), W, (Cause.LARGE_INPUTS,)
    ),
    "saturated by inputs of thousands": (
        saturated(ratio=1.0, skill=skill(-0.1), inputs=(replace(LARGE_INPUT, rms=4000.0),)), U,
        (Cause.LARGE_INPUTS,),
    ),
    "saturated by inputs, and dies in time": (
        saturated(ratio=1.0, total=None, time=(time_ledger(total=-12.0),), skill=POOR,
                  inputs=(LARGE_INPUT,)), U,
        (Cause.LARGE_INPUTS, Cause.VANISHING_THROUGH_TIME),
    ),
    "large, has learned in part": (sized(6.0, skill=accurate(0.4, 0.3)), H, ()),
    "large and far behind": (
        sized(6.0, skill=accurate(0.4, 0.3), reference=plain(0.95)), U, (Cause.LARGE_PARAMETERS,)
    ),
    "large and level with a plain learner": (
        sized(6.0, skill=accurate(0.4, 0.3), reference=plain(0.45)), H, ()
    ),
    "large and behind within the errors": (
        sized(6.0, skill=accurate(0.4, 0.3), reference=plain(0.95, 0.3)), H, ()
    ),
    "in its first steps and far behind": (
        measured(site("0/tanh"), skill=accurate(0.3, 0.2), reference=plain(0.95)), H, ()
    ),
    "inputs that saturate, far behind": (
        saturated(ratio=1.0, skill=skill(0.3), inputs=(LARGE_INPUT,), reference=by_squares(0.95)),
        U, (Cause.LARGE_INPUTS,),
    ),
    "works, whatever a plain learner does": (
        sized(6.0, skill=skill(0.9), reference=by_squares(1.0)), H, ()
    ),
    "another head loses its gradient": (
        two_heads(-6.0, skill=POOR), U, (Cause.DEPTH_GAIN,)
    ),
    "another head loses it, the first one works": (
        two_heads(-6.0, skill=skill(0.9)), W, (Cause.DEPTH_GAIN,)
    ),
    "both heads pass": (two_heads(-0.5, skill=POOR), H, ()),
    "an infinite bias before a bounded unit": (infinite(), W, (Cause.NONFINITE,)),
    "an infinite bias, and it works": (infinite(skill=skill(0.9)), W, (Cause.NONFINITE,)),
    "an infinite bias and no loss": (
        infinite(skill=replace(skill(None), loss=None)), U, (Cause.NONFINITE,)
    ),
    "an infinite bias before a ReLU": (
        infinite(kind="relu", saturated_fraction=None), U, (Cause.NONFINITE,)
    ),
    "an infinite bias whose gradient is not finite": (
        infinite(gradient=State.NONFINITE), U, (Cause.NONFINITE,)
    ),
    "saturated and skilled": (saturated(skill=skill(0.9)), H, ()),
    "large and nothing saturates": (sized(20.0, skill=POOR), U, (Cause.LARGE_PARAMETERS,)),
    "large in the later half": (
        partly(1, 1, 1, 22, 20, skill=POOR), U, (Cause.LARGE_PARAMETERS,)
    ),
    "large in the later half, no labels": (partly(1, 1, 1, 22, 20), H, ()),
    "large in the later half and explodes": (
        partly(1, 1, 1, 22, 20, total=4.0, skill=POOR), U,
        (Cause.LARGE_PARAMETERS, Cause.EXPLODING),
    ),
    "large in one layer": (partly(1, 1, 1, 22, skill=POOR), H, ()),
    "a centred logistic start": (partly(1, 4, 4, 4, kind="sigmoid", skill=POOR), H, ()),
    "a logistic network far beyond it": (
        partly(17, 17, 17, 17, kind="sigmoid", skill=POOR), U, (Cause.LARGE_PARAMETERS,)
    ),
    "columns of a thousand and more": (
        saturated(ratio=1.0, skill=skill(0.3), inputs=(replace(LARGE_INPUT, rms=1000.0),)), W,
        (Cause.LARGE_INPUTS,),
    ),
    "large, no labels": (sized(20.0), Q, (Cause.LARGE_PARAMETERS,)),
    "large and works": (sized(20.0, skill=skill(0.9)), H, ()),
    "one large layer among others": (
        measured(
            site("0/tanh", saturated_fraction=0.98, pre_activation_rms=30.0, shrink=55.0),
            *(site(f"{i}/tanh") for i in (2, 4)),
            parameters=(parameter("0.weight", weight=weight(init_ratio=30.0)),
                        parameter("2.weight"), parameter("4.weight")),
            skill=POOR,
        ), W, (Cause.LARGE_PARAMETERS,),
    ),
    "large inputs before a ReLU": (fed(850.0, skill=POOR), U, (Cause.LARGE_INPUTS,)),
    "raw data before a ReLU": (fed(40.0, skill=POOR), W, (Cause.LARGE_INPUTS,)),
    "raw data, no labels": (fed(40.0), H, ()),
    "far from 0": (fed(1000.0, 999.9995, skill=POOR), U, (Cause.LARGE_INPUTS,)),
    "large inputs, works": (fed(850.0, skill=skill(0.9)), H, ()),
    "plateaued: even, but for a few directions": (
        chain(0.58, skill=skill(0.35)), U, (Cause.DEPTH_GAIN,)
    ),
    "the same and works": (chain(0.58, skill=skill(0.8)), H, ()),
    "the same, no labels": (chain(0.58), H, ()),
    "lost to padding and pooling alone": (
        chain(1.0, total=-3.4, weight=-3.4, skill=POOR), W, (Cause.DEPTH_GAIN,)
    ),
    "a moderate gain, many times": (steep(3.0), U, (Cause.EXPLODING, Cause.LARGE_PARAMETERS)),
    "large weights that explode": (steep(20.0), U, (Cause.LARGE_PARAMETERS, Cause.EXPLODING)),
    "small from step to step": (
        recurrent("rnn.weight_hh_l0"), U, (Cause.VANISHING_THROUGH_TIME,)
    ),
    "small from step to step, in ONNX": (
        recurrent(ONNX_NAMES[1], names=ONNX_NAMES), U, (Cause.VANISHING_THROUGH_TIME,)
    ),
    "small everywhere": (
        recurrent("rnn.weight_ih_l0", "rnn.weight_hh_l0"), U,
        (Cause.SMALL_WEIGHTS, Cause.VANISHING_THROUGH_TIME),
    ),
    "exploding": (measured(site("0/tanh"), total=8.0, skill=POOR), U, (Cause.EXPLODING,)),
    "exploding in time": (in_time(0.0, 9.0, skill=POOR), U, (Cause.EXPLODING,)),
    "vanishing in time": (in_time(-12.0, skill=POOR), U, (Cause.VANISHING_THROUGH_TIME,)),
    "nothing left at the first step": (
        in_time(None, skill=POOR), U, (Cause.VANISHING_THROUGH_TIME,)
    ),
    "default pace in time": (
        in_time(-8.0, skill=POOR), Verdict.WARNING, (Cause.VANISHING_THROUGH_TIME,)
    ),
    "vanishing in time and works": (in_time(-12.0, skill=skill(0.9)), H, ()),
    "dead": (dead(), U, (Cause.DEAD_UNITS,)),
    "mostly dead": (dead(7, skill=POOR), U, (Cause.DEAD_UNITS,)),
    "mostly dead, no labels": (dead(7), W, (Cause.DEAD_UNITS,)),
    "mostly dead and works": (dead(7, skill=skill(0.9)), H, ()),
    "mostly dead since the weights are small": (
        dead(7, total=-9.0, weight=-9.0, layers=5, skill=POOR), U,
        (Cause.SMALL_WEIGHTS, Cause.DEAD_UNITS),
    ),
    "collapsed": (collapsed(), U, (Cause.FORWARD_COLLAPSE,)),
    "shut gates": (
        measured(site("lstm.l0/input", role=Role.GATE, saturated_fraction=0.99)), H, ()
    ),
    "confident output": (
        measured(site("0/sigmoid", role=Role.OUTPUT, saturated_fraction=0.99)), H, ()
    ),
    "too short for a ledger": (short(), H, ()),
    "not finite": (EXAMPLES["broken"](), U, (Cause.NONFINITE,)),
    "weights only": (EXAMPLES["weights-only"](), Q, ()),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_verdict_and_causes(name):
    m, verdict, causes = CASES[name]
    found = diagnose(m, run_rules(m))
    assert found.verdict is verdict
    assert found.causes == causes
    assert found.provisional == (verdict is Verdict.UNDETERMINED)
    assert found.evidence
    assert found.otherwise or verdict is Verdict.UNDETERMINED
    assert found.summary.endswith(".")
    assert (found.settle is not None) == (verdict is Verdict.UNDETERMINED)


CERTAIN = ("not finite", "weights only", "an infinite bias before a ReLU",
           "an infinite bias whose gradient is not finite")  # fmt: skip
"""Whatever the input is."""


@pytest.mark.parametrize("name", [n for n in CASES if n not in CERTAIN])
def test_no_verdict_rests_on_a_made_up_input(name):
    made_up = SampleInfo(None, 64, None, True, False)
    m = replace(CASES[name][0], sample=made_up, skill=None)
    found = diagnose(m, run_rules(m))
    assert found.verdict is Verdict.UNDETERMINED
    assert found.settle == "--data SAMPLE"


def test_what_was_not_measured_leaves_the_verdict_open():
    """Without gradients nothing is healthy for want of findings; what was seen counts."""
    whole = EXAMPLES["healthy"]()
    m = replace(whole, heads=(), skill=None, sample_skill=None, trial=None)
    found = diagnose(m, run_rules(m))
    assert found.verdict is Verdict.UNDETERMINED
    assert "gradients were not measured" in found.summary
    assert diagnose(replace(m, skill=whole.skill), ()).verdict is Verdict.HEALTHY


def test_findings_of_one_rule_are_one_line_of_evidence():
    m = EXAMPLES["saturated"]()
    findings = run_rules(m)
    assert sum(f.code == "GS201" for f in findings) == 3
    found = diagnose(m, findings)
    (evidence,) = [e for e in found.evidence if "GS201" in e.statement]
    assert evidence.statement.startswith("GS201 saturated-activation, 0/tanh and 2 more: ")
    assert len(set(found.otherwise)) == len(found.otherwise)


def test_nothing_of_a_gap_has_no_sign():
    m = saturated(skill=accurate(-0.001))
    (told,) = [t for t in diagnose(m, run_rules(m)).otherwise if "accuracy closed" in t]
    assert told.endswith("(0%)")

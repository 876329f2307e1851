"""Inspections made by hand, one for each thing that a report must be able to show."""

from __future__ import annotations

from dataclasses import replace

from gradscope.diagnosis import Inspection, diagnose
from gradscope.findings import Skipped
from gradscope.measurements import (
    GradientStats,
    Head,
    Ledger,
    LedgerEntry,
    LocalEntry,
    Measurements,
    ModelInfo,
    Role,
    SampleInfo,
    Skill,
    State,
    TimeLedger,
    TimeStep,
    Units,
    WeightStats,
)
from gradscope.rules import run_rules
from gradscope.rules.examples import measured, parameter, site


def inspection(m: Measurements) -> Inspection:
    """With the rules run and the verdict given."""
    findings = run_rules(m)
    return Inspection(m, findings, diagnose(m, findings))


def _ledger(labels: list[str], gain: float, **given: object) -> Ledger:
    """A chain that loses the same at each layer."""
    n = len(labels)
    first = LedgerEntry(labels[-1], labels[-1], "tanh", None, None, None, None, 0.0, 0.0)
    entries = [first]
    for i, label in enumerate(reversed(labels[:-1]), 1):
        parts = (gain * 0.9, 0.0, gain * 0.1)
        entries.append(LedgerEntry(label, label, "tanh", gain, *parts, gain * i, gain * i))
    total = gain * (n - 1)
    values = {"activation": 0.1 * total, "slope": 0.0, "weight": 0.9 * total}
    return Ledger(total, 0.02, total + 0.01, samples=400, zero_denominators=0, cuts=2 * n + 1,
                  entries=tuple(entries), **{**values, **given})  # fmt: skip


def chain(n: int, gain: float, name: str = "layers.{}", **given: object) -> Measurements:
    labels = [f"{name.format(i)}/tanh" for i in range(n)]
    ledger = _ledger(labels, gain)
    head = Head("output", (100, 10), 0, None, ledger.total, ledger)
    sites = [site(label, output_gain=gain * (n - i)) for i, label in enumerate(labels)]
    weights = tuple(parameter(f"{name.format(i)}.weight") for i in range(n))
    return replace(measured(*sites, parameters=weights), heads=(head,), **given)


_SKILL = Skill(0.94, 0.01, 0.14, "cross-entropy", "integer labels", 0.97, True, 450)


def _saturated() -> Measurements:
    large = WeightStats(State.VALUE, 5.8, 10.0, 73.0, 1e-6, 46.4, 0.0, 0.0)
    units = Units(32, (0.99,) * 32, 30, None, tuple(range(30)))
    sites = [
        site(f"{i}/tanh", saturated_fraction=0.96, pre_activation_rms=30.0, units=units)
        for i in (0, 2, 4)
    ]
    weights = tuple(parameter(f"{i}.weight", weight=large) for i in (0, 2, 4))
    poor = replace(_SKILL, value=-0.4, accuracy=0.12)
    return measured(*sites, parameters=weights, total=1.7, skill=poor)


def _recurrent() -> Measurements:
    steps = tuple(TimeStep(i, 0.3, -0.1 * (7 - i)) for i in range(8))
    names = ("input", "forget", "cell", "output", "state")
    sites = [
        site(f"lstm.l0/{g}", gate=g, role=Role.GATE, saturated_fraction=0.1 * i + 0.2, calls=8,
             time=steps, kind="sigmoid" if g not in ("cell", "state") else "tanh")
        for i, g in enumerate(names)
    ]  # fmt: skip
    time = TimeLedger("lstm.l0/state", 8, -0.1, -0.7, (0, 7))
    empty = Ledger(None, None, None, None, None, None, 0, 0, 6, (), (time,))
    head = Head("output", (64, 10), 0, "softmax", None, empty)
    reason = "hidden activations: 0, and a ratio needs two"
    return measured(
        *sites, parameters=(parameter("lstm.weight_ih_l0"),), heads=(head,), skill=_SKILL,
        skipped=(Skipped("total of output", reason),),
    )  # fmt: skip


def _residual() -> Measurements:
    local = (LocalEntry("blocks.0.0/tanh", -1.2, -0.3, 0.0),)
    entries = (
        LedgerEntry("blocks.1.0/tanh", "blocks.1.0/tanh", "tanh", None, None, None, None, 0.0, 0.0,
                    local, True),
        LedgerEntry("blocks.0.0/tanh", "blocks.0.0/tanh", "tanh", 0.1, 0.1, 0.0, 0.0, 0.1, 0.1,
                    local, True),
    )  # fmt: skip
    return measured(site("blocks.0.0/tanh"), site("blocks.1.0/tanh"), total=0.1, entries=entries)


def _weights_only() -> Measurements:
    model = ModelInfo("state.pt", "state_dict", 64, 64, None, ("prefix 'module.' stripped",))
    missing = Skipped("activations, gradients, ledger", "no architecture; --arch FILE.py:factory")
    bare = parameter("a.weight", gradient=None, grad_to_weight_ratio=None)
    sample = SampleInfo(None, 0, None, False, False)
    return measured(parameters=(bare,), heads=(), model=model, sample=sample, skipped=(missing,))


def _broken() -> Measurements:
    weight = WeightStats(State.NONFINITE, 0.3, 1.0, None, None, None, 0.0, 0.02)
    gone = GradientStats(State.NONFINITE, 64, 0.0, 0.0, 0.0, nonfinite_fraction=1.0)
    return measured(
        site("0/tanh", gradient_state=State.NONFINITE, output_gain=None, nonfinite_fraction=1.0),
        parameters=(parameter("0.weight", weight=weight, gradient=gone),),
        total=None,
    )


def _odd_names() -> Measurements:
    name = "[red]layer[/red]\x1b[31m.{}\n"
    odd = chain(3, -0.4, name)
    model = ModelInfo("a b/[bold]$(touch x)\x1b]0;t\x07.pt", "PyTorch module", 64, 64)
    return replace(odd, model=model)


EXAMPLES = {
    "healthy": lambda: chain(20, -0.02, skill=_SKILL),
    "vanishing": lambda: chain(20, -0.28),
    "deep": lambda: chain(300, -0.03),
    "saturated": _saturated,
    "recurrent": _recurrent,
    "residual": _residual,
    "weights-only": _weights_only,
    "synthetic": lambda: replace(
        chain(3, -0.1), sample=SampleInfo(None, 64, None, True, False, {"input": (8,)})
    ),
    "broken": _broken,
    "odd-names": _odd_names,
}

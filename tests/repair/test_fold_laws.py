"""Scales folded in any network, and the equations that say where: as laws."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gradscope.repair.base import Result
from gradscope.repair.exponents import Equations
from gradscope.repair.fold import acted_on, drift_of, fold
from tests.repair.test_fold import WIDTH, Net, case_of, changed_by


class Drawn(Net):
    """A net of drawn operations, each on one or two of the tensors before it."""

    def __init__(self, plan: list[tuple[str, int, int]]):
        super().__init__()
        self.plan = plan
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in plan)
        self.shared = nn.Linear(WIDTH, WIDTH)
        self.norms = nn.ModuleList(nn.BatchNorm1d(WIDTH) for _ in plan)

    def run(self, x):
        made = [self.a(x)]
        for (op, i, j), layer, norm in zip(self.plan, self.layers, self.norms, strict=True):
            one, other = made[i % len(made)], made[j % len(made)]
            made.append(self.step(op, layer, norm, one, other))
        return self.out(made[-1] + made[-2])

    def step(self, op, layer, norm, one, other):
        match op:
            case "unit":
                return self.phi(layer(one))
            case "linear":
                return layer(one)
            case "shared":
                return self.phi(self.shared(one))
            case "relu":
                return F.relu(one)
            case "sum":
                return one + other
            case "product":
                return torch.sigmoid(layer(one)) * other
            case "norm":
                return norm(one)
            case "mean":
                return one.mean(0, True) + one
            case "bare":
                return self.phi(one + other)
        return F.layer_norm(one, [WIDTH])


OPS = ("unit", "unit", "linear", "shared", "relu", "sum", "product", "norm", "mean", "bare",
       "layer norm")  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(
    plan=st.lists(
        st.tuples(st.sampled_from(OPS), st.integers(0, 9), st.integers(0, 9)),
        min_size=2, max_size=8,
    ),
    alpha=st.sampled_from([2.0, 0.25, 7.0]),
)  # fmt: skip
def test_whatever_is_folded_is_exact(plan, alpha):
    """As the wide activation does it, run in phi's place; and back again by 1 / alpha."""
    torch.manual_seed(0)
    module = Drawn(plan).double().eval()
    x = torch.randn(16, WIDTH, dtype=torch.float64)
    case = case_of(module, x)
    if not acted_on(case):
        return
    found = fold(case, alpha)
    assert drift_of(case, found) < 1e-12
    assert {p.where for p in found.places if p.state == "folded"} == found.wanted.keys()
    there = changed_by(module, Result(found.changed))
    back = changed_by(there, Result(fold(case_of(there, x), 1 / alpha).changed))
    for name, value in module.state_dict().items():
        assert torch.allclose(back.state_dict()[name], value, rtol=1e-9, atol=1e-9)


@given(
    rows=st.lists(st.dictionaries(st.sampled_from("pqrsuvw"), st.integers(-2, 2)), max_size=6),
)
def test_a_solution_solves(rows):
    equations = Equations(switches=["u", "v", "w"])
    for row in rows:
        equations.add({n: Fraction(v) for n, v in row.items() if v}, "row")
    found = equations.solve()
    value = {n: Fraction(n in found.switched) for n in "uvw"} | dict(found.powers)
    for row in rows:
        assert sum(v * value.get(n, 0) for n, v in row.items()) == 0
    assert found.switched | found.why.keys() == {"u", "v", "w"}
    shared = Counter()
    for share in found.shares.values():
        shared.update(share)
    assert {n: v for n, v in shared.items() if v} == found.powers


def test_as_many_are_switched_on_as_can_be():
    equations = Equations(switches=["u", "v", "w"])
    equations.add({"u": Fraction(1), "v": Fraction(-1)})
    equations.add({"w": Fraction(1), "p": Fraction(1)})
    equations.add({"p": Fraction(1)}, "p is to stay")
    found = equations.solve()
    assert found.switched == {"u", "v"}
    assert found.why == {"w": ("p is to stay",)}

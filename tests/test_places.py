"""Places as a user would name them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gradscope.measurements import Role
from gradscope.places import indexed, listed, place, plural
from gradscope.rules import run_rules
from gradscope.rules.examples import measured, site
from tests.support import measured as probe


def gate(cell: str, name: str, layer: str):
    return site(f"{cell}/{name}", gate=name, role=Role.GATE, layer=layer)


ONE = gate("encoder.lstm.l0", "forget", "encoder.lstm")
TWO = gate("encoder.lstm.l1", "forget", "encoder.lstm")
STATE = gate("encoder.lstm.l0", "state", "encoder.lstm")


@pytest.mark.parametrize(
    ("sites", "which", "name"),
    [
        ((ONE,), ONE, "encoder.lstm forget gate"),
        ((ONE, STATE), STATE, "encoder.lstm state"),
        ((ONE, TWO), ONE, "encoder.lstm.l0 forget gate"),
        ((ONE, TWO), TWO, "encoder.lstm.l1 forget gate"),
        ((site("layers.3/tanh"),), site("layers.3/tanh"), "layers.3/tanh"),
    ],
)
def test_places(sites, which, name: str):
    assert place(measured(*sites), which) == name


def test_lists_are_cut():
    assert indexed("0/tanh", range(3), 3) == "0/tanh[0, 1, 2]"
    assert indexed("0/tanh", range(9), 9) == "0/tanh[0, 1, 2, 3, 4, 5, ...]"
    assert listed(["a", "b", "c", "d"]) == "a, b, c, ..."
    assert [plural(n, w) for n, w in ((1, "unit"), (1200, "unit"), (2, "weight matrix"))] == [
        "1 unit", "1,200 units", "2 weight matrices"
    ]  # fmt: skip


def test_an_outlying_row_and_a_single_weight_are_named_by_index():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 4))
    with torch.no_grad():
        model[0].weight[17] *= 40
        model[2].weight[3, 5] = 60.0
    found = [f.where for f in run_rules(probe(model, torch.randn(40, 20))) if f.code == "GS302"]
    assert found == ["0.weight[17,:]", "2.weight[3,5]"]

"""Places as a user would name them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import helper
from torch import nn

from gradscope import inspect
from gradscope.measurements import Role
from gradscope.places import indexed, listed, place, plural
from gradscope.rules import run_rules
from gradscope.rules.examples import measured, site
from tests.loading.onnx.graphs import model as graph
from tests.loading.onnx.graphs import saved
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


def test_a_unit_is_a_column_where_the_file_has_it_so(tmp_path: Path):
    """ONNX's MatMul takes (inputs, units): what is large and saturated is one column of it."""
    weight = np.random.default_rng(0).normal(size=(20, 30)).astype(np.float32) / 9
    weight[:, 17] *= 400
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Tanh", ["h"], ["y"])]
    nodes += [helper.make_node("MatMul", ["y", "v"], ["z"])]
    head = np.random.default_rng(1).normal(size=(30, 4)).astype(np.float32)
    proto = graph(nodes, {"x": ["n", 20]}, {"z": ["n", 4]}, {"w": weight, "v": head})
    samples = np.random.default_rng(2).normal(size=(40, 20)).astype(np.float32)
    report = inspect(saved(proto, tmp_path), samples)
    found = [(f.where, f.severity.value) for f in report.findings if f.code == "GS302"]
    assert found == [("w[:,17]", "warning")]

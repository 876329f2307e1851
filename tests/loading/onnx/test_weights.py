"""Which constants are weights: by what is done with them, not by where they stand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from onnx import NodeProto, helper

from gradscope.config import LoadSettings
from gradscope.loading import load_model
from tests.loading.onnx.graphs import constant, model, saved

NODE = helper.make_node
RNG = np.random.default_rng(0)


def table(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


BANK = table(6, 1, 5)
SPECTRUM = [
    NODE("Conv", ["x", "bank"], ["f"]),
    NODE("Mul", ["f", "f"], ["f2"]),
    NODE("ReduceSum", ["f2", "axis"], ["e"], keepdims=1),
    NODE("Sqrt", ["e"], ["m"]),
]
TRAINED = [NODE("Conv", ["m", "w", "b"], ["h"]), NODE("Relu", ["h"], ["y"])]
WEIGHTS = {"w": table(4, 1, 3), "b": table(4), "axis": np.array([1])}

CASES: dict[str, tuple[Sequence[NodeProto], dict[str, np.ndarray], set[str]]] = {
    "a bank whose outputs are squared": (
        [*SPECTRUM, *TRAINED], {**WEIGHTS, "bank": BANK}, {"w", "b"},
    ),
    "the same in a Constant node": (
        [constant("bank", BANK), *SPECTRUM, *TRAINED], WEIGHTS, {"w", "b"},
    ),
    "a bank with a bias of zeros": (
        [NODE("Conv", ["x", "bank", "zero"], ["f"]), *SPECTRUM[1:], *TRAINED],
        {**WEIGHTS, "bank": BANK, "zero": np.zeros(6, np.float32)}, {"w", "b"},
    ),
    "a convolution before an activation": (
        [NODE("Conv", ["x", "bank"], ["f"]), NODE("Relu", ["f"], ["y"])], {"bank": BANK}, {"bank"},
    ),
    "one use of the bank is not squared": (
        [*SPECTRUM, *TRAINED[:1], NODE("ReduceMax", ["f"], ["g"]), NODE("Add", ["h", "g"], ["y"])],
        {**WEIGHTS, "bank": BANK}, {"w", "b", "bank"},
    ),
    "mel bands on the magnitudes, before a logarithm": (
        [*SPECTRUM, NODE("MatMul", ["m", "mel"], ["l"]), NODE("Log", ["l"], ["g"]),
         NODE("Conv", ["g", "w", "b"], ["h"]), NODE("Relu", ["h"], ["y"])],
        {**WEIGHTS, "bank": BANK, "mel": np.abs(table(16, 7))}, {"w", "b"},
    ),
    "the mean and deviation of the input": (
        [NODE("Sub", ["x", "mean"], ["c"]), NODE("Div", ["c", "sd"], ["m"]), *TRAINED],
        {"mean": table(1, 1, 20), "sd": table(1, 1, 20), "w": table(4, 1, 3), "b": table(4)},
        {"w", "b"},
    ),
    "factors of a formula": (
        [NODE("Conv", ["x", "w"], ["c"]), NODE("Mul", ["c", "half"], ["y"])],
        {"w": table(4, 1, 3), "half": np.array([0.5], np.float32)}, {"w"},
    ),
    "all in Constant nodes, through a transposition": (
        [constant("w", table(7, 20)), constant("b", table(7)), NODE("Transpose", ["w"], ["t"]),
         NODE("MatMul", ["x", "t"], ["h"]), NODE("Add", ["h", "b"], ["y"])],
        {}, {"w", "b"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_weights(case: str, tmp_path: Path) -> None:
    nodes, constants, wanted = CASES[case]
    proto = model(nodes, {"x": [2, 1, 20]}, {"y": ["any"]}, constants)
    loaded = load_model(saved(proto, tmp_path), LoadSettings())
    assert loaded.module is not None
    assert {name for name, _ in loaded.module.named_parameters()} == wanted


def test_layer_and_fan_in(tmp_path: Path) -> None:
    """A weight without a telling name is of the layer of the bias beside it."""
    nodes = [NODE("MatMul", ["x", "w"], ["h"]), NODE("Add", ["h", "net.fc.bias"], ["y"])]
    constants = {"w": table(20, 7), "net.fc.bias": table(7)}
    proto = model(nodes, {"x": [2, 20]}, {"y": [2, 7]}, constants)
    origins = load_model(saved(proto, tmp_path), LoadSettings()).origins
    assert {o.layer for o in origins.values()} == {"net.fc"}
    assert origins["w"].fan_in == 20
    assert origins["net.fc.bias"].fan_in is None


@pytest.mark.parametrize(("inputs", "expected"), [(3, 5), (7, 7)])
def test_recurrent_weights_start_with_the_size_of_what_is_wider(
    inputs: int, expected: int, tmp_path: Path
) -> None:
    """Input and state are added up: W's usual size is that of torch's weight_ih."""
    node = NODE("LSTM", ["x", "w", "r"], ["y"], hidden_size=5)
    constants = {"w": table(1, 20, inputs), "r": table(1, 20, 5)}
    proto = model([node], {"x": [4, 2, inputs]}, {"y": [4, 1, 2, 5]}, constants)
    origins = load_model(saved(proto, tmp_path), LoadSettings()).origins
    assert (origins["w"].fan_in, origins["r"].fan_in) == (expected, 5)


def test_shared_weight_names_its_consumers(tmp_path: Path) -> None:
    nodes = [
        NODE("MatMul", ["x", "w"], ["h"]),
        NODE("Tanh", ["h"], ["a"]),
        NODE("MatMul", ["a", "w"], ["y"]),
    ]
    proto = model(nodes, {"x": [2, 5]}, {"y": [2, 5]}, {"w": table(5, 5)})
    loaded = load_model(saved(proto, tmp_path), LoadSettings())
    assert loaded.module is not None
    assert loaded.module.weights.places["w"].consumers == ("h", "y")
    assert any("used by several nodes: w" in note for note in loaded.notes)

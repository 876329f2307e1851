"""What an ONNX file is opened as, and what of it is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from gradscope.config import LoadSettings
from gradscope.errors import LoadError
from gradscope.loading import load_model
from gradscope.loading.detect import FileKind, detect
from tests.loading.onnx.graphs import constant, model, saved

W = np.arange(6, dtype=np.float32).reshape(2, 3) / 6
NODE = helper.make_node


def opened(path: str):  # type: ignore[no-untyped-def]
    return load_model(path, LoadSettings())


def test_weights_stand_in_initializers_and_constants(tmp_path: Path) -> None:
    nodes = [
        NODE("MatMul", ["x", "w"], ["h"]),
        constant("v", W.T.copy()),
        NODE("Tanh", ["h"], ["a"]),
        constant("half", np.float32(0.5).reshape(1)),
        NODE("Mul", ["a", "half"], ["b"]),
        NODE("MatMul", ["b", "v"], ["y"]),
    ]
    loaded = opened(saved(model(nodes, {"x": ["n", 2]}, {"y": ["n", 2]}, {"w": W}), tmp_path))
    assert [n for n, _ in loaded.module.named_parameters()] == ["w", "v"]
    assert loaded.origins["w"].fan_in == 2
    assert loaded.origins["v"].fan_in == 3
    x = torch.randn(4, 2)
    wanted = torch.tanh(x @ torch.from_numpy(W)) * 0.5 @ torch.from_numpy(W.T.copy())
    assert torch.equal(loaded.module(x)["y"], wanted)


@pytest.mark.parametrize(
    ("op", "domain", "reason"),
    [
        ("DynamicQuantizeLinear", "", "quantised"),
        ("QLinearAdd", "com.microsoft", "quantised"),
        ("Anything", "my.domain", "'my.domain' are not known"),
        ("RandomNormalLike", "", "random"),
    ],
)
def test_nodes_without_gradient_are_named(
    tmp_path: Path, op: str, domain: str, reason: str
) -> None:
    outputs = ["y", "s", "z"] if op == "DynamicQuantizeLinear" else ["y"]
    types = {"y": TensorProto.UINT8} if op == "DynamicQuantizeLinear" else {}
    proto = model(
        [NODE(op, ["x"], outputs, domain=domain)], {"x": [2]}, {"y": [2]}, types=types,
        domains=[domain] if domain else (),
    )  # fmt: skip
    with pytest.raises(LoadError, match=reason) as caught:
        opened(saved(proto, tmp_path))
    assert f"{op} at 'y'" in str(caught.value)


@pytest.mark.parametrize(
    "field", ["doc_string", "domain", "model_version", "producer_name", "none"]
)
def test_recognised_by_its_fields(tmp_path: Path, field: str) -> None:
    """Whatever stands before the graph, and in whatever order."""
    proto = model([NODE("Tanh", ["x"], ["y"])], {"x": [2, 2]}, {"y": [2, 2]})
    if field != "none":
        setattr(proto, field, 7 if field == "model_version" else "a word")
    path = saved(proto, tmp_path)
    assert opened(path).format.startswith("ONNX")
    whole = Path(path).read_bytes()
    graph = onnx.ModelProto()
    graph.graph.CopyFrom(proto.graph)
    rest = onnx.ModelProto()
    rest.CopyFrom(proto)
    rest.ClearField("graph")
    Path(path).write_bytes(graph.SerializeToString() + rest.SerializeToString())
    assert Path(path).read_bytes() != whole
    assert opened(path).format.startswith("ONNX")


def test_a_table_is_no_onnx_file(tmp_path: Path) -> None:
    path = tmp_path / "times.csv"
    path.write_text("2" + chr(53) + "," * 53 + ":30\n" * 5)
    assert detect(path) is not FileKind.ONNX

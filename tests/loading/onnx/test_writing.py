"""A repair written into the original file: valid, equal but for its numbers, run as lowered."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from gradscope.config import LoadSettings
from gradscope.errors import LoadError
from gradscope.loading import load_model
from gradscope.loading.onnx.writing import Changes, patched, write_patched
from tests.loading.onnx.graphs import constant, model, saved
from tests.loading.onnx.test_twins import MODELS

NODE = helper.make_node


def outputs(path: Path, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of onnxruntime."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    values = session.run(names, {session.get_inputs()[0].name: x.numpy()})
    return {n: torch.from_numpy(v) for n, v in zip(names, values, strict=True)}


def places_of(module):
    return module.weights.places


def exported(name: str, folder: Path, *, dynamo: bool) -> tuple[Path, torch.Tensor]:
    torch.manual_seed(3)
    module, x = MODELS[name]()
    path = folder / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(), (x[:2],), str(path), dynamo=dynamo, opset_version=18 if dynamo else 17,
            input_names=["x"], external_data=False,
            **({} if dynamo else {"dynamic_axes": {"x": {0: "n"}}}),
        )  # fmt: skip
    return path, x[:2]


@pytest.mark.parametrize("name", MODELS)
def test_patched_exports_equal_their_lowering(name: str, tmp_path: Path) -> None:
    path, x = exported(name, tmp_path, dynamo=False)
    module = load_model(str(path), LoadSettings()).module
    new = {n: 0.5 * p.detach() + 0.1 for n, p in module.named_parameters()}
    with torch.no_grad():
        for n, p in module.named_parameters():
            p.copy_(new[n])
        wanted = module(x)
    before = path.read_bytes()
    write_patched(path, tmp_path / "fixed.onnx", places_of(module), Changes(new))
    onnx.checker.check_model(str(tmp_path / "fixed.onnx"), full_check=True)
    for n, value in outputs(tmp_path / "fixed.onnx", x).items():
        assert torch.allclose(value, wanted[n], rtol=1e-3, atol=1e-5)
    assert path.read_bytes() == before


def test_a_dynamo_export(tmp_path: Path) -> None:
    path, x = exported("mlp", tmp_path, dynamo=True)
    module = load_model(str(path), LoadSettings()).module
    new = {n: 2 * p.detach() for n, p in module.named_parameters()}
    write_patched(path, tmp_path / "fixed.onnx", places_of(module), Changes(new))
    with torch.no_grad():
        for n, p in module.named_parameters():
            p.copy_(new[n])
        wanted = module(x)
    for n, value in outputs(tmp_path / "fixed.onnx", x).items():
        assert torch.allclose(value, wanted[n], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("gate", range(4))
def test_one_gate_of_an_lstm_scaled(gate: int, tmp_path: Path) -> None:
    """Rows of W and R and both halves of B: the gate's pre-activation is scaled."""
    path, x = exported("lstm", tmp_path, dynamo=False)
    module = load_model(str(path), LoadSettings()).module
    new = {}
    for n, p in module.named_parameters():
        value = p.detach().clone()
        if p.shape[0] in (28, 56):  # 4 gates of 7 units, biases twice
            for half in value.split(28):
                half[7 * gate : 7 * (gate + 1)] *= 0.25
            new[n] = value
    assert len(new) == 3
    with torch.no_grad():
        for n, value in new.items():
            dict(module.named_parameters())[n].copy_(value)
        wanted = module(x)
    write_patched(path, tmp_path / "fixed.onnx", places_of(module), Changes(new))
    for n, value in outputs(tmp_path / "fixed.onnx", x).items():
        assert torch.allclose(value, wanted[n], atol=1e-6)


W = np.arange(6, dtype=np.float32).reshape(2, 3) / 6


def test_constants_initializers_and_what_is_beside_them(tmp_path: Path) -> None:
    proto = model(
        [
            NODE("MatMul", ["x", "w"], ["h"], name="first"), constant("v", W.T.copy()),
            NODE("Constant", [], ["c"], value_floats=[1.0, 2.0, 3.0]),
            NODE("Add", ["h", "c"], ["k"]), NODE("Tanh", ["k"], ["a"]),
            NODE("MatMul", ["a", "v"], ["y"]),
        ],
        {"x": ["n", 2]}, {"y": ["n", 2]}, {"w": W},
    )  # fmt: skip
    proto.metadata_props.add(key="made", value="by hand")
    proto.doc_string = "kept"
    path = Path(saved(proto, tmp_path))
    places = places_of(load_model(str(path), LoadSettings()).module)
    new = {n: torch.full(s, 0.5) for n, s in (("w", (2, 3)), ("v", (3, 2)), ("c", (3,)))}
    found = patched(path, places, Changes(new))
    for tensor in (found.graph.initializer[0], found.graph.node[1].attribute[0].t):
        assert (numpy_helper.to_array(tensor) == 0.5).all()
    assert list(found.graph.node[2].attribute[0].floats) == [0.5] * 3
    assert (found.doc_string, found.metadata_props[0].value) == ("kept", "by hand")
    names = [n.name for n in found.graph.node]
    assert names == [n.name for n in proto.graph.node]


def test_a_weight_inside_a_branch(tmp_path: Path) -> None:
    branch = helper.make_graph(
        [constant("u", W), NODE("MatMul", ["x", "u"], ["t"])], "then", [],
        [helper.make_tensor_value_info("t", TensorProto.FLOAT, None)],
    )  # fmt: skip
    other = helper.make_graph(
        [constant("o", W), NODE("MatMul", ["x", "o"], ["e"])], "else", [],
        [helper.make_tensor_value_info("e", TensorProto.FLOAT, None)],
    )  # fmt: skip
    nodes = [
        NODE("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True))),
        NODE("If", ["yes"], ["y"], then_branch=branch, else_branch=other),
    ]
    path = Path(saved(model(nodes, {"x": ["n", 2]}, {"y": ["n", 3]}), tmp_path))
    module = load_model(str(path), LoadSettings()).module
    name = next(n for n in places_of(module) if n.endswith("u"))
    target = tmp_path / "fixed.onnx"
    write_patched(path, target, places_of(module), Changes({name: torch.ones(2, 3)}))
    x = torch.randn(4, 2)
    assert torch.allclose(outputs(target, x)["y"], x @ torch.ones(2, 3), atol=1e-6)


@pytest.mark.parametrize("behind", [1.0, 4.0])
@pytest.mark.parametrize("op", ["Tanh", "Sigmoid", "Softsign"])
def test_a_scale_around_an_activation(op: str, behind: float, tmp_path: Path) -> None:
    proto = model(
        [NODE("MatMul", ["x", "w"], ["h"]), NODE(op, ["h"], ["a"]), NODE("Neg", ["h"], ["y"])],
        {"x": ["n", 2]}, {"a": ["n", 3], "y": ["n", 3]}, {"w": W},
    )  # fmt: skip
    path = Path(saved(proto, tmp_path))
    write_patched(path, tmp_path / "fixed.onnx", {}, Changes(scales={"a": (0.25, behind)}))
    onnx.checker.check_model(str(tmp_path / "fixed.onnx"), full_check=True)
    x = torch.randn(5, 2)
    z = x @ torch.from_numpy(W)
    found = outputs(tmp_path / "fixed.onnx", x)
    phi = {"Tanh": torch.tanh, "Sigmoid": torch.sigmoid, "Softsign": nn.functional.softsign}[op]
    assert torch.allclose(found["a"], behind * phi(0.25 * z), atol=1e-6)
    assert torch.allclose(found["y"], -z, atol=1e-6)  # only the activation sees the scale


def test_external_weights_come_into_the_file(tmp_path: Path) -> None:
    big = np.ones((2, 300), np.float32)
    proto = model(
        [NODE("MatMul", ["x", "w"], ["h"]), NODE("Tanh", ["h"], ["y"])],
        {"x": ["n", 2]}, {"y": ["n", 300]}, {"w": big},
    )  # fmt: skip
    path = tmp_path / "model.onnx"
    onnx.save_model(proto, str(path), save_as_external_data=True, location="w.bin")
    places = places_of(load_model(str(path), LoadSettings()).module)
    (tmp_path / "out").mkdir()
    target = tmp_path / "out" / "fixed.onnx"
    write_patched(path, target, places, Changes({"w": torch.full((2, 300), 0.5)}))
    x = torch.randn(3, 2)
    wanted = torch.tanh(x @ torch.full((2, 300), 0.5))
    assert torch.allclose(outputs(target, x)["y"], wanted, atol=1e-6)


def test_a_node_that_is_not_there(tmp_path: Path) -> None:
    path = Path(saved(model([NODE("Tanh", ["x"], ["y"])], {"x": [2]}, {"y": [2]}), tmp_path))
    with pytest.raises(LoadError, match="no node 'z'"):
        patched(path, {}, Changes(scales={"z": (2.0, 1.0)}))

"""Small models for the tests, built node by node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

Arrays = Mapping[str, np.ndarray]
Shapes = Mapping[str, Sequence[int | str | None]]


def model(
    nodes: Sequence[NodeProto],
    inputs: Shapes,
    outputs: Shapes,
    weights: Arrays | None = None,
    *,
    opset: int = 18,
    types: Mapping[str, int] | None = None,
    domains: Sequence[str] = (),
) -> onnx.ModelProto:
    """A model of float inputs and outputs, unless ``types`` says otherwise."""
    types = types or {}

    def declared(shapes: Shapes) -> list[onnx.ValueInfoProto]:
        return [
            helper.make_tensor_value_info(name, types.get(name, TensorProto.FLOAT), shape)
            for name, shape in shapes.items()
        ]

    graph = helper.make_graph(
        list(nodes),
        "test",
        declared(inputs),
        declared(outputs),
        [numpy_helper.from_array(np.asarray(v), k) for k, v in (weights or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def saved(proto: onnx.ModelProto, folder: Path, name: str = "model.onnx") -> str:
    """Written to a file; its path."""
    path = folder / name
    path.write_bytes(proto.SerializeToString())
    return str(path)


def constant(name: str, value: np.ndarray) -> NodeProto:
    """A Constant node."""
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value))

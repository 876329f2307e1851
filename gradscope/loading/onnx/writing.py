"""Writes a repair into the original ModelProto: weights patched where they stand, scales inserted.

Nothing is exported again: names, metadata, opsets, functions and the order of nodes are those of
the original. Constants inside a local function cannot be set: all its calls share them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from gradscope.errors import LoadError
from gradscope.loading.onnx.external import load_external
from gradscope.loading.onnx.tensors import to_torch
from gradscope.loading.onnx.weights import Place

_MAX_BYTES = 2**31 - 1


@dataclass(frozen=True)
class Changes:
    """What is to be different in the file.

    Attributes:
        tensors: new values of parameters, by the names that the lowering gives them.
        scales: path and name of a node's first output -> factors (before, behind) of its first
            input and its first output: phi(z) becomes behind * phi(before * z).
        tanh: path and name of the first output of nodes whose operator becomes Tanh.
    """

    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)
    scales: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    tanh: tuple[str, ...] = ()


def patched(original: Path, places: Mapping[str, Place], changes: Changes) -> ModelProto:
    """The original model with some of its numbers changed.

    Args:
        original: the file.
        places: where each parameter stands, from the lowering.
        changes: what to change.

    Raises:
        LoadError: a parameter or node cannot be found in the file, or the result is no valid model.
    """
    model = ModelProto()
    try:
        model.ParseFromString(original.read_bytes())
    except DecodeError as error:
        raise LoadError(f"is a broken ONNX file ({error})", where=str(original)) from error
    load_external(model, original)
    editor = _Editor(model, str(original))
    for name, value in changes.tensors.items():
        editor.patch(name, places[name], value)
    for where in changes.tanh:
        editor.make_tanh(where)
    for where, (before, behind) in changes.scales.items():
        editor.scale(where, before, behind)
    _check(model, str(original))
    return model


def write_patched(
    original: Path, target: Path, places: Mapping[str, Place], changes: Changes
) -> None:
    """As :func:`patched`, into a file; tensors that lay in files of their own come into it.

    Raises:
        LoadError: see :func:`patched`; or it would be larger than one file can be.
    """
    model = patched(original, places, changes)
    if model.ByteSize() > _MAX_BYTES:
        what = "with its weights inside is larger than 2 GiB, the most that one ONNX file holds"
        raise LoadError(what, where=str(original))
    target.write_bytes(model.SerializeToString(deterministic=True))


def _check(model: ModelProto, where: str) -> None:
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        first = str(error).strip().split("\n")[0]
        raise LoadError(
            f"would be no valid model after the repair: {first}", where=where
        ) from error


class _Editor:
    """One model under change, its graphs and constants by path and name."""

    def __init__(self, model: ModelProto, where: str) -> None:
        self._where = where
        self._graphs = dict(_walk(model.graph, ""))

    def patch(self, name: str, place: Place, value: torch.Tensor) -> None:
        """New numbers for a parameter; the other parts of the same tensor stay."""
        graph = self._graphs.get(place.path)
        found = _constant(graph, place.name) if graph is not None else None
        if found is None:
            what = (
                f"'{name}' stands in a function of the file, or is made on the way: cannot be set"
            )
            raise LoadError(what, where=self._where)
        tensor, attribute = found
        old = to_torch(tensor, self._where) if tensor is not None else _of(attribute)
        new = old.clone()
        with torch.no_grad():
            (new if place.index is None else new[place.index]).copy_(value.detach().cpu())
        if tensor is not None:
            _fill(tensor, new)
        else:
            _set(attribute, new)

    def scale(self, where: str, before: float, behind: float) -> None:
        """A Mul before the first input of a node, and one behind its first output, which has the
        name of the output then; a factor of 1 needs none."""
        graph, i = self._node(where)
        node = graph.node[i]
        if behind != 1:
            self._multiply_output(graph, i, node, behind)
        if before != 1:
            self._multiply_input(graph, i, node, before)

    def make_tanh(self, where: str) -> None:
        """Another operator for a node; its names stay."""
        graph, i = self._node(where)
        graph.node[i].op_type = "Tanh"

    def _node(self, where: str) -> tuple[GraphProto, int]:
        for path, graph in self._graphs.items():
            for i, node in enumerate(graph.node):
                if node.output and path + node.output[0] == where:
                    return graph, i
        raise LoadError(f"there is no node '{where}' in the file", where=self._where)

    def _multiply_input(
        self, graph: GraphProto, index: int, node: NodeProto, factor: float
    ) -> None:
        number, scaled = self._names_for(node.output[0], "scale", "scaled")
        self._add_number(graph, node.input[0], number, factor)
        product = onnx.helper.make_node("Mul", [node.input[0], number], [scaled], name=scaled)
        node.input[0] = scaled
        graph.node.insert(index, product)

    def _multiply_output(
        self, graph: GraphProto, index: int, node: NodeProto, factor: float
    ) -> None:
        name = node.output[0]
        number, bare = self._names_for(name, "gain", "unscaled")
        self._add_number(graph, node.input[0], number, factor)
        node.output[0] = bare
        product = onnx.helper.make_node("Mul", [bare, number], [name], name=f"{bare}_times")
        graph.node.insert(index + 1, product)

    def _names_for(self, name: str, *ends: str) -> list[str]:
        taken = {n for g in self._graphs.values() for n in _names(g)}
        return [_fresh(f"{name}_{end}", taken) for end in ends]

    def _add_number(self, graph: GraphProto, like: str, name: str, value: float) -> None:
        kind = _kind(graph, like)
        number = torch.tensor(value, dtype=torch.float64).numpy()
        array = number.astype(onnx.helper.tensor_dtype_to_np_dtype(kind))
        graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))


def _walk(graph: GraphProto, path: str) -> Iterator[tuple[str, GraphProto]]:
    """Every graph by its path, as the reader names them."""
    yield path, graph
    for node in graph.node:
        label = path + (node.output[0] if node.output else node.name)
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from _walk(attribute.g, f"{label}/{attribute.name}/")
            for i, inner in enumerate(attribute.graphs):
                yield from _walk(inner, f"{label}/{attribute.name}[{i}]/")


def _constant(graph: GraphProto, name: str) -> tuple[TensorProto | None, AttributeProto] | None:
    """The initializer, or the attribute of the Constant node, that holds a tensor."""
    for tensor in graph.initializer:
        if tensor.name == name:
            return tensor, AttributeProto()
    for node in graph.node:
        if node.op_type == "Constant" and node.output and node.output[0] == name:
            for attribute in node.attribute:
                if attribute.name == "value":
                    return attribute.t, attribute
                if attribute.name in ("value_float", "value_floats"):
                    return None, attribute
    return None


def _of(attribute: AttributeProto) -> torch.Tensor:
    if attribute.name == "value_float":
        return torch.tensor(attribute.f)
    return torch.tensor(list(attribute.floats))


def _set(attribute: AttributeProto, value: torch.Tensor) -> None:
    if attribute.name == "value_float":
        attribute.f = float(value)
    else:
        attribute.floats[:] = value.tolist()


def _fill(tensor: TensorProto, value: torch.Tensor) -> None:
    """Numbers as raw bytes, whatever form they had."""
    for form in ("float_data", "double_data", "int32_data", "int64_data", "raw_data"):
        tensor.ClearField(form)
    contiguous = value.contiguous()
    tensor.raw_data = contiguous.view(torch.uint8).numpy().tobytes() if value.dim() else _one(value)


def _one(value: torch.Tensor) -> bytes:
    return value.reshape(1).view(torch.uint8).numpy().tobytes()


def _names(graph: GraphProto) -> Iterator[str]:
    yield from (t.name for t in graph.initializer)
    yield from (i.name for i in graph.input)
    for node in graph.node:
        yield from node.output
        yield node.name


def _fresh(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _kind(graph: GraphProto, name: str) -> int:
    """Element type of a tensor where the file says; float otherwise."""
    for info in (*graph.input, *graph.value_info, *graph.output):
        if info.name == name:
            return int(info.type.tensor_type.elem_type)
    kinds = {int(t.data_type) for t in graph.initializer if t.data_type in _FLOATS}
    return kinds.pop() if len(kinds) == 1 else int(TensorProto.FLOAT)


_FLOATS = frozenset(
    {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}
)

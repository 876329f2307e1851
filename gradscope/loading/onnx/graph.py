"""The graph as plain data: nodes keyed on their output tensors, constants, subgraphs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx
import torch
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto

from gradscope.errors import LoadError
from gradscope.loading.onnx.tensors import to_torch

_AI_ONNX = {"", "ai.onnx"}
_MAX_DEPTH = 40


@dataclass(frozen=True)
class ValueInfo:
    """A declared input or output.

    Attributes:
        name: of the tensor.
        dtype: ONNX's number of its type; 0 where it is no tensor.
        shape: None for a free size; None as a whole where nothing is declared.
        symbols: names of the free sizes, "" for a fixed or nameless one.
    """

    name: str
    dtype: int
    shape: tuple[int | None, ...] | None
    symbols: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Node:
    """One node.

    Attributes:
        op: operator, ``Conv``.
        domain: "" for ONNX's own.
        version: of the operator set that the model imports for this domain.
        inputs, outputs: tensor names; "" where one is left out.
        attributes: numbers, strings, lists, tensors and graphs.
        path: of the graph it stands in, "" for the outermost.
        name: as the file has it; may be empty or shared.
    """

    op: str
    domain: str
    version: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    path: str
    name: str = ""

    @property
    def where(self) -> str:
        """Path and first output tensor: unique, unlike names of nodes."""
        return self.path + next((o for o in self.outputs if o), self.name)

    def __str__(self) -> str:
        return f"node '{self.where}' ({self.op})"


@dataclass(frozen=True, eq=False)
class Constant:
    """A tensor that the file holds.

    Attributes:
        name: within its graph.
        path: of that graph.
        tensor: its value.
        node: whether it stands in a Constant node, not among the initializers.
    """

    name: str
    path: str
    tensor: torch.Tensor
    node: bool


@dataclass(frozen=True, eq=False)
class Graph:
    """One graph or subgraph; ``nodes`` in an order in which they can run."""

    path: str
    inputs: tuple[ValueInfo, ...]
    outputs: tuple[ValueInfo, ...]
    constants: Mapping[str, Constant]
    nodes: tuple[Node, ...]
    opsets: Mapping[str, int] = field(default_factory=dict)

    def walk(self) -> Iterator[Graph]:
        """This graph and every one below it."""
        yield self
        for node in self.nodes:
            for inner in graphs_of(node):
                yield from inner.walk()


def graphs_of(node: Node) -> Iterator[Graph]:
    """Graphs among a node's attributes."""
    for value in node.attributes.values():
        if isinstance(value, Graph):
            yield value
        elif isinstance(value, tuple) and value and isinstance(value[0], Graph):
            yield from value


def captured(node: Node) -> set[str]:
    """Every name that the subgraphs of a node read."""
    names: set[str] = set()
    for graph in graphs_of(node):
        for inner in graph.walk():
            names.update(n for m in inner.nodes for n in m.inputs)
            names.update(o.name for o in inner.outputs)
    return names


def read_graph(model: ModelProto, where: str) -> Graph:
    """The outermost graph of a checked model.

    Raises:
        LoadError: names the node or tensor that cannot be read.
    """
    opsets = {_domain(o.domain): int(o.version) for o in model.opset_import}
    return _Reader(opsets, where).graph(model.graph, "", set())


def _domain(name: str) -> str:
    return "" if name in _AI_ONNX else name


@dataclass(frozen=True)
class _Reader:
    opsets: Mapping[str, int]
    where: str

    def graph(self, proto: GraphProto, path: str, outer: set[str]) -> Graph:
        if path.count("/") > _MAX_DEPTH * 2:
            raise LoadError("nests its subgraphs too deeply", where=self.where)
        if proto.sparse_initializer:
            name = proto.sparse_initializer[0].values.name
            raise LoadError(f"tensor '{name}' is sparse", where=self.where,
                            hint="Export the model with dense weights.")  # fmt: skip
        constants = {
            t.name: Constant(t.name, path, to_torch(t, self.where), False)
            for t in proto.initializer
        }
        inputs = tuple(value_info(i) for i in proto.input if i.name not in constants)
        known = outer | set(constants) | {i.name for i in inputs}
        nodes: list[Node] = []
        for node in proto.node:
            read = self.node(node, path, known)
            if read.op == "Constant" and not read.domain:
                name = read.outputs[0]
                constants[name] = Constant(name, path, _constant(read, self.where), True)
            else:
                nodes.append(read)
            known.update(o for o in read.outputs if o)
        outputs = tuple(value_info(o) for o in proto.output)
        for output in outputs:
            if output.name not in known:
                raise LoadError(f"output '{output.name}' is made by no node", where=self.where)
        return Graph(path, inputs, outputs, constants, tuple(nodes), self.opsets)

    def node(self, proto: NodeProto, path: str, known: set[str]) -> Node:
        domain = _domain(proto.domain)
        if domain not in self.opsets:
            what = f"node '{path}{proto.output[0] if proto.output else proto.name}' "
            raise LoadError(f"{what}is of an undeclared domain '{domain}'", where=self.where)
        label = path + (proto.output[0] if proto.output else proto.name)
        for name in proto.input:
            if name and name not in known:
                what = (
                    f"node '{label}' ({proto.op_type}) takes '{name}', which comes later or never"
                )
                raise LoadError(what, where=self.where, hint="Export it again.")
        attributes = {a.name: self.attribute(a, label, known) for a in proto.attribute}
        return Node(
            proto.op_type, domain, self.opsets[domain], tuple(proto.input), tuple(proto.output),
            attributes, path, proto.name,
        )  # fmt: skip

    def attribute(self, proto: AttributeProto, label: str, known: set[str]) -> Any:
        if proto.type == AttributeProto.GRAPH:
            return self.graph(proto.g, f"{label}/{proto.name}/", known)
        if proto.type == AttributeProto.GRAPHS:
            return tuple(
                self.graph(g, f"{label}/{proto.name}[{i}]/", known)
                for i, g in enumerate(proto.graphs)
            )
        if proto.type == AttributeProto.TENSOR:
            return to_torch(proto.t, self.where)
        if proto.type == AttributeProto.STRING:
            return proto.s.decode("utf-8", "replace")
        if proto.type == AttributeProto.STRINGS:
            return tuple(s.decode("utf-8", "replace") for s in proto.strings)
        if proto.type in (AttributeProto.INTS, AttributeProto.FLOATS, AttributeProto.INT,
                          AttributeProto.FLOAT):  # fmt: skip
            value = onnx.helper.get_attribute_value(proto)
            return tuple(value) if isinstance(value, list) else value
        return None  # a form that no operator here reads


def value_info(proto: onnx.ValueInfoProto) -> ValueInfo:
    """What a graph declares of an input or output."""
    if not proto.type.HasField("tensor_type"):
        return ValueInfo(proto.name, 0, None)
    tensor = proto.type.tensor_type
    if not tensor.HasField("shape"):
        return ValueInfo(proto.name, tensor.elem_type, None)
    shape = tuple(
        int(d.dim_value) if d.HasField("dim_value") and d.dim_value > 0 else None
        for d in tensor.shape.dim
    )
    symbols = tuple(str(d.dim_param) for d in tensor.shape.dim)
    return ValueInfo(proto.name, tensor.elem_type, shape, symbols)


def _constant(node: Node, where: str) -> torch.Tensor:
    for name, dtype in (
        ("value_float", torch.float32), ("value_floats", torch.float32),
        ("value_int", torch.int64), ("value_ints", torch.int64),
    ):  # fmt: skip
        if node.attributes.get(name) is not None:
            return torch.tensor(node.attributes[name], dtype=dtype)
    value = node.attributes.get("value")
    if isinstance(value, torch.Tensor):
        return value
    raise LoadError(f"{node} holds no dense numbers", where=where, hint="Text has no gradient.")

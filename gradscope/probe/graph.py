"""The backward graph of one forward pass, as plain lists.

autograd keeps, for every tensor, the operation that made it (``grad_fn``) and what that one depends
on (``next_functions``). Nothing on the model is hooked to read it, and eager code, scripts and
exported programs leave the same graph.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any, NamedTuple

import torch

Node = Any  # torch.autograd.graph.Node; its C++ subclasses carry more attributes than the base

_DIGITS = re.compile(r"\d+$")
_EMBEDDINGS = {"EmbeddingBackward", "EmbeddingBagBackward"}
SHAPE_OPS = frozenset(
    f"{op}Backward"
    for op in (
        "View", "UnsafeView", "ReshapeAlias", "Reshape", "Unsqueeze", "Squeeze", "Expand",
        "Permute", "Transpose", "T", "Slice", "Select", "Split", "UnsafeSplit", "SplitWithSizes",
        "UnsafeSplitWithSizes", "Unbind", "Clone", "Alias", "ToCopy", "Repeat", "AsStrided", "Flip",
        "Contiguous", "Roll", "Movedim",
    )
)  # fmt: skip


def op_name(node: Node) -> str:
    """``AddmmBackward0`` -> ``AddmmBackward``; custom functions keep their class name."""
    return _without_digits(str(node.name()))


@cache
def _without_digits(name: str) -> str:
    return _DIGITS.sub("", name)


def output_shape(node: Node, number: int = 0) -> tuple[int, ...]:
    """Shape of the ``number``-th tensor that the operation made; -1 for a ragged axis."""
    return tuple(_size(s) for s in node._input_metadata[number].shape)


def _size(size: Any) -> int:
    ragged = isinstance(size, torch.SymInt) and size.node.is_nested_int()
    return -1 if ragged else int(size)


class Edge(NamedTuple):
    """An input of an operation: the node that made it and which of its outputs.

    A tuple of numbers, which the garbage collector need not look at: there are as many as steps.
    """

    node: int
    output: int


@dataclass
class Graph:
    """Nodes in topological order: every operation before the ones that it depends on.

    Attributes:
        nodes: autograd nodes; index = identity everywhere else.
        names: their operations (:func:`op_name`).
        inputs: per node, its edges; None for an input that carries no gradient.
        consumers: per node, the nodes that use one of its outputs.
        data: per node, whether the model's input reaches it; False for what parameters alone make.
        sources: nodes where data enter: input leaves, embeddings.
        parameters: per leaf node, the parameter's name.
    """

    nodes: list[Node]
    names: list[str]
    inputs: list[tuple[Edge | None, ...]]
    consumers: list[list[int]]
    data: list[bool]
    sources: frozenset[int]
    parameters: dict[int, str]
    index: dict[Node, int] = field(repr=False)

    def data_inputs(self, node: int) -> list[Edge]:
        """Edges through which the model's input arrives."""
        return [e for e in self.inputs[node] if e is not None and self.data[e.node]]

    def parameter_inputs(self, node: int) -> list[Edge]:
        """Edges that depend on parameters alone."""
        return [e for e in self.inputs[node] if e is not None and not self.data[e.node]]

    @cached_property
    def outputs(self) -> list[int]:
        """Per node, how many tensors it made: looked up once, as some made one a step."""
        return [len(n._input_metadata) for n in self.nodes]

    def without_nodes(self) -> Graph:
        """Its structure alone, which keeps no tensor alive."""
        return replace(self, nodes=[], index={})


def _reachable(roots: Iterable[Node]) -> tuple[list[Node], int]:
    """Nodes in topological order, and how many stand before the leaves."""
    seen: dict[Node, Any] = {}
    stack = [r for r in roots if r is not None]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        children = seen[node] = node.next_functions
        stack.extend(child for child, _ in children if child is not None)
    # Leaves carry the largest number of all; every other node is numbered after what it depends on.
    leaves, inner = list[Node](), list[Node]()
    for node, children in seen.items():
        (inner if children or not hasattr(node, "variable") else leaves).append(node)
    inner.sort(key=_sequence, reverse=True)
    return inner + leaves, len(inner)


def _sequence(node: Node) -> int:
    return int(node._sequence_nr())


def build(
    roots: Sequence[Node],
    parameters: Mapping[int, str],
    input_leaves: Sequence[torch.Tensor],
    known: Graph | None = None,
) -> Graph:
    """The graph behind ``roots``.

    Args:
        roots: ``grad_fn`` of the outputs.
        parameters: id of each parameter tensor -> its name.
        input_leaves: the tensors that were fed in and require a gradient.
        known: of an earlier pass of the model. Operations and leaves of the same names in the same
            order are the same graph, whose structure is taken over.
    """
    nodes, inner = _reachable(roots)
    index = {node: i for i, node in enumerate(nodes)}
    names = [op_name(n) for n in nodes]
    leaf_names, sources = _leaves(nodes, inner, parameters, input_leaves)
    if known is not None and (known.names, known.parameters) == (names, leaf_names):
        return replace(known, nodes=nodes, index=index)
    inputs: list[tuple[Edge | None, ...]] = [
        tuple(Edge(index[c], int(k)) if c is not None else None for c, k in n.next_functions)
        for n in nodes
    ]
    consumers: list[list[int]] = [[] for _ in nodes]
    for i, edges in enumerate(inputs):
        for edge in edges:
            if edge is not None:
                consumers[edge.node].append(i)
    sources |= {i for i, name in enumerate(names) if name in _EMBEDDINGS}
    if not sources:
        sources = _constant_fed(inputs)
    data = _reached_from(sources, inputs)
    return Graph(nodes, names, inputs, consumers, data, frozenset(sources), leaf_names, index)


def _leaves(
    nodes: Sequence[Node],
    first: int,
    parameters: Mapping[int, str],
    input_leaves: Sequence[torch.Tensor],
) -> tuple[dict[int, str], set[int]]:
    """Names of the parameters among the leaves, and which leaves are inputs."""
    entering = {id(t) for t in input_leaves}
    names: dict[int, str] = {}
    sources: set[int] = set()
    for i in range(first, len(nodes)):
        variable = id(nodes[i].variable)
        if variable in entering:
            sources.add(i)
        elif variable in parameters:
            names[i] = parameters[variable]
    return names, sources


def _reached_from(sources: set[int], inputs: list[tuple[Edge | None, ...]]) -> list[bool]:
    data = [False] * len(inputs)
    for i in range(len(inputs) - 1, -1, -1):
        data[i] = i in sources or any(e is not None and data[e.node] for e in inputs[i])
    return data


def _constant_fed(inputs: list[tuple[Edge | None, ...]]) -> set[int]:
    """Where integer inputs turned into floats without an embedding (one-hot): the operations
    nearest the input that combine a constant with a parameter."""
    fed = {i for i, edges in enumerate(inputs) if None in edges and any(edges)}
    reached = _reached_from(fed, inputs)
    return {i for i in fed if not any(e is not None and reached[e.node] for e in inputs[i])}

"""Who makes and who uses each tensor, through subgraphs that see the names around them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gradscope.loading.onnx.graph import Constant, Graph, Node, graphs_of

Id = tuple[str, str]
"""(path of the graph that makes a tensor, its name)."""


@dataclass
class Uses:
    """The whole model as one net.

    Attributes:
        constants: tensors that the file holds.
        inputs: of the outermost graph.
        outputs: of the outermost graph.
        nodes: in execution order, subgraphs' after the node that holds them.
        makers: the node that makes a tensor.
        of: nodes that use a tensor, and as which input.
        reads: per node, the tensors that it reads; None where an input is left out.
    """

    constants: dict[Id, Constant] = field(default_factory=dict)
    inputs: list[Id] = field(default_factory=list)
    outputs: list[Id] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    makers: dict[Id, Node] = field(default_factory=dict)
    of: dict[Id, list[tuple[Node, int]]] = field(default_factory=dict)
    reads: dict[Node, list[Id | None]] = field(default_factory=dict)

    def made(self, node: Node) -> list[Id]:
        """The tensors that a node makes."""
        return [(node.path, o) for o in node.outputs if o]


def uses_of(graph: Graph) -> Uses:
    """Reads the graph and everything below it."""
    uses = Uses()
    _enter(graph, {}, uses)
    uses.inputs = [("", i.name) for i in graph.inputs]
    uses.outputs = [_resolve({}, graph, o.name) for o in graph.outputs]
    return uses


def _resolve(around: Mapping[str, Id], graph: Graph, name: str) -> Id:
    return around.get(name, (graph.path, name))


def _enter(graph: Graph, around: Mapping[str, Id], uses: Uses) -> None:
    names = dict(around)
    for constant in graph.constants.values():
        names[constant.name] = (graph.path, constant.name)
        uses.constants[(graph.path, constant.name)] = constant
    names.update({i.name: (graph.path, i.name) for i in graph.inputs})
    for node in graph.nodes:
        read = [names[n] if n else None for n in node.inputs]
        uses.nodes.append(node)
        uses.reads[node] = read
        for index, name in enumerate(read):
            if name is not None:
                uses.of.setdefault(name, []).append((node, index))
        for inner in graphs_of(node):
            _enter(inner, names, uses)
        for output in node.outputs:
            if output:
                names[output] = (graph.path, output)
                uses.makers[(graph.path, output)] = node

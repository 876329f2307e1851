"""What an activation is for: found from what consumes its output.

``gate``: bounded, it multiplies something that also carries data. ``part``: what it multiplies, or
is added to, is made of its own pre-activation (SiLU, GELU, tanhshrink). ``output``: nothing but
reshaping and constant scaling follows; or it is bounded and no weight follows, however its values
are weighed and summed up.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

from gradscope.measurements import Role
from gradscope.probe.activations import GLU, Kind
from gradscope.probe.graph import SHAPE_OPS, Edge, Graph

_AFFINE = {
    "AddBackward",
    "SubBackward",
    "RsubBackward",
    "MulBackward",
    "DivBackward",
    "NegBackward",
}
_ELEMENTWISE = _AFFINE | {
    "PowBackward",
    "ExpBackward",
    "Log1PBackward",
    "AbsBackward",
    "SqrtBackward",
}
_PICKS = {
    "SliceBackward", "SelectBackward", "SplitBackward", "UnsafeSplitBackward",
    "SplitWithSizesBackward", "UnbindBackward",
}  # fmt: skip
_COMBINES = {"MulBackward", "AddBackward", "SubBackward"}  # x - tanh(x) is no tanh unit
GATING = frozenset({"sigmoid", "hardsigmoid"})
"""Kinds between 0 and 1: what they multiply, they let through or not."""

_MANY = frozenset({(-1, -1)})
Origin = frozenset[tuple[int, int]]


def roles_of(
    graph: Graph, activations: Mapping[int, Kind], heads: Sequence[int]
) -> dict[int, Role]:
    """Role of every activation node."""
    origins = _origins(graph, activations)
    roots = set(heads)
    weighed = _weighed(graph)
    roles: dict[int, Role] = {}
    for node in sorted(activations):  # consumers come before what they consume
        if activations[node] is GLU:
            roles[node] = Role.GATE
            continue
        role = _role(graph, activations, origins, roots, roles, node)
        last = role is Role.HIDDEN and activations[node].squashes and not weighed[node]
        roles[node] = Role.OUTPUT if last else role
    return roles


def _weighed(graph: Graph) -> list[bool]:
    """Per node, whether a parameter takes part in what is made of it."""
    found = [False] * len(graph.nodes)
    for i in range(len(graph.nodes)):  # consumers come before what they consume
        found[i] = any(found[c] or graph.parameter_inputs(c) for c in graph.consumers[i])
    return found


def _role(
    graph: Graph,
    activations: Mapping[int, Kind],
    origins: Sequence[Origin],
    roots: set[int],
    roles: Mapping[int, Role],
    node: int,
) -> Role:
    found: set[Role] = set()
    seen, stack = {node}, [node]
    while stack:
        current = stack.pop()
        if current in roots:
            found.add(Role.OUTPUT)
        for consumer in graph.consumers[current]:
            if consumer in activations:
                part = roles.get(consumer) is Role.PART
                found.add(Role.PART if part else Role.HIDDEN)
            elif _passes(graph, consumer):
                if consumer not in seen:
                    seen.add(consumer)
                    stack.append(consumer)
            else:
                found.add(_meets(graph, activations, origins, node, current, consumer))
    return found.pop() if len(found) == 1 else _among(found)


def _among(found: set[Role]) -> Role:
    """Of several uses: one that passes the signal on makes it hidden."""
    inner = found - {Role.OUTPUT}
    if len(inner) == 1:
        return inner.pop()
    return Role.HIDDEN


def _passes(graph: Graph, node: int) -> bool:
    """Reshaping, or arithmetic with constants."""
    name = graph.names[node]
    if name in SHAPE_OPS:
        return True
    return name in _AFFINE and sum(e is not None for e in graph.inputs[node]) == 1


def _meets(
    graph: Graph,
    activations: Mapping[int, Kind],
    origins: Sequence[Origin],
    node: int,
    current: int,
    consumer: int,
) -> Role:
    """Role by one consumer that is neither reshaping nor an activation."""
    name = graph.names[consumer]
    others = [e for e in graph.data_inputs(consumer) if e.node != current]
    if name not in _COMBINES or graph.parameter_inputs(consumer) or not others:
        return Role.HIDDEN  # for one, its own square
    edge = next(e for e in graph.inputs[node] if e is not None)
    mine = _edge_origin(graph, origins, edge)
    if mine != _MANY and mine == _edge_origin(graph, origins, others[0]):
        return Role.PART
    if name != "MulBackward" or not activations[node].squashes:
        return Role.HIDDEN  # an unbounded activation carries the signal (SwiGLU), it shuts nothing
    if activations[node].name in GATING:
        return Role.GATE
    # Times a sigmoid (highway, WaveNet) or a product (FiLM) a tanh carries the signal, unless it is
    # part of a recurrent cell.
    partner = _through_shapes(graph, others[0].node)
    both = partner in activations and activations[partner].name not in GATING
    return Role.GATE if both or _loops(graph, activations, node) else Role.HIDDEN


def _loops(graph: Graph, activations: Container[int], node: int) -> bool:
    """Whether the same parameters feed this activation again further down: a recurrence.

    Told by the leaf that a nearest product uses: in an unrolled loop several products share it.
    Other activations are looked through: a cell's state is made of gates.
    """
    stack, seen = [e.node for e in graph.data_inputs(node)], set[int]()
    while stack:
        i = stack.pop()
        if i in seen:
            continue
        seen.add(i)
        own = graph.parameter_inputs(i)
        if own and graph.names[i] not in _AFFINE - {"MulBackward"}:
            for edge in own:
                leaf = edge.node
                while leaf not in graph.parameters and graph.inputs[leaf]:
                    first = next((e for e in graph.inputs[leaf] if e is not None), None)
                    if first is None:
                        break
                    leaf = first.node
                if len(graph.consumers[leaf]) > 1:
                    return True
        elif i in activations or graph.names[i] in _ELEMENTWISE or graph.names[i] in SHAPE_OPS:
            stack.extend(e.node for e in graph.data_inputs(i))
    return False


def _through_shapes(graph: Graph, node: int) -> int:
    while _passes(graph, node):
        edges = graph.data_inputs(node)
        if len(edges) != 1:
            break
        node = edges[0].node
    return node


def _edge_origin(graph: Graph, origins: Sequence[Origin], edge: Edge) -> Origin:
    several = graph.outputs[edge.node] > 1
    return frozenset({(edge.node, edge.output)}) if several else origins[edge.node]


def _origins(graph: Graph, activations: Mapping[int, Kind]) -> list[Origin]:
    """Per node, the tensors that it was made of by elementwise operations alone."""
    origins: list[Origin] = [frozenset()] * len(graph.nodes)
    for i in range(len(graph.nodes) - 1, -1, -1):
        name = graph.names[i]
        passes = (
            i in activations or name in _ELEMENTWISE or (name in SHAPE_OPS and name not in _PICKS)
        )
        edges = graph.data_inputs(i)
        if not passes or not edges or graph.parameter_inputs(i):
            origins[i] = frozenset({(i, 0)})
            continue
        union: Origin = frozenset().union(*(_edge_origin(graph, origins, e) for e in edges))
        origins[i] = union if len(union) <= 2 else _MANY
    return origins

"""Which node of the backward graph belongs to which activation that the tap saw."""

from __future__ import annotations

from collections.abc import Sequence

from gradscope.probe.activations import NODES, SOFTSIGN, Kind
from gradscope.probe.graph import Graph, output_shape
from gradscope.probe.tap import Record


def candidates(graph: Graph) -> list[int]:
    """Nodes that may be activations, in execution order."""
    return [i for i in range(len(graph.nodes) - 1, -1, -1) if _may_be(graph, i)]


def _may_be(graph: Graph, node: int) -> bool:
    name = graph.names[node]
    if name in ("ClampBackward", "ClampMinBackward"):
        raw = graph.nodes[node]
        upper = getattr(raw, "_saved_max", None)
        return raw._saved_min == 0 and upper is None
    return name in NODES or (name == "DivBackward" and softsign_parts(graph, node) is not None)


def softsign_parts(graph: Graph, node: int) -> tuple[int, int] | None:
    """(add, abs) of z / (1 + |z|); None if the division is another one."""
    edges = graph.inputs[node]
    if len(edges) != 2 or edges[0] is None or edges[1] is None:
        return None
    add = edges[1].node
    if graph.names[add] != "AddBackward":
        return None
    inner = [e.node for e in graph.inputs[add] if e is not None]
    if len(inner) != 1 or graph.names[inner[0]] != "AbsBackward":
        return None
    of = graph.inputs[inner[0]][0]
    same = of is not None and (of.node, of.output) == (edges[0].node, edges[0].output)
    return (add, inner[0]) if same else None


def match(graph: Graph, records: Sequence[Record]) -> tuple[dict[int, int], list[int]]:
    """Pairs nodes with records; both are in execution order.

    Returns:
        node -> index of its record; and the records without a node (run without gradients, or
        used for nothing that the output depends on).
    """
    nodes = candidates(graph)
    found: dict[int, int] = {}
    position = 0
    lost: list[int] = []
    for index, record in enumerate(records):
        at = next((i for i in range(position, len(nodes)) if _same(graph, nodes[i], record)), None)
        if at is None:
            lost.append(index)
        else:
            found[nodes[at]] = index
            position = at + 1
    return found, lost


def _same(graph: Graph, node: int, record: Record) -> bool:
    name = graph.names[node]
    kinds: tuple[Kind, ...] = (SOFTSIGN,) if name == "DivBackward" else NODES[name]
    raw = graph.nodes[node]
    if record.kind not in kinds or output_shape(raw) != record.shape:
        return False
    for attribute in ("_saved_result", "_saved_self"):
        saved = getattr(raw, attribute, None)
        if saved is not None:
            return saved.data_ptr() in record.addresses
    return True

"""Which node of the backward graph belongs to which activation that the tap saw."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence

import torch

from gradscope.probe.activations import NODES, SOFTSIGN, Kind
from gradscope.probe.graph import Graph, output_shape
from gradscope.probe.tap import Record


def candidates(graph: Graph) -> list[int]:
    """Nodes that may be activations, in execution order."""
    return [i for i in range(len(graph.nodes) - 1, -1, -1) if _may_be(graph, i)]


def _may_be(graph: Graph, node: int) -> bool:
    name = graph.names[node]
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


def match(graph: Graph, records: Sequence[Record]) -> tuple[dict[int, int], dict[int, str]]:
    """Pairs nodes with records, by the numbers that autograd had given when the record was made.

    The node's number is the newest, or nearly: some operations in place copy their input first.
    What autograd has saved is not asked for: a tensor that was changed in place since, or that a
    checkpoint computes again, is not there to compare.

    Returns:
        node -> index of its record; and index -> reason for the records without a node.
    """
    waiting = sorted((int(graph.nodes[i]._sequence_nr()), i) for i in candidates(graph))
    found: dict[int, int] = {}
    lost: dict[int, str] = {}
    customs: dict[int, str] | None = None
    start = 0
    for index, record in enumerate(records):
        if record.refused is not None:
            lost[index] = record.refused
            continue
        stop = bisect_right(waiting, (record.number, len(graph.nodes)))
        newest = (i for _, i in reversed(waiting[start:stop]))
        node = next((i for i in newest if _same(graph, i, record)), None)
        start = max(start, stop)
        if node is not None:
            found[node] = index
        elif not record.kind.incidental:
            customs = _customs(graph) if customs is None else customs
            lost[index] = _reason(graph, record, customs)
    return found, lost


def _same(graph: Graph, node: int, record: Record) -> bool:
    name = graph.names[node]
    kinds: tuple[Kind, ...] = (SOFTSIGN,) if name == "DivBackward" else NODES[name]
    return record.kind in kinds and output_shape(graph.nodes[node]) == record.shape


def _customs(graph: Graph) -> dict[int, str]:
    """Names of custom autograd functions by the number of their nodes."""
    return {
        int(raw._sequence_nr()): name.removesuffix("Backward")
        for raw, name in zip(graph.nodes, graph.names, strict=True)
        if isinstance(raw, torch.autograd.function.BackwardCFunction)
    }


def _reason(graph: Graph, record: Record, customs: Mapping[int, str]) -> str:
    if record.number in customs:
        return f"inside of the custom function {customs[record.number]}, which has its own gradient"
    if "CopySlices" in graph.names:
        return "no gradient comes through it: unused, without gradients, or a view changed in place"
    return "no gradient comes through it: run without gradients, or unused"

"""One forward pass: run the model on a batch, see its activations, read its graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_map

from gradscope.findings import Skipped
from gradscope.model import Batch
from gradscope.probe.activations import Kind
from gradscope.probe.elements import looping_sites
from gradscope.probe.graph import Graph, build
from gradscope.probe.heads import HeadRoot, find_heads
from gradscope.probe.match import match
from gradscope.probe.plans import HeadPlan
from gradscope.probe.sites import SiteInfo, find_sites
from gradscope.probe.state import visible_operations
from gradscope.probe.subject import Names, Subject
from gradscope.probe.tap import ActivationTap, PlanOf, Record


@dataclass(frozen=True)
class Structure:
    """What the graph of a pass says; the next batch with the same one reuses it.

    Attributes:
        graph: without its nodes.
        activations: nodes.
        roots: nodes of the heads.
        sites: the activations, grouped.
        loops: ids of the sites whose later calls depend on their earlier ones.
        plans: per head, what is looked at for its ledger.
    """

    graph: Graph
    activations: frozenset[int]
    roots: tuple[int, ...]
    sites: list[SiteInfo]
    loops: frozenset[str]
    plans: tuple[HeadPlan, ...]


@dataclass(frozen=True)
class ForwardPass:
    """Everything that is known after a forward pass.

    Attributes:
        records: activations in execution order.
        record_of: activation node -> index of its record.
        lost: index of each record without a node, with the reason.
        graph: the backward graph of all heads.
        heads: outputs.
        structure: what the graph says.
        leaves: the input tensors that gradients could flow to.
        output: what the model returned.
        skipped: outputs that no cotangent can enter.
        storages: addresses of all that operations took, if nothing was measured.
    """

    records: Sequence[Record]
    record_of: Mapping[int, int]
    lost: Mapping[int, str]
    graph: Graph
    heads: Sequence[HeadRoot]
    structure: Structure
    leaves: Sequence[torch.Tensor]
    output: Any
    skipped: Sequence[Skipped]
    storages: Set[int] = frozenset()

    @property
    def sites(self) -> list[SiteInfo]:
        """The activations, grouped by what feeds them."""
        return self.structure.sites


def run_forward(
    subject: Subject,
    batch: Batch,
    plan: PlanOf,
    *,
    measure: bool,
    known: Structure | None = None,
) -> ForwardPass:
    """Forward pass with every activation seen and the graph read.

    Args:
        subject: the model.
        batch: what to run it on; its tensors are copied, never changed.
        plan: how to read the axes of each activation.
        measure: False only lists the activations.
        known: structure of an earlier pass, reused if the graph is the same.
    """
    leaves: list[torch.Tensor] = []

    def enter(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        value = value.to(subject.device)
        if not (value.is_floating_point() or value.is_complex()):
            return value.clone()
        leaf = value.detach().requires_grad_()
        leaves.append(leaf)
        return leaf.clone()  # a model may change its input in place, which a leaf forbids

    tap = ActivationTap(plan, batch.size, measure=measure, scratch=subject.scratch)
    with torch.enable_grad():
        args, kwargs = tree_map(enter, batch.args), tree_map(enter, dict(batch.kwargs))
    with torch.enable_grad(), visible_operations(), tap:
        output = subject(args, kwargs, f"samples {batch.start}..{batch.start + batch.size - 1}")
    records = tap.finish()
    heads, skipped = find_heads(output, subject.outputs)
    nodes = [h.tensor.grad_fn for h in heads]
    graph = build(nodes, subject.names.by_id, leaves, None if known is None else known.graph)
    roots = [graph.index[h.edge.node] for h in heads]
    record_of, lost = match(graph, records)
    kinds = {node: records[i].kind for node, i in record_of.items()}
    structure = _structure(graph, kinds, roots, subject.names, known)
    return ForwardPass(
        records, record_of, lost, graph, heads, structure, leaves, output, skipped,
        tap.storages,
    )  # fmt: skip


def _structure(
    graph: Graph,
    kinds: Mapping[int, Kind],
    roots: Sequence[int],
    names: Names,
    known: Structure | None,
) -> Structure:
    if known is not None and graph.inputs is known.graph.inputs:  # taken over from there
        same = known.activations == kinds.keys()
        if same and known.roots == (*roots,):
            return known
    outputs = [graph.index[n] for n in graph.nodes if not graph.consumers[graph.index[n]]]
    sites = find_sites(graph, kinds, outputs, names.order, names.layers)
    loops = frozenset(looping_sites(graph, sites))
    plans = tuple(HeadPlan.of(graph, root, sites, loops) for root in roots)
    return Structure(graph.without_nodes(), frozenset(kinds), (*roots,), sites, loops, plans)

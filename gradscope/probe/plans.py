"""What is looked at for the ledger of one head: once for all batches with the same graph."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass

from gradscope.probe.elements import ElementPlan, plan_elements
from gradscope.probe.graph import SHAPE_OPS, Graph
from gradscope.probe.sites import SiteInfo
from gradscope.probe.spine import Spine, find_spine


@dataclass(frozen=True)
class HeadPlan:
    """Elements of one head.

    Attributes:
        elements: from the output's side to the input's.
        cuts: nodes to listen at, beside the activations.
        counted: cuts of the spine that are computed.
    """

    elements: tuple[ElementPlan, ...]
    cuts: frozenset[int]
    counted: int

    @classmethod
    def of(cls, graph: Graph, root: int, sites: Sequence[SiteInfo], loops: Set[str]) -> HeadPlan:
        """Of the head that ends at ``root``; ``loops``: ids of recurrent sites."""
        spine = find_spine(graph, root)
        elements = tuple(plan_elements(graph, spine, sites, loops))
        ends: Iterable[int | None] = (c for e in elements if e.ends for c in e.ends)
        cuts = frozenset(c for c in ends if c is not None)
        return cls(elements, cuts, _count_cuts(graph, spine))


def _count_cuts(graph: Graph, spine: Spine) -> int:
    """Cuts that are computed: neither the input itself nor a view of another cut."""
    own = (c for c in spine.cuts if c not in graph.sources or graph.inputs[c])
    return sum(graph.names[c] not in SHAPE_OPS for c in own)

"""From the spine of a graph to the elements of its ledger: what must be measured, and where."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

from gradscope.measurements import Role
from gradscope.probe.graph import Graph
from gradscope.probe.sites import SiteInfo
from gradscope.probe.spine import Spine, has_bypass, levels


@dataclass(frozen=True)
class ElementPlan:
    """One element of the ledger, in terms of nodes.

    Attributes:
        sites: activation nodes that stand side by side here.
        carried: activation nodes of branches that have ended already; their gradient goes along.
        ends: cuts whose gradients are the element's (input, output) side; None: the sites' own. The
            input side is None where no gradient comes through (nothing to train beneath).
        bypass: a path leads around the sites.
    """

    sites: tuple[int, ...]
    carried: tuple[int, ...] = ()
    ends: tuple[int | None, int] | None = None
    bypass: bool = False


def plan_elements(
    graph: Graph, spine: Spine, sites: Sequence[SiteInfo], loops: Set[str]
) -> list[ElementPlan]:
    """Elements of one head, from the output's side to the input's.

    ``loops``: ids of recurrent sites, from :func:`looping_sites`.
    """
    # A unit made by hand, z sigmoid(z), is a block: its part says where it is, z leads around.
    hidden = {c.node: s for s in sites if s.role in (Role.HIDDEN, Role.PART) for c in s.calls}
    looped = {c.node for s in sites if s.id in loops for c in s.calls}
    blocks: dict[int, list[int]] = {}
    for node in sorted(hidden):
        if node in spine.block_of:
            blocks.setdefault(spine.block_of[node], []).append(node)
    plans: list[ElementPlan] = []
    for block in sorted(blocks):
        plans.extend(_plan_block(graph, spine, block, blocks[block], looped))
    return plans


def _plan_block(
    graph: Graph, spine: Spine, block: int, nodes: list[int], looped: set[int]
) -> list[ElementPlan]:
    start, end = spine.ends(block)
    if len(nodes) == 1 and end == nodes[0]:
        return [ElementPlan((nodes[0],))]
    inside = set(nodes)
    bypass = has_bypass(graph, spine, block, inside)
    if bypass or inside & looped:
        measurable = start is not None and below_has_parameters(graph, start)
        ends = (start if measurable else None, end)
        return [ElementPlan(tuple(nodes), ends=ends, bypass=bypass)]
    return _plan_levels(graph, spine, block, inside)


def _plan_levels(graph: Graph, spine: Spine, block: int, inside: set[int]) -> list[ElementPlan]:
    """Branches side by side, level by level; a branch that has ended is carried along."""
    level = levels(graph, spine, block, inside)
    ended = {n for n in inside if not _site_beneath(graph, spine, block, inside, n)}
    plans = []
    for depth in range(max(level.values()) + 1):
        here = tuple(sorted(n for n in inside if level[n] == depth))
        carried = tuple(sorted(n for n in ended if level[n] < depth))
        plans.append(ElementPlan(here, carried))
    return plans


def _site_beneath(graph: Graph, spine: Spine, block: int, inside: set[int], node: int) -> bool:
    start, _ = spine.ends(block)
    seen, stack = {node}, [node]
    while stack:
        for edge in graph.data_inputs(stack.pop()):
            if edge.node in inside:
                return True
            if edge.node not in seen and edge.node != start:
                seen.add(edge.node)
                stack.append(edge.node)
    return False


def below_has_parameters(graph: Graph, node: int) -> bool:
    """Whether a parameter lies beneath: only then does a backward pass come through here."""
    seen, stack = {node}, [node]
    while stack:
        current = stack.pop()
        if current in graph.parameters:
            return True
        for edge in graph.inputs[current]:
            if edge is not None and edge.node not in seen:
                seen.add(edge.node)
                stack.append(edge.node)
    return False


def looping_sites(graph: Graph, sites: Sequence[SiteInfo]) -> set[str]:
    """Ids of sites whose later calls depend on their earlier ones: recurrence, not reuse."""
    found = set()
    for site in sites:
        if len(site.calls) > 1 and _depends(graph, site.calls[-1].node, site.calls[0].node):
            found.add(site.id)
    return found


def _depends(graph: Graph, later: int, earlier: int) -> bool:
    marks = {later: True}
    for i in range(later, earlier):
        if marks.get(i):
            for edge in graph.data_inputs(i):
                marks[edge.node] = True
    return bool(marks.get(earlier))

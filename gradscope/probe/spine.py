"""The spine of a network: the tensors that every path from input to output passes.

Execution order means nothing on a graph with branches. A node is a *cut* if the number of paths
through it equals the number of all paths (counted modulo a large prime). Cuts are totally ordered;
between two neighbours lies a *block*, which is a single operation on a chain.
"""

from __future__ import annotations

from dataclasses import dataclass

from gradscope.probe.graph import Graph

_PRIME = (1 << 61) - 1


@dataclass(frozen=True)
class Spine:
    """Cuts of one head, from the output's side to the input's.

    Attributes:
        cuts: node indices; ``cuts[0]`` is nearest to the output.
        block_of: node -> b, for nodes that lie after ``cuts[b + 1]`` and up to ``cuts[b]``: block b
            leads from ``cuts[b + 1]`` (its input) to ``cuts[b]`` (its output).
    """

    cuts: tuple[int, ...]
    block_of: dict[int, int]

    def ends(self, block: int) -> tuple[int | None, int]:
        """(input cut, output cut) of a block; no input cut for what lies before the first."""
        inner = self.cuts[block + 1] if block + 1 < len(self.cuts) else None
        return inner, self.cuts[block]


def find_spine(graph: Graph, root: int) -> Spine:
    """Cuts between ``root`` and the joint source of ``graph``."""
    down = _paths_from(graph, root)
    up = _paths_to_source(graph)
    total = up[root]
    below = [i for i in range(len(graph.nodes)) if down[i] and graph.data[i]]
    cuts = [i for i in below if down[i] * up[i] % _PRIME == total]
    return Spine(tuple(cuts), _blocks(graph, root, set(cuts)))


def _paths_from(graph: Graph, root: int) -> list[int]:
    """Number of paths from the root down to each node, along edges that carry data."""
    count = [0] * len(graph.nodes)
    count[root] = 1
    for i in range(root, len(graph.nodes)):
        if count[i]:
            for edge in graph.data_inputs(i):
                count[edge.node] = (count[edge.node] + count[i]) % _PRIME
    return count


def _paths_to_source(graph: Graph) -> list[int]:
    count = [0] * len(graph.nodes)
    for i in range(len(graph.nodes) - 1, -1, -1):
        own = 1 if i in graph.sources else 0
        count[i] = (own + sum(count[e.node] for e in graph.data_inputs(i))) % _PRIME
    return count


def _blocks(graph: Graph, root: int, cuts: set[int]) -> dict[int, int]:
    """Which block each node lies in: the number of cuts passed before it, itself not counted."""
    passed = {root: 0}
    for i in range(root, len(graph.nodes)):
        if i in passed:
            beyond = passed[i] + 1 if i in cuts else passed[i]
            for edge in graph.data_inputs(i):
                passed.setdefault(edge.node, beyond)
    return {i: n if i in cuts else n - 1 for i, n in passed.items()}


def has_bypass(graph: Graph, spine: Spine, block: int, sites: set[int]) -> bool:
    """Whether a path leads through the block without meeting one of ``sites``."""
    start, end = spine.ends(block)
    if end in sites:
        return False
    seen, stack = {end}, [end]
    while stack:
        for edge in graph.data_inputs(stack.pop()):
            if edge.node == start or (start is None and edge.node in graph.sources):
                return True
            if edge.node not in seen and edge.node not in sites:
                seen.add(edge.node)
                stack.append(edge.node)
    return False


def levels(graph: Graph, spine: Spine, block: int, sites: set[int]) -> dict[int, int]:
    """Sites of a block by the largest number of sites between them and the block's output."""
    start, end = spine.ends(block)
    depth = {end: 0}
    found: dict[int, int] = {}
    for i in range(end, len(graph.nodes)):
        if i not in depth or i == start:
            continue
        if i in sites:
            found[i] = depth[i]
        beyond = depth[i] + (1 if i in sites else 0)
        for edge in graph.data_inputs(i):
            depth[edge.node] = max(depth.get(edge.node, 0), beyond)
    return found

"""Which activations there are, what feeds them, and what they are for.

Module paths are no identity: one shared ``self.act`` would merge twenty layers, and exported
programs have none. The identity of a site is the set of parameters that feed it; where none do, the
sites before it. Calls merge into one site only when the same parameters feed them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gradscope.measurements import Role
from gradscope.probe.activations import Kind
from gradscope.probe.graph import SHAPE_OPS, Graph, output_shape
from gradscope.probe.reparam import owner_of
from gradscope.probe.roles import GATING, roles_of

_SPLITS = {"SplitBackward", "UnsafeSplitBackward", "SplitWithSizesBackward"}
_SUMS = {"AddBackward", "SubBackward", "RsubBackward"}
_CHANNEL_OPS = {
    "ConvolutionBackward", "MkldnnConvolutionBackward", "CudnnConvolutionBackward",
    "NativeBatchNormBackward", "CudnnBatchNormBackward", "NativeGroupNormBackward",
    "MaxPool2DWithIndicesBackward", "AvgPool2DBackward", "SlowConv2DBackward",
}  # fmt: skip
_LAST_OPS = {
    "MmBackward", "AddmmBackward", "BmmBackward", "BaddbmmBackward", "NativeLayerNormBackward",
    "EmbeddingBackward",
}  # fmt: skip
_TURNS = {"PermuteBackward", "TransposeBackward"}
_RECURRENT = re.compile(r"^(?:weight|bias)_(?:ih|hh|hr)_(l\d+(?:_reverse)?)$")
_MOST_PARTS = 8
_LSTM = {"0/4": "input", "1/4": "forget", "2/4": "cell", "3/4": "output"}
_LSTM_KINDS = {"0/4": "sigmoid", "1/4": "sigmoid", "2/4": "tanh", "3/4": "sigmoid"}
_GRU = {"0/3": "reset", "1/3": "update", "2/3": "new"}
_GRU_KINDS = {"0/3": "sigmoid", "1/3": "sigmoid", "2/3": "tanh"}


@dataclass(frozen=True, slots=True)
class Key:
    """What makes a site the same site: its parameters (or prior sites), kind, part of a split."""

    parameters: frozenset[str]
    priors: frozenset[Key]
    kind: str
    part: str | None


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a site in one forward pass: its node."""

    node: int


@dataclass
class SiteInfo:
    """One site as found in the graph, before anything is measured.

    Attributes mirror :class:`gradscope.measurements.Site`; ``calls`` are in execution order.
    """

    key: Key
    kind: Kind
    id: str
    layer: str
    gate: str | None
    role: Role
    parameters: tuple[str, ...]
    calls: list[Call]
    unit_axis: int


@dataclass(frozen=True, slots=True)
class _Feed:
    """What feeds a tensor: nearest parameters and sites, split part, unit axis."""

    parameters: frozenset[str] = frozenset()
    priors: frozenset[Key] = frozenset()
    part: str | None = None
    channels: bool = False


def find_sites(
    graph: Graph,
    activations: Mapping[int, Kind],
    heads: Sequence[int],
    order: Mapping[str, int],
    layers: Mapping[str, str] | None = None,
) -> list[SiteInfo]:
    """All sites of a graph, in execution order of their first call.

    Args:
        graph: the backward graph.
        activations: node -> kind, for every activation node.
        heads: root nodes.
        order: position of each parameter name in the model.
        layers: layer of a parameter, where its name does not tell.
    """
    keys, feeds = _keys(graph, activations)
    roles = roles_of(graph, activations, heads)
    grouped: dict[Key, list[int]] = {}
    for node in sorted(keys, reverse=True):  # the last in topological order ran first
        grouped.setdefault(keys[node], []).append(node)
    gates = _gate_names(grouped)
    sites: list[SiteInfo] = []
    for key, nodes in grouped.items():
        gate = gates.get(key)
        kind = activations[nodes[0]]
        calls = [Call(n) for n in nodes]
        role = Role.GATE if gate else _joint_role(kind, [roles[n] for n in nodes])
        layer, label = _layer(key, order, layers or {})
        parameters = tuple(sorted(key.parameters, key=lambda p: order.get(p, 0)))
        rank = len(graph_shape(graph, nodes[0]))
        axis = 1 - rank if feeds[nodes[0]].channels and rank >= 3 else -1
        name = "/".join(p for p in (label, gate or kind.name) if p)
        sites.append(SiteInfo(key, kind, name, layer, gate, role, parameters, calls, axis))
    _make_unique(sites)
    return sites


def _keys(graph: Graph, activations: Mapping[int, Kind]) -> tuple[dict[int, Key], dict[int, _Feed]]:
    """Identity of every activation node, and what feeds every node."""
    feeds: dict[int, _Feed] = {}
    keys: dict[int, Key] = {}
    for node in range(len(graph.nodes) - 1, -1, -1):
        if node not in activations:
            feeds[node] = _feed(graph, feeds, node)
            continue
        edge = next((e for e in graph.inputs[node] if e is not None), None)
        feed = _of_edge(graph, feeds, edge.node, edge.output) if edge else _Feed()
        if activations[node].incidental and not feed.parameters:
            feeds[node] = feed
            continue
        keys[node] = _key(feed, activations[node])
        feeds[node] = _Feed(priors=frozenset({keys[node]}), channels=feed.channels)
    return keys, feeds


def graph_shape(graph: Graph, node: int) -> tuple[int, ...]:
    """Shape of the (first) tensor that a node made."""
    return output_shape(graph.nodes[node])


def _key(feed: _Feed, kind: Kind) -> Key:
    priors = frozenset() if feed.parameters else feed.priors
    return Key(feed.parameters, priors, kind.name, feed.part)


def _leaves(graph: Graph, node: int) -> frozenset[str]:
    """Names of the parameters beneath a node that no data reach."""
    found, seen, stack = set(), {node}, [node]
    while stack:
        i = stack.pop()
        if i in graph.parameters:
            found.add(graph.parameters[i])
        for edge in graph.inputs[i]:
            if edge is not None and edge.node not in seen:
                seen.add(edge.node)
                stack.append(edge.node)
    return frozenset(found)


def _of_edge(graph: Graph, feeds: Mapping[int, _Feed], node: int, output: int) -> _Feed:
    """Feed of one output of a node: splits tell their parts apart."""
    feed = feeds[node]
    if graph.names[node] not in _SPLITS:
        return feed
    count = graph.outputs[node]
    if 2 <= count <= _MOST_PARTS:
        return _Feed(feed.parameters, feed.priors, f"{output}/{count}", feed.channels)
    return feed


def _feed(graph: Graph, feeds: Mapping[int, _Feed], node: int) -> _Feed:
    """Union of what feeds the inputs; a product with parameters ends the search."""
    name = graph.names[node]
    if not graph.data[node]:
        return _Feed(_leaves(graph, node))
    own = [e.node for e in graph.parameter_inputs(node)]
    parameters = frozenset[str]().union(*(feeds[n].parameters for n in own))
    edges = graph.data_inputs(node)
    channels = _channels(graph, feeds, node)
    ends = bool(parameters) and (name not in _SUMS or not edges)
    if ends or node in graph.sources:
        return _Feed(parameters, frozenset(), None, channels)
    behind = [_of_edge(graph, feeds, e.node, e.output) for e in edges]
    parts = {f.part for f in behind if f.part is not None}
    keeps = name in _SUMS or name in SHAPE_OPS or name == "MulBackward"
    return _Feed(
        parameters.union(*(f.parameters for f in behind)),
        frozenset[Key]().union(*(f.priors for f in behind)),
        _slice_part(graph, node) or (parts.pop() if keeps and len(parts) == 1 else None),
        channels,
    )


def _slice_part(graph: Graph, node: int) -> str | None:
    """A slice of the last axis that leaves something out is a part, like one of a split."""
    if graph.names[node] != "SliceBackward":
        return None
    raw = graph.nodes[node]
    before = tuple(raw._saved_self_sym_sizes)
    axis = int(raw._saved_dim)
    if axis >= 1 << 63:
        axis -= 1 << 64
    if axis % len(before) != len(before) - 1:
        return None
    size = int(before[-1])
    start = int(raw._saved_start or 0)  # None in scripts, from the beginning
    start = start - (1 << 64) if start >= 1 << 63 else start
    width = graph_shape(graph, node)[-1]
    if width == size:
        return None
    start = max(start, 0)
    even = width > 0 and size % width == 0 and start % width == 0 and size // width <= _MOST_PARTS
    return f"{start // width}/{size // width}" if even else f"{start}:{start + width}"


def _channels(graph: Graph, feeds: Mapping[int, _Feed], node: int) -> bool:
    """Whether units lie on axis 1 (images) and not on the last one."""
    name = graph.names[node]
    if name in _CHANNEL_OPS:
        return True
    if name in _LAST_OPS or name in _TURNS:
        return False
    edges = graph.data_inputs(node)
    return bool(edges) and feeds[edges[0].node].channels


def _gate_names(grouped: Mapping[Key, Sequence[int]]) -> dict[Key, str]:
    """Names of recurrent gates, from how one product is split and squashed."""
    families: dict[frozenset[str], dict[str, Key]] = {}
    for key in grouped:
        if key.part is not None and key.parameters:
            families.setdefault(key.parameters, {})[key.part] = key
    names: dict[Key, str] = {}
    for parts in families.values():
        kinds = {part: key.kind for part, key in parts.items()}
        for pattern, wanted in ((_LSTM, _LSTM_KINDS), (_GRU, _GRU_KINDS)):
            if kinds == wanted:
                names.update({key: pattern[part] for part, key in parts.items()})
    cells = {key for key, name in names.items() if name in ("input", "cell")}
    for key in grouped:
        if not key.parameters and key.kind == "tanh" and len(key.priors & cells) >= 2:
            names[key] = "state"
    return names


def _joint_role(kind: Kind, roles: Sequence[Role]) -> Role:
    """One role for all calls: what carries the signal anywhere is hidden.

    But a sigmoid that multiplies data in one call is a gate in all: in the first step of a
    recurrence it multiplies a constant state.
    """
    if Role.GATE in roles and kind.name in GATING:
        return Role.GATE
    for role in (Role.HIDDEN, Role.GATE, Role.PART):
        if role in roles:
            return role
    return Role.OUTPUT


def _layer(key: Key, order: Mapping[str, int], layers: Mapping[str, str]) -> tuple[str, str]:
    """(module that owns the parameters, label of the site's place)."""
    if not key.parameters:
        known = sorted({_layer(p, order, layers) for p in key.priors})
        return known[0] if known else ("", "input")
    names = sorted(key.parameters, key=lambda p: order.get(p, 0))
    owners = [(layers[n], "") if n in layers else owner_of(n) for n in names]
    labels: dict[str, str] = {}
    for path, name in owners:
        cell = _RECURRENT.match(name)
        label = ".".join(p for p in (path, cell.group(1) if cell else "") if p)
        labels.setdefault(label, path)
    shown = list(labels)[:3]
    return labels[shown[0]], "+".join(shown)


def _make_unique(sites: list[SiteInfo]) -> None:
    seen: dict[str, int] = {}
    for site in sites:
        seen[site.id] = seen.get(site.id, 0) + 1
        if seen[site.id] > 1:
            site.id = f"{site.id}#{seen[site.id]}"

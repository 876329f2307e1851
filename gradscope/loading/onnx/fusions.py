"""Activations that an exporter took apart, put together again.

ONNX has no SiLU before opset 24 and no GELU before 20; exporters write them as several nodes. The
probe is to see the activation that the network has: so these few patterns run as one operation. The
node that remains keeps the name of the last one's output. Nothing is put together that another
node looks into, and the file itself is never changed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from gradscope.loading.onnx.graph import Graph, Node, captured

X = "x"
"""Stands for the pre-activation in a pattern; numbers stand for themselves."""

_NEWEST = 26  # of the operators put in place
_COMMUTATIVE = {"Add", "Mul"}
_CLIPPED = ("Clip", ("Add", X, 3.0), 0.0, 6.0)
_ERF = [("Div", X, math.sqrt(2.0)), ("Mul", X, math.sqrt(0.5))]
_CUBES = [("Pow", X, 3.0), ("Mul", ("Mul", X, X), X)]
_INNER = [("Mul", ("Add", X, ("Mul", c, 0.044715)), math.sqrt(2 / math.pi)) for c in _CUBES]


def _halved(bracket: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """x (1 + ...) / 2, in the orders in which it is written."""
    sum_ = ("Add", bracket, 1.0)
    return [
        ("Mul", ("Mul", X, sum_), 0.5),
        ("Mul", ("Mul", X, 0.5), sum_),
        ("Mul", X, ("Mul", sum_, 0.5)),
    ]


_PATTERNS: list[tuple[tuple[Any, ...], str, Mapping[str, Any]]] = [
    (("Mul", X, ("Sigmoid", X)), "Swish", {}),
    (("Mul", X, ("Sigmoid", ("Mul", X, 1.0))), "Swish", {}),  # Paddle's, of slope 1
    (("Mul", X, ("Tanh", ("Softplus", X))), "Mish", {}),
    (("Div", ("Mul", X, _CLIPPED), 6.0), "HardSwish", {}),
    (("Mul", X, ("Div", _CLIPPED, 6.0)), "HardSwish", {}),
    (("Mul", X, ("HardSigmoid", X)), "HardSwish", {}),
    *((p, "Gelu", {}) for e in _ERF for p in _halved(("Erf", e))),
    *((p, "Gelu", {"approximate": "tanh"}) for i in _INNER for p in _halved(("Tanh", i))),
]
_ROOTS = {pattern[0] for pattern, _, _ in _PATTERNS}


def fused(graph: Graph) -> Graph:
    """The graph, and those within it, with these activations as single nodes."""
    nodes = [_inside(node) for node in graph.nodes]
    matcher = _Matcher(replace(graph, nodes=tuple(nodes)))
    gone: set[Node] = set()
    made: dict[Node, Node] = {}
    for node in reversed(nodes):  # the largest pattern ends last
        if node in gone or node.op not in _ROOTS or node.domain:
            continue
        for pattern, op, attributes in _PATTERNS:
            found = matcher.match(pattern, node)
            if found is not None and not found.inner & gone:
                gone |= found.inner
                made[node] = replace(
                    node, op=op, version=_NEWEST, inputs=(found.x,), attributes=attributes
                )
                break
    return replace(graph, nodes=tuple(made.get(n, n) for n in nodes if n not in gone))


def _inside(node: Node) -> Node:
    if not any(isinstance(v, Graph) for v in node.attributes.values()):
        return node
    attributes = {k: fused(v) if isinstance(v, Graph) else v for k, v in node.attributes.items()}
    return replace(node, attributes=attributes)


@dataclass(frozen=True)
class _Found:
    """What x stands for, and the nodes that the pattern takes in beside its last one."""

    x: str
    inner: frozenset[Node]


class _Matcher:
    def __init__(self, graph: Graph) -> None:
        self._makers = {o: n for n in graph.nodes for o in n.outputs if o}
        self._constants = graph.constants
        self._uses = Counter(name for n in graph.nodes for name in (*n.inputs, *captured(n)))
        self._uses.update(o.name for o in graph.outputs)

    def match(self, pattern: tuple[Any, ...], root: Node) -> _Found | None:
        """None if the pattern does not end in this node."""
        return next(
            (
                _Found(x, inner)
                for x, inner in self._node(pattern, root, None, frozenset())
                if x is not None and x not in self._constants and self._closed(root, x, inner)
            ),
            None,
        )

    def _closed(self, root: Node, x: str, inner: frozenset[Node]) -> bool:
        """Whether nothing outside of the pattern reads what is made inside of it."""
        taken = Counter(n for node in (root, *inner) for n in node.inputs)
        return all(self._uses[o] == taken[o] for node in inner for o in node.outputs if o)

    def _node(
        self, pattern: tuple[Any, ...], node: Node, x: str | None, inner: frozenset[Node]
    ) -> Iterator[tuple[str | None, frozenset[Node]]]:
        op, *parts = pattern
        if node.op != op or node.domain or not _plain(node):
            return
        values: list[Any] = [n for n in node.inputs if n]
        if op == "Clip" and node.version < 11:
            values += [node.attributes.get("min"), node.attributes.get("max")]
        if len(values) != len(parts):
            return
        orders = [values, values[::-1]] if op in _COMMUTATIVE else [values]
        for order in orders:
            yield from self._parts(parts, order, x, inner)

    def _parts(
        self, parts: list[Any], values: list[Any], x: str | None, inner: frozenset[Node]
    ) -> Iterator[tuple[str | None, frozenset[Node]]]:
        if not parts:
            yield x, inner
            return
        part, value = parts[0], values[0]
        if isinstance(part, tuple):
            node = self._makers.get(value)
            ways = self._node(part, node, x, inner | {node}) if node is not None else iter(())
        elif part == X:
            ways = iter([(value, inner)] if x in (None, value) else [])
        else:
            ways = iter([(x, inner)] if self._is(value, part) else [])
        for way in ways:
            yield from self._parts(parts[1:], values[1:], *way)

    def _is(self, value: Any, wanted: float) -> bool:
        if isinstance(value, str):
            constant = self._constants.get(value)
            if constant is None or constant.tensor.numel() != 1:
                return False
            value = constant.tensor.reshape(-1)[0].item()
        return isinstance(value, int | float) and math.isclose(value, wanted, rel_tol=1e-4)


def _plain(node: Node) -> bool:
    """A hard sigmoid of another slope is not that of hard-swish."""
    if node.op != "HardSigmoid":
        return True
    alpha, beta = node.attributes.get("alpha", 0.2), node.attributes.get("beta", 0.5)
    return bool(abs(alpha - 1 / 6) < 1e-6 and beta == 0.5)

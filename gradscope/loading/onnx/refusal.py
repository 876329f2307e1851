"""Refuses what cannot be run, before anything is: every node, with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gradscope.errors import LoadError
from gradscope.loading.onnx import operators  # noqa: F401  (registers them)
from gradscope.loading.onnx.graph import Graph, Node
from gradscope.loading.onnx.registry import find, why_refused

_OLDEST, _NEWEST = 7, 28
_SHOWN = 3


@dataclass(frozen=True)
class Refused:
    """A node that cannot be run, and why."""

    node: Node
    reason: str

    def __str__(self) -> str:
        return f"{self.node}: {self.reason}"


def refused_nodes(graph: Graph) -> list[Refused]:
    """All of them, subgraphs included, in the file's order."""
    return [
        Refused(node, why_refused(node))
        for inner in graph.walk()
        for node in inner.nodes
        if find(node) is None
    ]


def check_supported(graph: Graph, where: str) -> None:
    """Raises unless every node can be run.

    Raises:
        LoadError: lists the first nodes of each reason.
    """
    version = graph.opsets.get("", _OLDEST)
    if not _OLDEST <= version <= _NEWEST:
        what = f"is of opset {version}; opsets {_OLDEST} to {_NEWEST} are known"
        hint = "Convert it with onnx.version_converter, or export it again."
        raise LoadError(what, where=where, hint=hint)
    refused = refused_nodes(graph)
    if refused:
        reasons: dict[str, list[Node]] = {}
        for item in refused:
            reasons.setdefault(item.reason, []).append(item.node)
        raise LoadError(f"no gradients: {_listed(reasons)}", where=where)


def _listed(reasons: Mapping[str, list[Node]]) -> str:
    parts = []
    for reason, nodes in reasons.items():
        kinds = ", ".join(dict.fromkeys(n.op for n in nodes))
        named = ", ".join(f"'{n.where}'" for n in nodes[:_SHOWN])
        rest = f" and {len(nodes) - _SHOWN} more" if len(nodes) > _SHOWN else ""
        parts.append(f"{kinds} at {named}{rest}: {reason}")
    return "; ".join(parts)

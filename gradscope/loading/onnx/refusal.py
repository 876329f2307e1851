"""Refuses what cannot be run, before anything is: every node, with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gradscope.errors import LoadError
from gradscope.loading.onnx import operators  # noqa: F401  (registers them)
from gradscope.loading.onnx.graph import Graph, Node
from gradscope.loading.onnx.registry import find, why_refused
from gradscope.loading.onnx.tensors import DTYPES, type_name

_OLDEST, _NEWEST = 6, 28
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
        Refused(node, reason)
        for inner in graph.walk()
        for node in inner.nodes
        if (reason := _reason(node)) is not None
    ]


def _reason(node: Node) -> str | None:
    if find(node) is None:
        return why_refused(node)
    code = node.attributes.get("to") if node.op == "Cast" else None
    if code is not None and code not in DTYPES:
        return f"there is no arithmetic for {type_name(code)}"
    return None


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
    for declared in graph.inputs:
        if declared.dtype and declared.dtype not in DTYPES:
            what = f"input '{declared.name}' is of {type_name(declared.dtype)}"
            raise LoadError(f"{what}, for which there is no arithmetic", where=where)
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

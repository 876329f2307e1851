"""How much of a large model a page holds: a browser has to open it, and a mail to carry it.

The page of a model of any size stays within some 6 MB, of which plotly.js is 5. What is left out is
said on the page, and is in the JSON report.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from gradscope.diagnosis import Inspection
from gradscope.findings import Finding

T = TypeVar("T")

MOST_PARAMETERS, MOST_ACTIVATIONS, MOST_LAYERS = 1000, 500, 500
MOST_PLACES = 100
"""Of the findings of one rule: more than anybody reads one by one."""


def bounded(inspection: Inspection) -> tuple[Inspection, dict[str, str]]:
    """The inspection for tables and charts, and by section a sentence on what is left out.

    What findings name is kept first, then what is evenly spread over the model, both ends included.
    """
    m, named = inspection.measurements, set(_named(inspection.findings))
    parameters = _kept([p.name for p in m.parameters], named, MOST_PARAMETERS)
    sites = _kept([s.id for s in m.sites], named, MOST_ACTIVATIONS)
    ledgers = [_kept([e.label for e in h.ledger.entries], named, MOST_LAYERS) for h in m.heads]
    heads = tuple(
        replace(h, ledger=replace(h.ledger, entries=_at(h.ledger.entries, kept)))
        for h, kept in zip(m.heads, ledgers, strict=True)
    )
    most = max((len(h.ledger.entries) for h in m.heads), default=0)
    said = {
        "parameters": _said(len(parameters), len(m.parameters), "parameters"),
        "activations": _said(len(sites), len(m.sites), "activations"),
        "ledger": _said(max(map(len, ledgers), default=0), most, "layers"),
    }
    less = replace(
        m, parameters=_at(m.parameters, parameters), sites=_at(m.sites, sites), heads=heads
    )
    return replace(inspection, measurements=less), said


def _said(kept: int, every: int, what: str) -> str:
    if kept == every:
        return ""
    return (
        f"{kept:,} of {every:,} {what} are shown: those that findings name, and others from all "
        "over the model. The JSON report has them all."
    )


def _named(findings: Sequence[Finding]) -> Iterator[str]:
    """Names in places such as ``0.weight, 2.weight, ...``, ``0/tanh ... 9/tanh``, ``0/relu[3]``."""
    for finding in findings:
        for place in finding.where.replace(" ... ", ", ").split(", "):
            yield place.partition("[")[0]


def _kept(names: Sequence[str], named: Collection[str], most: int) -> list[int]:
    if len(names) <= most:
        return list(range(len(names)))
    first = spread([i for i, name in enumerate(names) if name in named], most)
    taken = set(first)
    rest = spread([i for i in range(len(names)) if i not in taken], most - len(first))
    return sorted([*first, *rest])


def spread(items: Sequence[T], most: int) -> list[T]:
    """``most`` of them, the first and the last among them, evenly."""
    if len(items) <= most:
        return list(items)
    if most < 2:
        return list(items[:most])
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def _at(items: tuple[T, ...], kept: Sequence[int]) -> tuple[T, ...]:
    return tuple(items[i] for i in kept)

"""What the charts of a page are drawn from: columns of numbers, from the input to the output."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gradscope.diagnosis import Inspection
from gradscope.measurements import (
    GradientStats,
    Head,
    LedgerEntry,
    Measurements,
    Octaves,
    Parameter,
    Role,
    Site,
    Trial,
)
from gradscope.report.text import safe

MOST_CELLS = 60_000
"""Of a heat map: 500 layers at 120 rows, more than a screen can show."""
HISTOGRAM_BYTES = 350_000
"""Of the page: those of 1000 parameters."""
_KEYS = ("q05", "q25", "q50", "q75", "q95")


def chart_data(inspection: Inspection) -> dict[str, Any]:
    """All charts by name; None for one without data."""
    m = inspection.measurements
    found = {
        "ledger": [_ledger(h) for h in m.heads if len(h.ledger.entries) > 1],
        "gradients": _gradients(m.parameters),
        "units": list(_unit_views(m)),
        "time": list(_cells(m)),
        "histograms": _histograms_of(inspection),
        "trial": _trial(m.trial) if m.trial is not None else None,
    }
    return {name: data or None for name, data in found.items()}


def short(value: float | None) -> float | None:
    """Three significant digits: what a chart can show, in fewer bytes."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.3g}")


def _ledger(head: Head) -> dict[str, Any]:
    entries = head.ledger.entries[::-1]
    return {
        "name": safe(head.name),
        "labels": [safe(e.label) for e in entries],
        "notes": [_entry_note(e) for e in entries],
        "branches": [_branches(e) for e in entries],
        **{
            name: [short(getattr(e, name)) for e in entries]
            for name in ("gain", "weight", "slope", "activation")
        },
        "left": [short(e.cumulative) for e in entries],
        "leftMedian": [short(e.cumulative_median) for e in entries],
    }


def _entry_note(entry: LedgerEntry) -> str:
    notes = ["a skip connection leads around it"] if entry.bypass else []
    if len(entry.branches) > 1:
        notes.append(f"{len(entry.branches)} branches")
    return ", ".join(notes)


def _branches(entry: LedgerEntry) -> list[Any]:
    """(site, gain from the block's output) where more than one path leads through."""
    if len(entry.branches) < 2 and not entry.bypass:
        return []
    return [[safe(b.site), short(b.gain)] for b in entry.branches]


def _gradients(parameters: Sequence[Parameter]) -> dict[str, Any] | None:
    kept = [p for p in parameters if p.gradient is not None or p.loss_gradient is not None]
    if not kept:
        return None
    kinds = {"random": [p.gradient for p in kept], "loss": [p.loss_gradient for p in kept]}
    return {
        "labels": [safe(p.name) for p in kept],
        "matrix": [len(p.shape) > 1 for p in kept],
        **{
            name: _bands(stats)
            for name, stats in kinds.items()
            if any(s is not None for s in stats)
        },
    }


def _bands(stats: Sequence[GradientStats | None]) -> dict[str, Any]:
    return {
        "rms": [short(s.rms) if s is not None else None for s in stats],
        "state": [s.state.value if s is not None else "not measured" for s in stats],
        **{
            key: [short((s.quantiles or {}).get(key)) if s else None for s in stats]
            for key in _KEYS
        },
    }


def _unit_views(m: Measurements) -> Iterator[dict[str, Any]]:
    """Heat maps, units over layers: what saturates, what is off, and gates by themselves."""
    for title, share, roles in (
        ("Saturated: hidden activations", "saturated_share", (Role.HIDDEN, Role.PART)),
        ("Saturated: gates", "saturated_share", (Role.GATE,)),
        ("Off (output 0): units of the kind of ReLU", "off_share", (Role.HIDDEN, Role.PART)),
        ("Saturated: outputs", "saturated_share", (Role.OUTPUT,)),
    ):
        sites = [
            (s, getattr(s.units, share))
            for s in m.sites
            if s.role in roles and s.units is not None and getattr(s.units, share)
        ]
        if sites:
            yield _unit_view(title, sites)


def _unit_view(title: str, sites: Sequence[tuple[Site, Sequence[float]]]) -> dict[str, Any]:
    longest = max(len(shares) for _, shares in sites)
    per = max(1, math.ceil(longest * len(sites) / MOST_CELLS))
    return {
        "title": title,
        "word": title.partition(" ")[0].rstrip(":").lower(),
        "labels": [safe(s.id) for s, _ in sites],
        "counts": [s.units.count if s.units else 0 for s, _ in sites],
        "per": per,
        "cells": [
            [_whole(max(shares[i : i + per])) for i in range(0, len(shares), per)]
            for _, shares in sites
        ],
    }


def _whole(share: float) -> int | None:
    """Percent; neither 0 nor 100 unless it is."""
    if not math.isfinite(share):
        return None
    percent = round(100 * min(max(share, 0.0), 1.0))
    if percent == 0 and share > 0:
        return 1
    return 99 if percent == 100 and share < 1 else percent


def _cells(m: Measurements) -> Iterator[dict[str, Any]]:
    """Recurrent sites over time, those of one cell together."""
    cells: dict[str, list[Site]] = {}
    for s in m.sites:
        if len(s.time) > 1:
            cells.setdefault(s.id.rpartition("/")[0] or s.id, []).append(s)
    for name, sites in cells.items():
        yield {
            "name": safe(name),
            "series": [
                {
                    "name": safe(s.gate or s.kind),
                    "steps": [t.step + 1 for t in s.time],
                    "gain": [short(t.output_gain) for t in s.time],
                    "saturated": [short(t.saturated_fraction) for t in s.time],
                }
                for s in sites
            ],
        }


def _histograms_of(inspection: Inspection) -> list[dict[str, Any]]:
    """In the order of the model; if not all fit, those that findings name come first."""
    parameters = inspection.measurements.parameters
    places = " ".join(f.where for f in inspection.findings)
    found, room = {}, HISTOGRAM_BYTES
    for i in sorted(range(len(parameters)), key=lambda i: parameters[i].name not in places):
        drawn = _histograms(parameters[i])
        room -= len(json.dumps(drawn, separators=(",", ":")))
        if room < 0:
            break
        found[i] = drawn
    return [found[i] for i in sorted(found)]


def _histograms(p: Parameter) -> dict[str, Any]:
    drawn = p.weight.histogram
    return {
        "name": safe(p.name),
        "weight": drawn and drawn.counts and [short(drawn.low), short(drawn.high), drawn.counts],
        "random": _octaves(p.gradient),
        "loss": _octaves(p.loss_gradient),
        "states": [s.state.value if s else None for s in (p.weight, p.gradient, p.loss_gradient)],
    }


def _octaves(stats: GradientStats | None) -> list[Any] | None:
    octaves: Octaves | None = stats.octaves if stats is not None else None
    return None if octaves is None or not octaves.counts else [octaves.lowest, octaves.counts]


def _trial(trial: Trial) -> Mapping[str, Any]:
    untreated = (trial.untreated, *trial.others)
    names = [f"as it is, {a.how}" if trial.others else "as it is" for a in untreated]
    arms = (*zip(names, untreated, strict=True), ("repaired", trial.repaired))
    return {
        "metric": trial.metric,
        "chance": short(trial.chance),
        "arms": [
            {"name": name, "steps": a.steps, "score": [short(s) for s in a.score],
             "loss": [short(v) for v in a.loss]}
            for name, a in arms
        ],
    }  # fmt: skip

"""Places in a model as a user would name them."""

from __future__ import annotations

from collections.abc import Sequence

from gradscope.measurements import Measurements, Site

_SHOWN = 6


def place(measured: Measurements, site: Site) -> str:
    """``layers.3/tanh``; ``encoder.lstm forget gate``, the layer named where there are several."""
    if site.gate is None:
        return site.id
    cell = site.id.rpartition("/")[0]
    stem, _, number = cell.rpartition(".")
    alone = all(
        s.id.rpartition("/")[0] == cell or s.layer != site.layer
        for s in measured.sites
        if s.gate is not None
    )
    shown = stem if alone and number == "l0" and stem else cell
    noun = "" if site.gate == "state" else " gate"
    return f"{shown} {site.gate}{noun}"


def indexed(where: str, indices: Sequence[int], count: int) -> str:
    """``layers.3/tanh[0, 4, 17, ...]``."""
    shown = ", ".join(map(str, indices[:_SHOWN]))
    return f"{where}[{shown}{', ...' if count > len(indices[:_SHOWN]) else ''}]"


def listed(names: Sequence[str], shown: int = 3) -> str:
    """``a, b, c, ...``."""
    return ", ".join(names[:shown]) + (", ..." if len(names) > shown else "")


def plural(count: int, noun: str) -> str:
    """``1 unit``, ``2 units``; ``matrix`` becomes ``matrices``."""
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {noun[:-2]}ices" if noun.endswith("ix") else f"{count:,} {noun}s"

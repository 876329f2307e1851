"""Shares with their intervals, and tables of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np


def wilson(hits: int, n: int) -> tuple[float, float]:
    """95 % interval of a share. Models of one family are alike, so it is an optimistic one."""
    if not n:
        return 0.0, 1.0
    z, p = 1.96, hits / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def by_family(hits: Sequence[tuple[str, bool]]) -> tuple[float, float]:
    """95 % interval of the share of True, from 1000 draws of whole families with replacement."""
    groups: dict[str, list[bool]] = {}
    for family, hit in hits:
        groups.setdefault(family, []).append(hit)
    counts = np.array([(sum(g), len(g)) for g in groups.values()])
    rows = np.random.default_rng(0).integers(0, len(counts), (1000, len(counts)))
    drawn = counts[rows].sum(1)
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], (0.025, 0.975))
    return float(low), float(high)


def share(hits: int, n: int) -> str:
    """``.970 (97/100; .915-.990)``."""
    if not n:
        return "-"
    return f"{_short(hits / n)} ({hits}/{n}; {_range(wilson(hits, n))})"


def shared(hits: Sequence[tuple[str, bool]]) -> str:
    """The same with the interval over families behind it; hits are (family, hit)."""
    if not hits:
        return "-"
    plain = share(sum(hit for _, hit in hits), len(hits))
    return f"{plain[:-1]}; families {_range(by_family(hits))})"


def _short(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def _range(limits: tuple[float, float]) -> str:
    return "-".join(map(_short, limits))


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Markdown."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return [*lines, *("| " + " | ".join(str(c) for c in row) + " |" for row in rows), ""]

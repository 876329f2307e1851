"""Shares with their intervals, and tables of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence


def wilson(hits: int, n: int) -> tuple[float, float]:
    """95 % interval of a share. Models of one family are alike, so it is an optimistic one."""
    if not n:
        return 0.0, 1.0
    z, p = 1.96, hits / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def share(hits: int, n: int) -> str:
    """``.970 (97/100; .915-.990)``."""
    if not n:
        return "-"
    low, high = (f"{v:.3f}".removeprefix("0") for v in wilson(hits, n))
    return f"{f'{hits / n:.3f}'.removeprefix('0')} ({hits}/{n}; {low}-{high})"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Markdown."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return [*lines, *("| " + " | ".join(str(c) for c in row) + " |" for row in rows), ""]

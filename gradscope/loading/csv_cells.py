"""Cells of a CSV file as numbers, and what each column holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

_MISSING = {"", "na", "n/a", "nan", "null", "none", "?"}
_TRUTH = {"true": "1", "false": "0"}


class Kind(IntEnum):
    """What a column holds; a later one includes the earlier ones."""

    INTEGER = 0
    REAL = 1
    TRUTH = 2
    TEXT = 3


def missing(cell: str) -> bool:
    """Whether a cell says that there is no value."""
    return cell.strip().casefold() in _MISSING


def is_number(cell: str) -> bool:
    """Whether a cell holds a number. ``1_000`` is none, though Python would read it."""
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell and not missing(cell)


def truth(cell: str) -> str:
    """``true`` and ``false`` as 1 and 0, anything else unchanged."""
    return _TRUTH.get(cell.strip().casefold(), cell)


@dataclass
class Profile:
    """What the columns of a file hold, as far as it has been read.

    Attributes:
        kinds: one a column.
        gaps: number of column -> [cells without a value, line of the first].
        texts: number of column -> (line, cell) of its first text.
    """

    kinds: np.ndarray
    gaps: dict[int, list[int]] = field(default_factory=dict)
    texts: dict[int, tuple[int, str]] = field(default_factory=dict)

    @staticmethod
    def of(columns: int) -> Profile:
        """Nothing read yet."""
        return Profile(np.zeros(columns, np.uint8))

    def add(self, rows: Sequence[Sequence[str]], lines: Sequence[int]) -> None:
        """Learn from some rows of equal length."""
        odd = any("_" in "".join(row) for row in rows)
        if not odd and not self.kinds.any() and _numbers(rows, np.int64) is not None:
            return
        for i, cells in enumerate(zip(*rows, strict=True)):
            self._column(i, cells, lines, odd)

    def _column(self, i: int, cells: Sequence[str], lines: Sequence[int], odd: bool) -> None:
        if not odd or not any("_" in c for c in cells):
            if self.kinds[i] == Kind.INTEGER and _numbers(cells, np.int64) is not None:
                return
            real = _numbers(cells, np.float64)
            if real is not None and not np.isnan(real).any():
                self.kinds[i] = max(self.kinds[i], Kind.REAL)
                return
        self._cells(i, cells, lines)

    def _cells(self, i: int, cells: Sequence[str], lines: Sequence[int]) -> None:
        kind = Kind(self.kinds[i])
        for cell, line in zip(cells, lines, strict=True):
            if missing(cell):
                self.gaps.setdefault(i, [0, line])[0] += 1
            elif is_number(cell):
                kind = max(kind, Kind.INTEGER if _is_integer(cell) else Kind.REAL)
            elif cell.strip().casefold() in _TRUTH:
                kind = max(kind, Kind.TRUTH)
            else:
                kind = Kind.TEXT
                self.texts.setdefault(i, (line, cell))
        self.kinds[i] = kind


def _numbers(cells: Sequence[str] | Sequence[Sequence[str]], dtype: type) -> np.ndarray | None:
    try:
        return np.array(cells, dtype=dtype)
    except (ValueError, OverflowError):
        return None


def _is_integer(cell: str) -> bool:
    try:
        return -(2**63) <= int(cell) < 2**63
    except ValueError:
        return False

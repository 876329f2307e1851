"""Tables of a page: cells, and footnotes that say why a number was not measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from string import ascii_lowercase

from gradscope.measurements import Measurements
from gradscope.report.text import number, safe


@dataclass(frozen=True)
class Column:
    """A heading, whether its cells are numbers, and what it means."""

    title: str
    numeric: bool = True
    meaning: str = ""


@dataclass(frozen=True)
class Cell:
    """What one cell shows.

    Attributes:
        text: to be read.
        order: to sort by, where that is not the text itself.
        missing: why there is no number; shown in a footnote.
    """

    text: str
    order: str | None = None
    missing: str | None = None


@dataclass
class Table:
    """Built row by row; footnotes say why numbers are missing.

    Attributes:
        id: unique on the page.
        caption: what it holds.
        columns: the first one names the row.
        sortable: whether a reader would want to sort and filter it.
        rows: cells, as many as columns.
    """

    id: str
    caption: str
    columns: Sequence[Column]
    sortable: bool = False
    rows: list[list[Cell]] = field(default_factory=list)

    def add(self, *cells: Cell | str) -> None:
        """One row."""
        self.rows.append([c if isinstance(c, Cell) else Cell(safe(c)) for c in cells])

    def shown(self) -> list[int]:
        """Columns to show: those in which something was measured."""
        if not self.rows:
            return list(range(len(self.columns)))
        every = range(len(self.columns))
        return [i for i in every if any(row[i].missing is None for row in self.rows)]

    def left_out(self) -> list[tuple[str, str]]:
        """(title, reason) of the columns in which nothing was."""
        out = sorted(set(range(len(self.columns))) - set(self.shown()))
        return [(self.columns[i].title, self.rows[0][i].missing or "") for i in out]

    def notes(self) -> dict[str, str]:
        """Reason -> letter of its footnote, in the order of the table."""
        shown = self.shown()
        reasons = dict.fromkeys(row[i].missing for row in self.rows for i in shown)
        return {why: _letter(n) for n, why in enumerate(why for why in reasons if why)}

    def meanings(self) -> list[tuple[str, str]]:
        """(title, meaning) of the shown columns that need one."""
        columns = [self.columns[i] for i in self.shown()]
        return [(c.title, c.meaning) for c in columns if c.meaning]

    def number(self, value: float | None, reason: str, digits: int = 2) -> Cell:
        """A number, or "not measured" with its reason."""
        if value is None or not math.isfinite(value):
            return missing(reason)
        return Cell(number(value, digits))

    def decades(self, value: float | None, reason: str) -> Cell:
        """log10 with a sign: ``-0.31``."""
        if value is None or not math.isfinite(value):
            return missing(reason)
        return Cell(signed(value))

    def share(self, value: float | None, reason: str) -> Cell:
        """A share as a percentage."""
        if value is None or not math.isfinite(value):
            return missing(reason)
        text = percent(value)
        return Cell(text, None if text in ("0%", "100%") else f"{100 * value:.4g}")


def missing(reason: str) -> Cell:
    """Not measured, and why."""
    return Cell("–", missing=safe(reason) or "no reason is known")


def signed(value: float | None) -> str:
    """``-0.31``, ``+0.20``; never ``-0.00``."""
    if value is None or not math.isfinite(value):
        return "–"
    rounded = round(value, 2) + 0.0
    return f"{rounded:+.2f}" if rounded else "0.00"


def percent(value: float) -> str:
    """``3%``, ``0.2%``; what is not 0 is not shown as 0, nor what is not all as all."""
    shown = f"{100 * value:.0f}%"
    if shown == "0%" and value > 0:
        return f"{100 * value:.1f}%" if value >= 0.0005 else "<0.1%"
    return ">99%" if shown == "100%" and value < 1 else shown


def why(m: Measurements, *words: str, otherwise: str) -> str:
    """The reason that the measurement gives for skipping what has one of ``words`` in its name."""
    for skipped in m.skipped:
        if any(word in skipped.what for word in words):
            return skipped.reason
    return otherwise


def _letter(index: int) -> str:
    """a, b, ..., z, aa, ab, ..."""
    text = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, 26)
        text = ascii_lowercase[rest] + text
    return text

"""A comparison as a page: one small file without scripts; its chart is drawn here, as SVG."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gradscope.comparing import Comparison
from gradscope.report.base import Canvas
from gradscope.report.compare_rows import (
    columns,
    counts,
    figure,
    headline,
    improvements,
    outcomes,
    spans,
    told,
)
from gradscope.report.html.page import rendered
from gradscope.report.html.tables import Cell, Column, Table, missing, signed

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _EDGE = 960, 320, 48, 36, 16
_COLOURS = 6
_NOWHERE = "it has no such place, or nothing was measured there"


@dataclass(frozen=True)
class Line:
    """One subject in the chart: runs of joined points, and (x, y, text) of each."""

    letter: str
    colour: int
    runs: tuple[str, ...]
    dots: tuple[tuple[float, float, str], ...]
    shift: float


@dataclass(frozen=True)
class Plot:
    """The chart: its size, (y, text) of the grid, and the lines."""

    width: int
    height: int
    left: int
    right: int
    ticks: tuple[tuple[float, str], ...]
    lines: tuple[Line, ...]


class ComparePage:
    """All text from outside is escaped by jinja; the page's policy lets nothing run."""

    name = "html"
    document = True

    def render(self, comparison: Comparison, canvas: Canvas) -> str:
        """The whole document, ending with a newline."""
        return rendered("comparison.html.j2", _content(comparison))


def _content(c: Comparison) -> dict[str, Any]:
    return {
        "c": c,
        "headline": headline(c),
        "state": "undetermined" if c.refused else "unhealthy" if c.is_regression else "healthy",
        "outcomes": outcomes(c),
        "improvements": improvements(c),
        "subjects": _subjects(c),
        "trends": _trends(c) if c.trends else None,
        "ledger": _ledger(c) if c.rows else None,
        "plot": _plot(c),
        "findings": _findings(c),
    }


def _subjects(c: Comparison) -> Table:
    shown = columns(c)
    heads = [Column("Letter", False), Column("Model or report", False), Column("Verdict", False)]
    heads += [Column(title.capitalize()) for title, _ in shown]
    table = Table("subjects", "What is compared", [*heads, Column("Findings", False)])
    for s in c.subjects:
        cells = [cell(s.figures) for _, cell in shown]
        numbers = [missing("not in this one") if text == "-" else Cell(text) for text in cells]
        table.add(s.letter, s.path, s.verdict.value, *numbers, counts(s))
    return table


def _trends(c: Comparison) -> Table:
    heads = [Column("Figure", False), Column("Trend", False)]
    table = Table("trends", "Trend", heads + [Column(s.letter) for s in c.subjects])
    for trend in c.trends:
        cells = [
            missing("not in this one") if v is None else Cell(figure(trend.figure, v))
            for v in trend.values
        ]
        table.add(trend.figure, trend.word, *cells)
    return table


def _ledger(c: Comparison) -> Table:
    heads = [Column("Place", False), *(Column(s.letter) for s in c.subjects)]
    table = Table("ledger", "Decades left", heads)
    for row in c.rows:
        cells = [missing(_NOWHERE) if v is None else Cell(signed(v)) for v in row.left]
        table.add(row.label, *cells)
    return table


def _findings(c: Comparison) -> Table | None:
    found = told(c)
    titles = ("Change", "Severity", "Rule", "Place", "What", "In")
    table = Table("findings", "Findings that changed", [Column(t, False) for t in titles])
    for t in found:
        severity = t.severity.value if t.severity is not None else ""
        table.add(t.state, severity, t.rule, t.where, t.message, spans(t.letters, c))
    return table if found else None


def _plot(c: Comparison) -> Plot:
    """The first layer stands on the left, as on the page of one model."""
    rows = tuple(reversed(c.rows))
    known = [v for row in rows for v in row.left if v is not None]
    low, high = math.floor(min([-1.0, *known])), math.ceil(max([0.0, *known]))
    inner, right = _HEIGHT - 2 * _EDGE, _WIDTH - _RIGHT

    def y(value: float) -> float:
        return round(_EDGE + (high - value) / (high - low) * inner, 1)

    def x(i: int) -> float:
        return round(_LEFT + 10 + i / max(len(rows) - 1, 1) * (right - _LEFT - 20), 1)

    step = max(1, math.ceil((high - low) / 8))
    ticks = tuple((y(v), str(v)) for v in range(low, high + 1, step))
    lines = []
    for k, subject in enumerate(c.subjects):
        points = [(x(i), y(v), f"{subject.letter}, {row.label}: {signed(v)}")
                  if (v := row.left[k]) is not None else None
                  for i, row in enumerate(rows)]  # fmt: skip
        dots = tuple(p for p in reversed(points) if p is not None)
        shift = 4.0 + 12 * (k - (len(c.subjects) - 1) / 2) if len(c.subjects) <= _COLOURS else 4.0
        lines.append(Line(subject.letter, k % _COLOURS, tuple(_runs(points)), dots, shift))
    return Plot(_WIDTH, _HEIGHT, _LEFT, right, ticks, tuple(line for line in lines if line.dots))


def _runs(points: Sequence[tuple[float, float, str] | None]) -> Iterator[str]:
    """Points that follow one another, as SVG takes them; a gap ends a run."""
    run: list[str] = []
    for point in (*points, None):
        if point is not None:
            run.append(f"{point[0]},{point[1]}")
            continue
        if run:
            yield " ".join(run)
        run = []


FORMAT = ComparePage()

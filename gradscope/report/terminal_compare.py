"""A comparison for people: subjects, ledgers side by side, findings that changed, what now."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gradscope.comparing import Comparison, Trend
from gradscope.report.base import Canvas
from gradscope.report.compare_rows import (
    columns,
    counts,
    figure,
    folded,
    grouped,
    headline,
    improvements,
    outcomes,
    spans,
    told,
)
from gradscope.report.terminal_page import COLOURS, Page, show_commands
from gradscope.report.text import count, decades, shorten, shorten_places

_LABEL, _NUMBER = 20, 7
_CYCLE = ("cyan", "magenta", "yellow", "green", "blue", "red")


class TerminalCompare:
    """Every subject is a letter; the first one is what the others are compared with."""

    name = "terminal"
    document = False

    def render(self, comparison: Comparison, canvas: Canvas) -> str:
        """The report, ending with a newline."""
        page = Page(canvas)
        _subjects(page, comparison)
        if comparison.refused or comparison.notes:
            page.line("")
        for refused in comparison.refused:
            page.line((refused.letter, "bold"), "  ", shorten(refused.path, page.width - 3))
            page.wrapped("   REFUSED  ", "bold magenta", refused.error)
        for note in comparison.notes:
            page.wrapped("note  ", "cyan", note)
        _trends(page, comparison.trends)
        if comparison.rows:
            _ledger(page, comparison)
        _findings(page, comparison)
        _outcome(page, comparison)
        if comparison.next:
            page.title("What now")
            show_commands(page, comparison.next)
        return page.text()


def _colour(index: int) -> str:
    return _CYCLE[index % len(_CYCLE)]


def _subjects(page: Page, comparison: Comparison) -> None:
    """A line of names each, then a table of numbers."""
    wide = max(len(s.letter) for s in comparison.subjects)
    for i, s in enumerate(comparison.subjects):
        name = f"{s.path} ({s.model})" if s.saved and s.model != s.path else s.path
        about = f"{'report' if s.saved else s.format}, {count(s.parameters, 'parameter')}"
        room = page.width - wide - 4 - len(about)
        lead = (s.letter.ljust(wide), f"bold {_colour(i)}")
        if room < 24:
            page.line(lead, "  ", shorten(name, page.width - wide - 2))
            page.line(" " * (wide + 2), (about, "dim"))
        else:
            page.line(lead, "  ", shorten(name, room), "  ", (about, "dim"))
    shown = columns(comparison)
    widths = [
        max(len(title), 5, *(len(cell(s.figures)) for s in comparison.subjects))
        for title, cell in shown
    ]
    heads = "".join(t.rjust(w + 2) for (t, _), w in zip(shown, widths, strict=True))
    page.line("")
    page.line((f"{' ' * wide}  {'verdict':<12}{heads}  findings", "bold"))
    for i, s in enumerate(comparison.subjects):
        cells = "".join(
            cell(s.figures).rjust(w + 2) for (_, cell), w in zip(shown, widths, strict=True)
        )
        page.line(
            (s.letter.ljust(wide), f"bold {_colour(i)}"), "  ",
            (f"{s.verdict.value:<12}", COLOURS[s.verdict]), f"{cells}  {counts(s)}",
        )  # fmt: skip


def _trends(page: Page, trends: Sequence[Trend]) -> None:
    if not trends:
        return
    page.title("Trend")
    told = [[figure(trend.figure, v) for v in trend.values] for trend in trends]
    wide = max(_NUMBER, 2 + max(len(text) for values in told for text in values))
    fit = max((page.width - _LABEL) // wide, 2)
    for trend, values in zip(trends, told, strict=True):
        cells = "".join(values[i].rjust(wide) for i in _spread(len(values), fit))
        page.line(f"  {trend.figure:<10}", (f"{trend.word:<8}", "bold"), cells)


def _ledger(page: Page, comparison: Comparison) -> None:
    """A column a subject, as many as fit, and a plot of all that are shown."""
    letters = [s.letter for s in comparison.subjects]
    fit = max((page.width - _LABEL - 2) // _NUMBER, 2)
    shown = _spread(len(letters), fit)
    left_out = len(letters) - len(shown)
    page.title("Decades left", f"{left_out} subjects not shown" if left_out else "")
    two = len(letters) == 2
    heads: list[str | tuple[str, str]] = [" " * _LABEL]
    heads += [(letters[i].rjust(_NUMBER), f"bold {_colour(i)}") for i in shown]
    heads += [("  change", "bold")] if two else []
    rows = list(folded(comparison.rows, fold=not page.canvas.all_layers))
    low, high = _range([row.left[i] for row, _ in rows for i in shown])
    used = _LABEL + _NUMBER * len(shown) + (8 if two else 0)
    room = min(page.width - used - 3, 60)
    plot = room >= 16
    ends = decades(low), decades(high)
    scale = f"{ends[0]}{ends[1].rjust(room - len(ends[0]))}" if plot else ""
    page.line(*heads, f"   {scale}")
    for row, stands_for in rows:
        label = f"  : {row.label}" if stands_for > 1 else shorten(row.label, _LABEL - 1)
        parts: list[str | tuple[str, str]] = [label.ljust(_LABEL)]
        parts += [decades(row.left[i]).rjust(_NUMBER) for i in shown]
        if two:
            parts.append(_difference(row.left[0], row.left[1]).rjust(8))
        if plot:
            parts += ["   ", *_plot([(letters[i], row.left[i], i) for i in shown], low, high, room)]
        page.line(*parts)


def _spread(count: int, most: int) -> list[int]:
    """``most`` of them, the first and the last among them, evenly."""
    if count <= most:
        return list(range(count))
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})


def _range(values: Sequence[float | None]) -> tuple[float, float]:
    """The ends of the plot: a decade at least, so that small differences look small."""
    known = [v for v in values if v is not None and math.isfinite(v)]
    return min(-1.0, *known, 0.0), max(0.0, *known, 0.0)


def _difference(first: float | None, last: float | None) -> str:
    if first is None or last is None:
        return "-"
    rounded = round(last - first, 1) + 0.0
    return f"{rounded:+.1f}" if rounded else "0.0"


def _plot(
    points: Sequence[tuple[str, float | None, int]], low: float, high: float, room: int
) -> list[str | tuple[str, str]]:
    """Letters on a line from the lowest value to the highest; ``*`` where several meet."""
    at: dict[int, tuple[str, str]] = {}
    for letter, value, index in points:
        if value is not None:
            place = round((value - low) / (high - low) * (room - 1))
            meets = place in at
            at[place] = ("*", "bold") if meets else (letter[-1], f"bold {_colour(index)}")
    return [at.get(i, (".", "dim")) for i in range(room)]


def _findings(page: Page, comparison: Comparison) -> None:
    page.title("Findings that changed")
    found = told(comparison)
    if not found:
        page.line("  none")
    for group in grouped(found):
        item = group[0]
        severity = item.severity.value if item.severity is not None else ""
        lead = f"  {item.state:<6} {severity:<11}  {item.rule}"
        colour = "green" if item.severity is None else COLOURS[item.severity]
        # Of two, what changed did so in the second.
        two = len(comparison.subjects) == 2
        inside = "" if two else f"  in {spans(item.letters, comparison)}"
        more = f" and {len(group) - 1} more" if len(group) > 1 else ""
        room = page.width - len(lead) - 2 - len(inside) - len(more)
        where = f"{shorten_places(item.where, max(room, 16))}{more}"
        if room >= 16:
            page.line((lead, colour), "  ", where, (inside, "dim"))
        else:
            page.line((lead, colour), (shorten(inside, page.width - len(lead)), "dim"))
            page.line(" " * 9, where)
        if item.message:
            page.wrapped(" " * 9, "", item.message)


def _outcome(page: Page, comparison: Comparison) -> None:
    page.line("")
    first = comparison.subjects[0].letter
    if comparison.refused:
        page.line((f"{headline(comparison)}.", "bold magenta"))
    if not comparison.is_regression:
        page.line((f"Nothing got worse than in {first}.", "green"))
    for letters, text in outcomes(comparison):
        page.wrapped(f"{letters} worse than {first}: ", "bold red", text)
    for letters, text in improvements(comparison):
        page.wrapped(f"{letters} better than {first}: ", "bold green", text)


FORMAT = TerminalCompare()

"""A comparison as Markdown, for a job's summary or a comment."""

from __future__ import annotations

from gradscope.comparing import Comparison
from gradscope.report.base import Canvas
from gradscope.report.check_entries import relative
from gradscope.report.check_markdown import MOST, bullets, commands, escaped, table
from gradscope.report.compare_rows import (
    columns,
    counts,
    figure,
    folded,
    headline,
    spans,
    told,
)
from gradscope.report.text import decades


class CompareMarkdown:
    """Texts of models and reports are escaped, paths as in a check's."""

    name = "markdown"
    document = False

    def render(self, comparison: Comparison, canvas: Canvas) -> str:
        """The page, ending with a newline."""
        c = comparison
        mark = "⛔" if c.refused else "❌" if c.is_regression else "✅"
        parts = [f"## gradscope compare: {mark} {headline(c)}\n", _subjects(c)]
        refused = [f"{r.letter}, {relative(r.path)}: {r.error}" for r in c.refused]
        parts += [bullets(refused)] if refused else []
        parts += [bullets(c.notes)] if c.notes else []
        parts += [_regressions(c)] if c.is_regression else []
        parts += [_trends(c)] if c.trends else []
        parts += [_ledger(c, fold=not canvas.all_layers)] if c.rows else []
        parts += [_findings(c), *([commands(c.next)] if c.next else [])]
        return "\n".join(parts)


def _subjects(c: Comparison) -> str:
    shown = columns(c)
    titles = (
        "Letter",
        "Model or report",
        "Verdict",
        *(t.capitalize() for t, _ in shown),
        "Findings",
    )
    rows = [
        [s.letter, escaped(relative(s.path)), s.verdict.value,
         *(cell(s.figures) for _, cell in shown), counts(s)]
        for s in c.subjects
    ]  # fmt: skip
    return table(titles, rows)


def _regressions(c: Comparison) -> str:
    texts = [f"{ch.letter}: {text}" for ch in c.changes for text in ch.regressions]
    more = [f"and {len(texts) - MOST} more"] if len(texts) > MOST else []
    first = c.subjects[0].letter
    return f"Worse than {first}:\n\n{bullets([*texts[:MOST], *more])}"


def _trends(c: Comparison) -> str:
    letters = [s.letter for s in c.subjects]
    rows = [[t.figure, t.word, *(figure(t.figure, v) for v in t.values)] for t in c.trends]
    return table(("Trend", "", *letters), rows)


def _ledger(c: Comparison, *, fold: bool) -> str:
    titles = ("Decades left", *(s.letter for s in c.subjects))
    shown = folded(c.rows, fold=fold)
    rows = [[escaped(row.label), *map(decades, row.left)] for row, _ in shown]
    return table(titles, rows)


def _findings(c: Comparison) -> str:
    found = told(c)
    if not found:
        return "No finding changed.\n"
    rows = [
        [t.state, t.severity.value if t.severity else "", escaped(t.rule), escaped(t.where),
         escaped(t.message), spans(t.letters, c)]
        for t in found[:MOST]
    ]  # fmt: skip
    more = f"\nand {len(found) - MOST} more\n" if len(found) > MOST else ""
    return table(("Change", "Severity", "Rule", "Place", "What", "In"), rows) + more


FORMAT = CompareMarkdown()

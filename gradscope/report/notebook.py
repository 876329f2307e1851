"""What a notebook shows of an inspection: a small fragment of HTML that needs nothing else.

Colours and sizes stand at the elements: notebooks share one page, and viewers drop style sheets.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from gradscope.diagnosis import Inspection, Verdict
from gradscope.findings import Finding
from gradscope.measurements import Measurements
from gradscope.report.figures import figures
from gradscope.report.profile import Row, rows
from gradscope.report.text import count, decades, safe

_COLOURS = {
    Verdict.HEALTHY: "#1a7f37",
    Verdict.WARNING: "#8a5a00",
    Verdict.UNHEALTHY: "#b42318",
    Verdict.UNDETERMINED: "#0b6b83",
}
_BARS = (("weights", "#a855a8"), ("slope", "#c9a227"), ("derivative", "#3b82c4"))
_MOST = 20  # rows of the ledger and of the findings
_CELL = "padding:1px 10px 1px 0;text-align:left;vertical-align:top"
_DIM = "opacity:.7"


def as_html(inspection: Inspection) -> str:
    """A fragment: verdict, the main numbers, the ledger as bars, findings, what was not measured.

    Every text of a model is escaped. Long lists are cut, and say so.
    """
    m, diagnosis = inspection.measurements, inspection.diagnosis
    badge = (
        f'<span style="background:{_COLOURS[diagnosis.verdict]};color:#fff;border-radius:3px;'
        f'padding:1px 8px;font-weight:600">{_text(diagnosis.verdict.value.upper())}</span>'
    )
    parts = [
        f"<div>{badge} <b>{_text(m.model.path)}</b> "
        f'<span style="{_DIM}">{_text(_what(m))}</span></div>',
        f'<div style="margin:4px 0">{_text(diagnosis.summary)}</div>',
        *_paragraph(diagnosis.settle and f"What would settle it: {diagnosis.settle}"),
        *_paragraph(diagnosis.advice),
        f'<div style="{_DIM}">{_text(" · ".join(figures(m)))}</div>',
        *_ledger(m),
        *_findings(inspection.findings),
        *_skipped(m),
    ]
    style = "font:13px/1.5 system-ui,sans-serif;max-width:900px"
    return f'<div class="gradscope" style="{style}">{"".join(parts)}</div>'


def _text(text: str) -> str:
    return escape(safe(text))


def _paragraph(text: str | None) -> list[str]:
    return [f"<div>{_text(text)}</div>"] if text else []


def _what(m: Measurements) -> str:
    parts = [m.model.format, count(m.model.parameters, "parameter")]
    if m.sample.synthetic:
        parts.append("made-up input: no verdict rests on it alone")
    elif m.heads:
        labels = "labels" if m.sample.labels else "no labels"
        parts.append(f"{count(m.sample.samples, 'sample')}, {labels}")
    return ", ".join(parts)


def _ledger(m: Measurements) -> list[str]:
    """One bar an entry, from the output's side to the input's."""
    if m.ledger is None or len(m.ledger.entries) < 2:
        return []
    found = rows(m.ledger, fold=True)
    shown = found if len(found) <= _MOST else [*found[: _MOST - 1], found[-1]]
    longest = max((r.weight + r.slope + r.activation for r in shown), default=0.0)
    scale = 300 / max(longest, 3.0)
    legend = " ".join(
        f'<span style="background:{colour};display:inline-block;width:10px;height:10px"></span> '
        f"{name}"
        for name, colour in _BARS
    )
    lines = [_row([_text(r.label), decades(r.left), _bar(r, scale)]) for r in shown]
    head = f"<b>Where the gradient goes</b>, decades left; lost to: {legend}"
    return [f'<div style="margin-top:6px">{head}</div>', _table(lines)]


def _bar(row: Row, scale: float) -> str:
    blocks = "".join(
        f'<span style="background:{colour};display:inline-block;height:9px;'
        f'width:{max(value, 0.0) * scale:.0f}px"></span>'
        for (_, colour), value in zip(_BARS, (row.weight, row.slope, row.activation), strict=True)
    )
    return f'<span style="white-space:nowrap">{blocks}</span>'


def _findings(findings: Sequence[Finding]) -> list[str]:
    if not findings:
        return ['<div style="margin-top:6px"><b>Findings</b>: none</div>']
    lines = [
        _row([_text(f.severity.value), _text(f"{f.code} {f.name}"),
              f"<code>{_text(f.where)}</code><br>{_text(f.message)}"])
        for f in findings[:_MOST]
    ]  # fmt: skip
    rest = len(findings) - len(lines)
    lines += [_row([f"and {rest} more"])] if rest else []
    return ['<div style="margin-top:6px"><b>Findings</b></div>', _table(lines)]


def _skipped(m: Measurements) -> list[str]:
    if not m.skipped:
        return []
    items = "".join(f"<li>{_text(f'{s.what}: {s.reason}')}</li>" for s in m.skipped[:_MOST])
    return [f"<details><summary>Not measured: {len(m.skipped)}</summary><ul>{items}</ul></details>"]


def _row(cells: Iterable[str]) -> str:
    return "<tr>" + "".join(f'<td style="{_CELL}">{c}</td>' for c in cells) + "</tr>"


def _table(lines: Iterable[str]) -> str:
    style = "border-collapse:collapse;font:inherit;color:inherit"
    return f'<table style="{style}">{"".join(lines)}</table>'

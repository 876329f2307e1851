"""Markdown, for the summary of a job or a comment: a table of models, and what was found."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from gradscope.checking import CheckResult, ModelCheck
from gradscope.findings import Severity
from gradscope.report.base import Canvas
from gradscope.report.check_concise import summary_line
from gradscope.report.check_entries import Entry, Kind, of_model, relative
from gradscope.report.text import safe

MOST = 50
"""Findings shown of one model: a summary may have 1 MiB."""

MODEL_COLUMNS = ("Model", "Verdict", "Errors", "Warnings", "Known", "Ignored", "Result")
ENTRY_COLUMNS = ("Severity", "Rule", "Place", "What", "State")

_MARKS = {0: "✅ passed", 1: "❌ failed", 2: "⛔ refused", 3: "⛔ not measured"}
_SPECIAL = re.compile(r"([\\`*_\[\]|~$])")


class Markdown:
    """For GitHub, GitLab and whatever else reads tables. Texts of a model are escaped."""

    name = "markdown"
    document = False

    def render(self, result: CheckResult, canvas: Canvas) -> str:
        """The page, ending with a newline."""
        s = result.summary
        heading = f"## gradscope: {_MARKS.get(s.exit_status, 'failed')}"
        rows = [list(map(escaped, model_cells(model))) for model in result.models]
        parts = [
            f"{heading}\n\n{escaped(summary_line(result))}\n",
            table(MODEL_COLUMNS, rows),
            *(block for model in result.models for block in _details(result, model)),
            *([bullets(result.notes)] if result.notes else []),
            *([commands(result.next)] if result.next else []),
        ]
        return "\n".join(parts)


def model_cells(model: ModelCheck) -> list[str]:
    """One model's row under :data:`MODEL_COLUMNS`; texts of the model are as they are."""
    counted = [f.severity for f in model.counted]
    return [
        relative(model.path),
        "-" if model.verdict is None else model.verdict.value,
        str(counted.count(Severity.ERROR)),
        str(counted.count(Severity.WARNING)),
        str(len(model.known)),
        str(len(model.ignored)),
        f"{_MARKS.get(model.exit_status, 'failed')}: {model.why}",
    ]


def _details(result: CheckResult, model: ModelCheck) -> Iterator[str]:
    """Verdict, findings and what was not measured; nothing of a model without any of them."""
    found = [e for e in of_model(result, model) if e.kind not in (Kind.VERDICT, Kind.REFUSED)]
    if model.error is not None or not (found or model.fixed or model.skipped or model.exit_status):
        return
    lines = [f"<details{' open' if model.exit_status else ''}>"]
    lines += [f"<summary>{_html(relative(model.path))}</summary>\n"]
    if model.verdict is not None and model.summary is not None:
        lines += [f"**{model.verdict.value}**: {escaped(model.summary)}\n"]
    if model.advice:
        lines += [f"{_line(model.advice)}\n"]
    if found:
        rows = [list(map(escaped, entry_cells(e))) for e in found[:MOST]]
        lines += [table(ENTRY_COLUMNS, rows)]
    if len(found) > MOST:
        lines += [f"and {len(found) - MOST} more: see the other reports of this run\n"]
    if model.fixed:
        lines += ["Fixed:\n", bullets(f"{f.code} {f.name}: {f.where}" for f in model.fixed)]
    if model.skipped:
        lines += ["Not measured:\n", bullets(f"{s.what}: {s.reason}" for s in model.skipped[:MOST])]
    yield "\n".join([*lines, "</details>\n"])


def entry_cells(entry: Entry) -> list[str]:
    """One finding's row under :data:`ENTRY_COLUMNS`; texts of the model are as they are."""
    state = f"{entry.kind.value}: {entry.reason}" if entry.reason else entry.kind.value
    return [
        entry.severity.value,
        f"{entry.code} {entry.name}",
        entry.where,
        entry.message,
        state,
    ]


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells as they are: :func:`escaped` first what is not ours."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def bullets(texts: Iterable[str]) -> str:
    """A list of texts from anywhere."""
    return "".join(f"- {_line(text)}\n" for text in texts)


def commands(commands: Iterable[tuple[str, str]]) -> str:
    """In a block that no command can end: longer than every run of backticks in it."""
    lines = [safe(line) for command, why in commands for line in (f"# {why}", command)]
    longest = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return "\n".join(["What now:\n", f"{fence}sh", *lines, f"{fence}\n"])


def _html(text: str) -> str:
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(character, entity)
    return text


def escaped(text: str) -> str:
    """Shown as it is: no tag, no link, no end of a cell."""
    plain = _html(_SPECIAL.sub(r"\\\1", safe(text)))
    return plain.replace("://", "&#58;//").replace("www.", "www&#46;")


def _line(text: str) -> str:
    """The same at the start of a line: no heading, no list."""
    return re.sub(r"^(\d*)([#+\-=.)])", r"\1\\\2", escaped(text.lstrip()))


FORMAT = Markdown()

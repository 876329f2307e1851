"""Annotations of GitHub Actions: workflow commands on stdout, one a finding."""

from __future__ import annotations

from gradscope.checking import CheckResult
from gradscope.findings import Severity
from gradscope.report.base import Canvas
from gradscope.report.check_concise import summary_line
from gradscope.report.check_entries import Entry, Kind, entries
from gradscope.report.text import safe

_COMMANDS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFORMATION: "notice"}
_SHOWN = (Kind.NEW, Kind.WORSE, Kind.VERDICT, Kind.REFUSED)


class Github:
    """What counts and what was refused; GitHub shows ten of a kind in a step, so these come first.

    Known and ignored findings are not annotated. The last line is the summary.
    """

    name = "github"
    document = False

    def render(self, result: CheckResult, canvas: Canvas) -> str:
        """Lines, ending with a newline."""
        shown = [e for e in entries(result) if e.kind in _SHOWN]
        shown.sort(key=lambda e: (not e.fails, -e.severity.rank))
        lines = [_command(entry) for entry in shown]
        lines += [f"::notice::{_data(safe(note))}" for note in result.notes]
        return "".join(f"{line}\n" for line in (*lines, safe(summary_line(result))))


def _command(entry: Entry) -> str:
    title = _property(f"{entry.code} {entry.name}" if entry.name != entry.code else entry.code)
    text = _data(f"{entry.where}: {entry.message}")
    return f"::{_COMMANDS[entry.severity]} file={_property(entry.path)},title={title}::{text}"


def _data(text: str) -> str:
    """As the runner decodes it; ``%`` first."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """The same, where colons and commas would end it."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")


FORMAT = Github()

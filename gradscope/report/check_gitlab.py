"""GitLab's code quality report: a JSON list, which merge requests compare with the target's."""

from __future__ import annotations

import json

from gradscope.checking import CheckResult
from gradscope.findings import Severity
from gradscope.report.base import Canvas
from gradscope.report.check_entries import Entry, Kind, entries

_SEVERITIES = {
    Severity.ERROR: "critical",
    Severity.WARNING: "major",
    Severity.INFORMATION: "info",
}
_SHOWN = (Kind.NEW, Kind.WORSE, Kind.VERDICT, Kind.REFUSED)


class Gitlab:
    """What counts and what was refused. GitLab shows no more than the first of one fingerprint."""

    name = "gitlab"
    document = True

    def render(self, result: CheckResult, canvas: Canvas) -> str:
        """The list, indented, ending with a newline."""
        found = [_issue(entry) for entry in entries(result) if entry.kind in _SHOWN]
        return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


def _issue(entry: Entry) -> dict[str, object]:
    refused = entry.kind is Kind.REFUSED
    return {
        "description": f"{entry.where}: {entry.message}",
        "check_name": f"gradscope/{entry.code}",
        "fingerprint": entry.fingerprint,
        "severity": "blocker" if refused else _SEVERITIES[entry.severity],
        "location": {"path": entry.path, "lines": {"begin": 1}},
    }


FORMAT = Gitlab()

"""The formats of ``gradscope check``, by name. A new one: its file, and its line here."""

from __future__ import annotations

from importlib import import_module

from gradscope.report.base import CheckFormat

CHECK_FORMATS = {
    "terminal": "gradscope.report.terminal_check",
    "concise": "gradscope.report.check_concise",
    "json": "gradscope.report.check_json",
    "github": "gradscope.report.check_github",
    "html": "gradscope.report.html.checked",
    "gitlab": "gradscope.report.check_gitlab",
    "junit": "gradscope.report.check_junit",
    "markdown": "gradscope.report.check_markdown",
    "sarif": "gradscope.report.check_sarif",
}
"""Name -> module, whose ``FORMAT`` is the format. Imported on use: rich is not needed for JSON."""


def check_format(name: str) -> CheckFormat:
    """The format of this name, one of :data:`CHECK_FORMATS`."""
    found: CheckFormat = import_module(CHECK_FORMATS[name]).FORMAT
    return found

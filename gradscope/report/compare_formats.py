"""The formats of ``gradscope compare``, by name: its own, and those of a check."""

from __future__ import annotations

from importlib import import_module

from gradscope.comparing import Comparison, as_check
from gradscope.report.base import Canvas, CompareFormat
from gradscope.report.check_formats import CHECK_FORMATS, check_format

_OWN = {
    "terminal": "gradscope.report.terminal_compare",
    "json": "gradscope.report.compare_json",
    "markdown": "gradscope.report.compare_markdown",
    "html": "gradscope.report.html.comparison",
}
COMPARE_FORMATS = (*_OWN, *(name for name in CHECK_FORMATS if name not in _OWN))


def compare_format(name: str) -> CompareFormat:
    """The format of this name, one of :data:`COMPARE_FORMATS`."""
    if name not in _OWN:
        return _Checked(name)
    found: CompareFormat = import_module(_OWN[name]).FORMAT
    return found


class _Checked:
    """A format of ``gradscope check``, given the comparison as a check."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._format = check_format(name)
        self.document = self._format.document

    def render(self, comparison: Comparison, canvas: Canvas) -> str:
        """The check's report, ending with a newline."""
        return self._format.render(as_check(comparison), canvas)

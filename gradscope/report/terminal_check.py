"""A check for people: one line a model, its findings below, one summary, what to type next."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from gradscope.checking import CheckResult, Known, ModelCheck
from gradscope.diagnosis import Verdict
from gradscope.findings import Finding, Severity, grouped, places
from gradscope.report.base import Canvas
from gradscope.report.check_concise import summary_line
from gradscope.report.terminal_page import COLOURS, Page, show_commands, show_finding
from gradscope.report.text import count, number, shorten

_STATUS = {
    0: ("ok", "green"),
    1: ("FAIL", "bold red"),
    2: ("REFUSED", "bold magenta"),
    3: ("NOTHING", "bold magenta"),
}
_LEAD = 9


class TerminalCheck:
    """Information is counted, not told: ``gradscope inspect`` tells it."""

    name = "terminal"
    document = False

    def render(self, result: CheckResult, canvas: Canvas) -> str:
        """The report, ending with a newline."""
        page = Page(canvas)
        for model in result.models:
            _model(page, model, result)
        page.line("")
        for note in result.notes:
            page.wrapped("note  ", "cyan", note)
        style = _STATUS[result.summary.exit_status][1]
        page.line((f"{_meaning(result)}.", style))
        page.wrapped("", "", f"{summary_line(result)}.")
        if result.next:
            page.title("What now")
            show_commands(page, result.next)
        return page.text()


def _model(page: Page, model: ModelCheck, result: CheckResult) -> None:
    word, style = _STATUS[model.exit_status]
    lead = (word.ljust(_LEAD), style)
    if model.error is not None:
        page.line(lead, shorten(model.path, page.width - _LEAD))
        page.wrapped(" " * _LEAD, "", model.error)
        return
    verdict = model.verdict.value if model.verdict is not None else ""
    about = ", ".join((verdict, *_counts(model)))
    room = page.width - _LEAD - 2 - len(about)
    path = shorten(model.path, max(room, 24))
    colour = COLOURS[model.verdict] if model.verdict is not None else ""
    page.line(lead, path, "  ", (about, colour))
    for known in model.worse:
        show_finding(page, _told_as_worse(known), known.finding.where)
    for group in grouped(_told(model)):
        show_finding(page, group[0], places(group))
    if model.verdict_counts and not any(result.fails(f.severity) for f in model.counted):
        page.wrapped(" " * _LEAD, "", f"{model.summary}{_settle(model)}")
    elif (
        model.verdict is Verdict.UNDETERMINED and model.settle
    ):  # it passes, and nobody knows whether it should
        page.wrapped(" " * _LEAD, "dim", _settle(model).strip())
    for fixed in model.fixed:
        page.line("  ", ("fixed".ljust(11), "green"), f"  {fixed.code} {fixed.name}  {fixed.where}")


def _settle(model: ModelCheck) -> str:
    return f" What would settle it: {model.settle}." if model.settle else ""


def _told(model: ModelCheck) -> list[Finding]:
    return [f for f in model.findings if f.severity is not Severity.INFORMATION]


def _counts(model: ModelCheck) -> Iterator[str]:
    information = sum(f.severity is Severity.INFORMATION for f in model.findings)
    if information:
        yield f"{information} information"
    if model.known:
        yield f"{len(model.known)} known"
    if model.ignored:
        yield f"{len(model.ignored)} ignored"


def _told_as_worse(known: Known) -> Finding:
    """The finding, with what the baseline says of it."""
    was = number(known.value)
    if known.severity is not known.finding.severity:
        was = f"of severity {known.severity.value}"
    return replace(known.finding, message=f"{known.finding.message}; worse: it was {was}")


def _meaning(result: CheckResult) -> str:
    """The exit status in words."""
    s = result.summary
    if s.exit_status == 2:
        return f"{count(s.refused, 'model')} could not be served"
    if s.exit_status == 3:
        return f"Nothing could be measured of {count(s.refused, 'model')}"
    if s.exit_status == 1:
        return f"{count(s.failed, 'model')} failed at --fail-on {result.fail_on}"
    return "Nothing fails"


FORMAT = TerminalCheck()

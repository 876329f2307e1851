"""One line a finding, for editors, grep and logs: ``MODEL: PLACE: SEVERITY CODE name: message``."""

from __future__ import annotations

from collections.abc import Iterator

from gradscope.checking import CheckResult, ModelCheck
from gradscope.findings import Finding, Severity
from gradscope.report.base import Canvas
from gradscope.report.text import count, number, safe


class Concise:
    """Never cut, never coloured; only what counts, and one line of summary at the end."""

    name = "concise"
    document = False

    def render(self, result: CheckResult, canvas: Canvas) -> str:
        """Lines in the order of the models, ending with a newline."""
        lines = [line for model in result.models for line in _model(model)]
        lines += [f"note: {note}" for note in result.notes]
        return "".join(f"{safe(line)}\n" for line in (*lines, summary_line(result)))


def _model(model: ModelCheck) -> Iterator[str]:
    if model.error is not None:
        yield f"{model.path}: refused: {model.error}"
        return
    for known in model.worse:
        yield f"{_finding(model, known.finding)} (baseline: {number(known.value)})"
    for finding in model.findings:
        yield _finding(model, finding)
    for fixed in model.fixed:
        yield f"{model.path}: {fixed.where}: fixed {fixed.code} {fixed.name}"
    if model.verdict_counts and model.verdict is not None:
        yield f"{model.path}: {model.verdict.value}: {model.summary}"


def _finding(model: ModelCheck, finding: Finding) -> str:
    rule = f"{finding.severity.value} {finding.code} {finding.name}"
    return f"{model.path}: {finding.where}: {rule}: {finding.message}"


def summary_line(result: CheckResult) -> str:
    """``3 models: 1 unhealthy, 2 healthy; 2 errors; 1 known.``"""
    s = result.summary
    of_models = [f"{n} {verdict}" for verdict, n in s.verdicts.items()]
    if s.refused:
        of_models.append(f"{s.refused} refused")
    findings = [_counted(n, severity) for severity, n in s.severities.items()]
    rest = {"worse": s.worse, "known": s.known, "ignored": s.ignored, "fixed": s.fixed}
    others = [f"{n} {what}" for what, n in rest.items() if n]
    parts = ", ".join(of_models), ", ".join(findings) or "no findings", ", ".join(others)
    text = f"{count(s.models, 'model')}: {'; '.join(part for part in parts if part)}"
    return f"{text}; status {s.exit_status}"


def _counted(n: int, severity: str) -> str:
    return f"{n} information" if severity == Severity.INFORMATION else count(n, severity)


FORMAT = Concise()

"""From an inspection to what counts of it."""

from __future__ import annotations

from gradscope.checking.results import (
    CLEAN,
    FINDINGS,
    NOTHING_MEASURED,
    ModelCheck,
    fails,
)
from gradscope.config import CheckSettings
from gradscope.diagnosis import Diagnosis, Inspection, Verdict, diagnose
from gradscope.findings import Severity

_AS_SEVERITY = {Verdict.UNHEALTHY: Severity.ERROR, Verdict.WARNING: Severity.WARNING}


def refusal(path: str, error: str, exit_status: int) -> ModelCheck:
    """A model that could not be served (status 2), or of which nothing could be measured (3)."""
    said = error.removeprefix(f"{path}: ")
    return ModelCheck(path, exit_status, said, said)


def count_findings(
    path: str, inspection: Inspection, settings: CheckSettings, inspect: str | None = None
) -> ModelCheck:
    """What counts of one model.

    Args:
        path: as reports name the model.
        inspection: of it.
        settings: what is selected, ignored and known, and what fails.
        inspect: the command that shows the whole report.
    """
    measured, whole = inspection.measurements, inspection.diagnosis
    if measured.is_empty:
        return refusal(path, "nothing could be measured", NOTHING_MEASURED)
    kept = tuple(f for f in inspection.findings if settings.selects(f.code))
    left = whole if kept == inspection.findings else diagnose(measured, kept)
    verdict_counts = _verdict_counts(left.verdict, settings.fail_on)
    failing = sum(fails(f.severity, settings.fail_on) for f in kept)
    status = FINDINGS if failing or verdict_counts else CLEAN
    return ModelCheck(
        path, status, _why(failing, left, verdict_counts),
        format=measured.model.format, verdict=whole.verdict, summary=whole.summary,
        verdict_counts=verdict_counts, causes=whole.causes, evidence=whole.evidence,
        settle=whole.settle, advice=whole.advice, findings=kept, skipped=measured.skipped,
        inspect=inspect,
    )  # fmt: skip


def _verdict_counts(verdict: Verdict, fail_on: str) -> bool:
    if verdict is Verdict.UNDETERMINED:
        return fail_on == "undetermined"
    severity = _AS_SEVERITY.get(verdict)
    return severity is not None and fails(severity, fail_on)


def _why(failing: int, left: Diagnosis, verdict_counts: bool) -> str:
    if failing:
        return f"{failing} finding{'' if failing == 1 else 's'} that fail{'s' * (failing == 1)}"
    if verdict_counts:
        return f"the verdict is {left.verdict.value}: {left.summary}"
    return "nothing that fails"

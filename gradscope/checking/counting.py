"""From an inspection to what counts of it."""

from __future__ import annotations

from collections.abc import Iterable

from gradscope.checking.baseline import Entry, compare, entry_of
from gradscope.checking.ignores import reason_to_ignore
from gradscope.checking.results import (
    CLEAN,
    FINDINGS,
    NOTHING_MEASURED,
    Ignored,
    ModelCheck,
    fails,
)
from gradscope.config import CheckSettings
from gradscope.diagnosis import Diagnosis, Inspection, Verdict, diagnose
from gradscope.findings import Severity

_AS_SEVERITY = {Verdict.UNHEALTHY: Severity.ERROR, Verdict.WARNING: Severity.WARNING}


def refusal(path: str, error: str, exit_status: int) -> ModelCheck:
    """A model that could not be served (status 2), or of which nothing could be measured (3)."""
    said = without_path(error, path)
    return ModelCheck(path, exit_status, said, said)


def without_path(error: str, path: str) -> str:
    """What an error says, where the path stands beside it anyway."""
    return error.removeprefix(f"{path}: ")


def count_findings(
    path: str,
    inspection: Inspection,
    settings: CheckSettings,
    entries: Iterable[Entry] = (),
    inspect: str | None = None,
) -> ModelCheck:
    """What counts of one model.

    Args:
        path: as reports name the model.
        inspection: of it.
        settings: what is selected, ignored and known, and what fails.
        entries: of the baseline, about this model.
        inspect: the command that shows the whole report.
    """
    measured, whole = inspection.measurements, inspection.diagnosis
    if measured.is_empty:
        return refusal(path, "nothing could be measured", NOTHING_MEASURED)
    seen = [f for f in inspection.findings if settings.selects(f.code)]
    reasons = {id(f): reason_to_ignore(f, path, settings) for f in seen}
    ignored = [Ignored(f, reason) for f in seen if (reason := reasons[id(f)]) is not None]
    kept = [f for f in seen if reasons[id(f)] is None]
    before = [e for e in entries if settings.selects(e.code)]
    if settings.accept:
        fresh = {f.fingerprint: entry_of(f) for f in kept}
        before = [*(e for e in before if e.fingerprint not in fresh), *fresh.values()]
    found = compare(kept, [i.finding for i in ignored], before, settings.tolerance)
    left = tuple(f for f in kept if f not in [k.finding for k in found.known])
    judged = whole if len(left) == len(inspection.findings) else diagnose(measured, left)
    verdict_counts = _verdict_counts(judged.verdict, settings.fail_on)
    failing = sum(fails(f.severity, settings.fail_on) for f in left)
    status = FINDINGS if failing or verdict_counts else CLEAN
    return ModelCheck(
        path, status, _why(failing, judged, verdict_counts),
        format=measured.model.format, verdict=whole.verdict, summary=whole.summary,
        verdict_counts=verdict_counts, causes=whole.causes, evidence=whole.evidence,
        settle=whole.settle, advice=whole.advice, findings=found.new, worse=found.worse,
        known=found.known, ignored=tuple(ignored), fixed=found.fixed, skipped=measured.skipped,
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

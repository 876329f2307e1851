"""A comparison as a check whose baseline is the first subject: for formats of CI."""

from __future__ import annotations

from gradscope.checking import CheckResult, ModelCheck, refusal, summarise
from gradscope.comparing.results import CLEAN, REGRESSION, Change, Comparison, Subject


def as_check(comparison: Comparison) -> CheckResult:
    """One model for each later subject: new and worse findings count, the rest is known; behind
    them those that were refused.

    Errors and warnings fail if a regression does.
    """
    later = zip(comparison.subjects[1:], comparison.changes, strict=True)
    compared = (_model(subject, change, comparison.fails) for subject, change in later)
    refused = (refusal(r.path, r.error, r.exit_status) for r in comparison.refused)
    models = (*compared, *refused)
    return CheckResult(
        models, summarise(models), "warning" if comparison.fails else "never", comparison.notes,
        comparison.next, comparison.rules,
    )  # fmt: skip


def _model(subject: Subject, change: Change, fails: bool) -> ModelCheck:
    regressed = fails and bool(change.regressions)
    return ModelCheck(
        subject.path, REGRESSION if regressed else CLEAN,
        "; ".join(change.regressions) or "nothing got worse",
        format=subject.format, verdict=subject.verdict, summary=subject.summary,
        verdict_counts=fails and change.verdict_worse, causes=subject.causes, findings=change.new,
        worse=change.worse, known=change.same, fixed=change.gone, inspect=subject.inspect,
    )  # fmt: skip

"""Counts over all models, and the exit status of a check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from gradscope.checking.results import (
    CLEAN,
    FINDINGS,
    NOTHING_MEASURED,
    REFUSED,
    ModelCheck,
    Summary,
)
from gradscope.diagnosis import Verdict
from gradscope.findings import Severity

_PRECEDENCE = (REFUSED, NOTHING_MEASURED, FINDINGS)
_VERDICTS = (Verdict.UNHEALTHY, Verdict.WARNING, Verdict.UNDETERMINED, Verdict.HEALTHY)


def first_status(statuses: Iterable[int]) -> int:
    """The exit status of a run: the first of 2, 3, 1, 0 that any of its models has."""
    there = set(statuses)
    return next((s for s in _PRECEDENCE if s in there), CLEAN)


def summarise(models: Sequence[ModelCheck]) -> Summary:
    """Counts over ``models``."""
    statuses = [m.exit_status for m in models]
    verdicts = Counter(m.verdict.value for m in models if m.verdict is not None)
    severities = Counter(f.severity.value for m in models for f in m.counted)
    return Summary(
        models=len(models),
        verdicts={v.value: verdicts[v.value] for v in _VERDICTS if verdicts[v.value]},
        failed=statuses.count(FINDINGS),
        refused=statuses.count(REFUSED) + statuses.count(NOTHING_MEASURED),
        severities={s.value: severities[s.value] for s in Severity if severities[s.value]},
        worse=sum(len(m.worse) for m in models),
        known=sum(len(m.known) for m in models),
        ignored=sum(len(m.ignored) for m in models),
        fixed=sum(len(m.fixed) for m in models),
        exit_status=first_status(statuses),
    )

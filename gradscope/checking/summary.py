"""Counts over all models, and the exit status of a check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from gradscope.checking.results import (
    FINDINGS,
    NOTHING_MEASURED,
    REFUSED,
    ModelCheck,
    Summary,
)

_PRECEDENCE = (REFUSED, NOTHING_MEASURED, FINDINGS)


def summarise(models: Sequence[ModelCheck]) -> Summary:
    """Counts over ``models``; the exit status is the first of 2, 3, 1, 0 that any of them has."""
    statuses = [m.exit_status for m in models]
    verdicts = Counter(m.verdict.value for m in models if m.verdict is not None)
    severities = Counter(f.severity.value for m in models for f in m.counted)
    return Summary(
        models=len(models),
        verdicts=dict(sorted(verdicts.items())),
        failed=statuses.count(FINDINGS),
        refused=statuses.count(REFUSED) + statuses.count(NOTHING_MEASURED),
        severities=dict(sorted(severities.items())),
        worse=sum(len(m.worse) for m in models),
        known=sum(len(m.known) for m in models),
        ignored=sum(len(m.ignored) for m in models),
        fixed=sum(len(m.fixed) for m in models),
        exit_status=next((s for s in _PRECEDENCE if s in statuses), 0),
    )

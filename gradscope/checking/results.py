"""The result of one ``gradscope check``, as frozen data. Renderers read it and compute nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gradscope.diagnosis import Evidence, Verdict
from gradscope.findings import Cause, Finding, Severity, Skipped

CLEAN, FINDINGS, REFUSED, NOTHING_MEASURED = 0, 1, 2, 3
"""Exit statuses of a check; over several models the first of 2, 3, 1, 0 that any of them has."""


@dataclass(frozen=True)
class RuleInfo:
    """What a report says of a rule, by code in :attr:`CheckResult.rules`.

    Attributes:
        code, name: e.g. ``GS101`` and ``vanishing-gradient``.
        summary: one line.
        explanation: some sentences.
        advice: what to do about it, one sentence.
    """

    code: str
    name: str
    summary: str
    explanation: str
    advice: str


@dataclass(frozen=True)
class Ignored:
    """A finding that the settings set aside, and why."""

    finding: Finding
    reason: str


@dataclass(frozen=True)
class Known:
    """A finding that the baseline has as well.

    Attributes:
        finding: as it is now.
        value: its number in the baseline; None where it had none.
        severity: its severity in the baseline.
    """

    finding: Finding
    value: float | None
    severity: Severity


@dataclass(frozen=True)
class Fixed:
    """A finding of the baseline that is no longer found."""

    code: str
    name: str
    where: str
    fingerprint: str
    value: float | None


@dataclass(frozen=True)
class ModelCheck:
    """What was found in one model. Each of its findings stands in exactly one list.

    Attributes:
        path: of the file, relative to the working directory where it lies under it.
        exit_status: 0 clean, 1 findings, 2 it could not be served, 3 nothing could be measured.
        why: one sentence (without the path) that says why it has this status.
        error: with status 2 or 3, what went wrong, in one line; then all else is empty.
        format: of the file, e.g. ``PyTorch module``.
        verdict: on all that was found, ignored and known findings too.
        summary: the verdict's, one sentence.
        verdict_counts: the verdict on what is left (``findings`` and ``worse``) is one that fails.
        causes, evidence, settle, advice: of the diagnosis.
        findings: new ones; those of a severity that fails make the status 1.
        worse: known to the baseline, and worse than there: they count like new ones.
        known: known to the baseline and no worse: they never count.
        ignored: set aside by the settings, with the reason.
        fixed: of the baseline, no longer found.
        skipped: what could not be measured, and why.
        inspect: the command that shows the whole report.
    """

    path: str
    exit_status: int
    why: str
    error: str | None = None
    format: str | None = None
    verdict: Verdict | None = None
    summary: str | None = None
    verdict_counts: bool = False
    causes: tuple[Cause, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    settle: str | None = None
    advice: str | None = None
    findings: tuple[Finding, ...] = ()
    worse: tuple[Known, ...] = ()
    known: tuple[Known, ...] = ()
    ignored: tuple[Ignored, ...] = ()
    fixed: tuple[Fixed, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    inspect: str | None = None

    @property
    def counted(self) -> tuple[Finding, ...]:
        """The findings that count, the severest first: new ones and worse ones."""
        every = (*(known.finding for known in self.worse), *self.findings)
        return tuple(sorted(every, key=lambda f: (-f.severity.rank, f.code, f.where)))


@dataclass(frozen=True)
class Summary:
    """Counts over all models of a check.

    Attributes:
        models: all of them.
        verdicts: how many by verdict, e.g. ``{"healthy": 2, "unhealthy": 1}``, none of them 0.
        failed: models with status 1.
        refused: models with status 2 or 3.
        severities: counted findings (new and worse) by severity, none of them 0.
        worse, known, ignored, fixed: findings of each kind.
        exit_status: of the whole check.
    """

    models: int
    verdicts: Mapping[str, int]
    failed: int
    refused: int
    severities: Mapping[str, int]
    worse: int
    known: int
    ignored: int
    fixed: int
    exit_status: int


@dataclass(frozen=True)
class CheckResult:
    """What check formats render.

    Attributes:
        models: in the order given.
        summary: over all of them.
        fail_on: error, warning, undetermined or never.
        notes: on the whole run, each one sentence: ignores that match nothing, a baseline that was
            written.
        next: (command, what it is good for), the most useful first; each works when pasted.
        rules: of every code, for formats that list rules.
    """

    models: tuple[ModelCheck, ...]
    summary: Summary
    fail_on: str
    notes: tuple[str, ...] = ()
    next: tuple[tuple[str, str], ...] = ()
    rules: Mapping[str, RuleInfo] = field(default_factory=dict)

    def fails(self, severity: Severity) -> bool:
        """Whether a counted finding of this severity makes the status 1."""
        return fails(severity, self.fail_on)


def fails(severity: Severity, fail_on: str) -> bool:
    """Whether ``fail_on`` makes a finding of this severity fail.

    ``undetermined`` fails on error findings too: who accepts no doubt accepts no error.
    """
    if fail_on == "never":
        return False
    limit = Severity.WARNING if fail_on == "warning" else Severity.ERROR
    return severity.rank >= limit.rank

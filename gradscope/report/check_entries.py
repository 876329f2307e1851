"""A check as a flat list of what machine formats report, one entry each."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from gradscope.checking import CheckResult, ModelCheck
from gradscope.diagnosis import Verdict
from gradscope.findings import Finding, Severity
from gradscope.report.text import number, safe

VERDICT, REFUSED = "verdict", "refused"
"""Codes of entries that are no finding of a rule."""


class Kind(StrEnum):
    """What an entry is."""

    NEW = "new"
    WORSE = "worse"
    KNOWN = "known"
    IGNORED = "ignored"
    VERDICT = "verdict"
    REFUSED = "refused"


@dataclass(frozen=True)
class Entry:
    """One thing to report. Its texts hold no control characters, so each is one line.

    Attributes:
        path: of the model, with ``/``, never absolute.
        kind: what it is.
        code, name: of the rule, or :data:`VERDICT` and the verdict, or :data:`REFUSED`.
        severity: as found.
        where: the place in the model.
        message: one sentence.
        fails: it makes the exit status other than 0.
        fingerprint: 32 hex digits, the same while the same thing is found in the same model.
        reason: why it is ignored.
    """

    path: str
    kind: Kind
    code: str
    name: str
    severity: Severity
    where: str
    message: str
    fails: bool
    fingerprint: str
    reason: str = ""


def entries(result: CheckResult) -> tuple[Entry, ...]:
    """Every entry, in the order of the models; of one model what counts comes first."""
    return tuple(entry for model in result.models for entry in of_model(result, model))


def of_model(result: CheckResult, model: ModelCheck) -> Iterator[Entry]:
    """The entries of one model."""
    if model.error is not None:
        yield _other(model, Kind.REFUSED, REFUSED, model.error, Severity.ERROR, fails=True)
        return
    if model.verdict_counts and model.verdict is not None:
        severity = Severity.ERROR if model.verdict is Verdict.UNHEALTHY else Severity.WARNING
        text = f"{model.verdict.value}: {model.summary}"
        yield _other(model, Kind.VERDICT, model.verdict.value, text, severity, fails=True)
    for known in model.worse:
        was = f" (baseline: {number(known.value)})"
        yield _finding(model, Kind.WORSE, known.finding, result, more=was)
    for finding in model.findings:
        yield _finding(model, Kind.NEW, finding, result)
    for known in model.known:
        yield _finding(model, Kind.KNOWN, known.finding)
    for ignored in model.ignored:
        yield _finding(model, Kind.IGNORED, ignored.finding, reason=ignored.reason)


def _finding(
    model: ModelCheck,
    kind: Kind,
    finding: Finding,
    result: CheckResult | None = None,
    *,
    more: str = "",
    reason: str = "",
) -> Entry:
    path = relative(model.path)
    return Entry(
        path, kind, finding.code, finding.name, finding.severity, safe(finding.where),
        safe(f"{finding.message}{more}"), result is not None and result.fails(finding.severity),
        identity(path, finding.fingerprint), safe(reason),
    )  # fmt: skip


def _other(
    model: ModelCheck, kind: Kind, name: str, text: str, severity: Severity, *, fails: bool
) -> Entry:
    path = relative(model.path)
    code = VERDICT if kind is Kind.VERDICT else REFUSED
    return Entry(
        path, kind, code, name, severity, "the model", safe(text), fails, identity(path, code)
    )


def identity(path: str, fingerprint: str) -> str:
    """Of a finding among those of all models; without its number, which may change."""
    return hashlib.sha256(f"{path}\0{fingerprint}".encode("utf-8", "backslashreplace")).hexdigest()[
        :32
    ]


def relative(path: str) -> str:
    """With ``/`` between folders; of a file outside of the working directory only its name.

    Reports are compared between machines, and platforms take no absolute paths.
    """
    name = os.path.basename(path) if os.path.isabs(path) else path
    return safe(name.replace(os.sep, "/"))

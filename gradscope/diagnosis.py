"""From measurements and findings to a verdict and its causes. Imports no torch.

The thresholds are those of the first calibration; the verdict is provisional and says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from gradscope.findings import Cause, Finding
from gradscope.measurements import Measurements


class Verdict(StrEnum):
    """The judgement of a whole model."""

    HEALTHY = "healthy"
    WARNING = "warning"
    UNHEALTHY = "unhealthy"
    UNDETERMINED = "undetermined"


@dataclass(frozen=True)
class Evidence:
    """One number that the verdict rests on."""

    statement: str
    value: float | None
    threshold: float | None


@dataclass(frozen=True)
class Diagnosis:
    """The verdict, its causes (most important first), and what it rests on.

    ``summary`` is one sentence for people; ``settle`` is the option that would settle an
    undetermined verdict, if there is one.
    """

    verdict: Verdict
    summary: str
    causes: tuple[Cause, ...]
    evidence: tuple[Evidence, ...]
    provisional: bool = True
    settle: str | None = None


@dataclass(frozen=True)
class Inspection:
    """The result of one ``gradscope inspect``: what report formats render."""

    measurements: Measurements
    findings: tuple[Finding, ...]
    diagnosis: Diagnosis


def diagnose(measurements: Measurements, findings: tuple[Finding, ...]) -> Diagnosis:
    """The provisional verdict."""
    raise NotImplementedError

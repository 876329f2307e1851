"""What a rule is: one file, one class, with its threshold, its evidence and its examples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradscope.findings import Cause, Finding, Severity
from gradscope.measurements import Measurements


@dataclass(frozen=True)
class Threshold:
    """A number that a rule compares with, and where it comes from."""

    value: float
    unit: str
    evidence: str


class Rule(ABC):
    """Looks at measurements and says what it finds.

    Attributes:
        code: ``GS`` and three digits, never reused.
        name: kebab-case, as the field calls it.
        summary: one line.
        explanation: what it means and how sure it is.
        thresholds: by name; printed with every finding.
    """

    code: ClassVar[str]
    name: ClassVar[str]
    summary: ClassVar[str]
    explanation: ClassVar[str]
    thresholds: ClassVar[dict[str, Threshold]] = {}

    @abstractmethod
    def check(self, measured: Measurements) -> Iterator[Finding]:
        """Findings, in the order of the model."""

    @staticmethod
    @abstractmethod
    def passes() -> tuple[Measurements, ...]:
        """Measurements in which the rule finds nothing."""

    @staticmethod
    @abstractmethod
    def fails() -> tuple[Measurements, ...]:
        """Measurements in which it finds something."""

    def finding(
        self,
        severity: Severity,
        where: str,
        message: str,
        *,
        value: float | None = None,
        threshold: float | None = None,
        cause: Cause | None = None,
    ) -> Finding:
        """A finding of this rule."""
        return Finding(self.code, self.name, severity, where, message, value, threshold, cause)

"""What a rule is: one file, one class, with its threshold, its evidence and its examples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from gradscope.attribution import fails_at_its_task
from gradscope.findings import Cause, Finding, Severity
from gradscope.measurements import Measurements

EVERYTHING = "--all"
TRIAL = "--trial 400"
STANDARDISE = "--standardise"

Command = Callable[[str], str]
"""The command that makes the report again, with these options more."""


def usual(options: str) -> str:
    """The command of a remedy where there is no report: the user's own has its place in one."""
    return f"gradscope inspect MODEL --data SAMPLE {options}"


@dataclass(frozen=True)
class Threshold:
    """A number that a rule compares with, and where it comes from."""

    value: float
    unit: str
    evidence: str


@dataclass(frozen=True)
class Remedy:
    """What to do.

    Attributes:
        advice: in the code that trains the model, one sentence.
        options: for the command that made the report.
    """

    advice: str
    options: str = EVERYTHING

    def command(self, measured: Measurements, command: Command) -> str:
        """To be pasted; what asks for labels or data that are missing gives way to all details."""
        needs = {TRIAL: measured.sample.labels, STANDARDISE: not measured.sample.synthetic}
        return command(self.options if needs.get(self.options, True) else EVERYTHING)


class Rule(ABC):
    """Looks at measurements and says what it finds.

    Attributes:
        code: ``GS`` and three digits, never reused.
        name: kebab-case, as the field calls it.
        summary: one line.
        explanation: what it means and how sure it is.
        thresholds: by name, at their defaults.
        causes: that its findings can support, the likeliest first.
        remedy: what to do about it.
        eased: its findings are one step milder where the model is shown to work on labelled data,
            and on a made-up input, which no severity should rest on.

    Args:
        limits: thresholds that the user has set, by name.
    """

    code: ClassVar[str]
    name: ClassVar[str]
    summary: ClassVar[str]
    explanation: ClassVar[str]
    remedy: ClassVar[Remedy]
    thresholds: ClassVar[Mapping[str, Threshold]] = {}
    causes: ClassVar[tuple[Cause, ...]] = ()
    eased: ClassVar[bool] = False

    def __init__(self, limits: Mapping[str, float] | None = None) -> None:
        self._limits = {name: t.value for name, t in self.thresholds.items()} | dict(limits or {})

    def limit(self, name: str) -> float:
        """The threshold of this name, as set by the user or by default."""
        return self._limits[name]

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
        hinges: bool = False,
        about: str = "",
    ) -> Finding:
        """A finding of this rule; ``about`` names it where ``where`` is a list or a range."""
        return Finding(
            self.code, self.name, severity, where, message, value, threshold, cause,
            (), self.remedy.advice, hinges, about,
        )  # fmt: skip

    @staticmethod
    def graver(measured: Measurements, otherwise: Severity = Severity.WARNING) -> Severity:
        """Error where labelled data show that the model does not work, or knows far less than can
        be learned; else ``otherwise``."""
        return Severity.ERROR if fails_at_its_task(measured) else otherwise

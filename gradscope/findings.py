"""What a rule says about a model: findings. What could not be examined: :class:`Skipped`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How much a finding matters; ordered by :attr:`rank`."""

    ERROR = "error"
    WARNING = "warning"
    INFORMATION = "information"

    @property
    def rank(self) -> int:
        """0 for information, 2 for an error."""
        return {"information": 0, "warning": 1, "error": 2}[self.value]

    @property
    def milder(self) -> Severity:
        """One step down; information stays."""
        return Severity.WARNING if self is Severity.ERROR else Severity.INFORMATION


class Cause(StrEnum):
    """Why a model's gradient is lost; the names of the JSON report's ``causes``."""

    LARGE_PARAMETERS = "large-parameters"
    LARGE_INPUTS = "large-inputs"
    DEPTH_DERIVATIVE = "depth-derivative"
    FLAT_SLOPE = "flat-slope"
    SMALL_WEIGHTS = "small-weights"
    DEPTH_GAIN = "depth-gain"
    FORWARD_COLLAPSE = "forward-collapse"
    EXPLODING = "exploding"
    DEAD_UNITS = "dead-units"
    NONFINITE = "nonfinite"
    VANISHING_THROUGH_TIME = "vanishing-through-time"


@dataclass(frozen=True)
class Finding:
    """One thing that a rule found.

    Attributes:
        code: the rule's code, e.g. ``GS101``.
        name: the rule's kebab-case name.
        severity: error, warning or information.
        where: the place as a user would name it (``layers.3.weight[17,:]``).
        message: one sentence, with the numbers.
        value: the number that was compared, or None where the rule has none.
        threshold: what it was compared with.
        cause: the cause that the finding supports, if any.
        remedies: commands that help, each as it can be pasted.
        advice: what to do about it in the code that trains the model.
        hinges: whether it matters depends on what the model can do: with labels that show that it
            does not work it is an error, without labels it leaves the verdict open.
        about: what the finding is about, where ``where`` lists or spans what may change from one
            training run to the next (layers, units): an output, a layer, ``model``; empty: what
            ``where`` says.
    """

    code: str
    name: str
    severity: Severity
    where: str
    message: str
    value: float | None = None
    threshold: float | None = None
    cause: Cause | None = None
    remedies: tuple[str, ...] = ()
    advice: str = ""
    hinges: bool = False
    about: str = ""

    @property
    def fingerprint(self) -> str:
        """16 hex digits that stay the same while the same rule finds the same thing, also where it
        spreads to more layers or units, or moves."""
        place = f"\0{self.about}" if self.about else self.where
        return hashlib.sha256(
            f"{self.code}\0{place}".encode("utf-8", "backslashreplace")
        ).hexdigest()[:16]


def grouped(findings: Iterable[Finding]) -> list[list[Finding]]:
    """By severity and rule, in the order in which they begin: a layer is rarely alone."""
    groups: dict[tuple[Severity, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.severity, finding.code), []).append(finding)
    return list(groups.values())


def places(group: Sequence[Finding]) -> str:
    """The first place, and how many more."""
    rest = f" and {len(group) - 1} more" if len(group) > 1 else ""
    return f"{group[0].where}{rest}"


@dataclass(frozen=True)
class Skipped:
    """Something that was not measured, and why. Never passed over in silence."""

    what: str
    reason: str

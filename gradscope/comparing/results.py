"""The result of one ``gradscope compare``, as frozen data: renderers read it, compute nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gradscope.checking import Fixed, Known, RuleInfo, first_status
from gradscope.diagnosis import Verdict
from gradscope.findings import Cause, Finding

CLEAN, REGRESSION = 0, 1


@dataclass(frozen=True)
class Figures:
    """The numbers that are compared of every subject; None: not measured there.

    Attributes:
        total, median: decades from the last to the first hidden activation.
        saturated: mean share over hidden activations.
        skill, accuracy, loss: on held-out data, if there are any.
    """

    total: float | None = None
    median: float | None = None
    saturated: float | None = None
    skill: float | None = None
    accuracy: float | None = None
    loss: float | None = None


@dataclass(frozen=True)
class Place:
    """One entry of a ledger: its site, what to print, the decades left there, and its own gain."""

    site: str
    label: str
    left: float | None
    gain: float | None


@dataclass(frozen=True)
class Subject:
    """One of the things compared.

    Attributes:
        letter: A, B, ... by which reports name it.
        path: as it was given.
        model: path of the model: another than ``path`` for a saved report.
        format: of the model file.
        parameters: number of elements.
        verdict, summary, causes: of the diagnosis.
        figures: of it.
        setup: how it was measured: data, seed and the like, as text.
        places: its ledger, from the output's side to the input's.
        findings: all of them.
        saved: it is a saved report, nothing was measured anew.
        inspect: the command that shows the whole report; None for a saved one.
    """

    letter: str
    path: str
    model: str
    format: str
    parameters: int
    verdict: Verdict
    summary: str
    causes: tuple[Cause, ...]
    figures: Figures
    setup: Mapping[str, str]
    places: tuple[Place, ...] = ()
    findings: tuple[Finding, ...] = ()
    saved: bool = False
    inspect: str | None = None


@dataclass(frozen=True)
class Refused:
    """One that could not be compared.

    Attributes:
        letter: as if it could.
        path: as it was given.
        error: what went wrong, in one line, without the path.
        exit_status: 2 it could not be served, 3 nothing could be measured.
    """

    letter: str
    path: str
    error: str
    exit_status: int


@dataclass(frozen=True)
class Row:
    """One place of the ledgers side by side: ``left`` and ``gain`` of each subject; None where it
    has no such place, or nothing was measured there."""

    label: str
    left: tuple[float | None, ...]
    gain: tuple[float | None, ...]


@dataclass(frozen=True)
class Change:
    """What is different in a later subject from the first one.

    Attributes:
        letter: of the later one.
        verdict_worse: its verdict is worse: healthy, then undetermined or warning, then unhealthy.
        verdict_better: it is better.
        new: findings that the first one does not have.
        worse: that both have, and that are graver here, as in a baseline.
        same: that both have, and are no graver here.
        gone: of the first one, not found here.
        regressions: one sentence for each thing that is worse and matters: the verdict, a new error
            or warning, an error or warning that is graver.
    """

    letter: str
    verdict_worse: bool
    verdict_better: bool
    new: tuple[Finding, ...]
    worse: tuple[Known, ...]
    same: tuple[Known, ...]
    gone: tuple[Fixed, ...]
    regressions: tuple[str, ...]


@dataclass(frozen=True)
class Trend:
    """A figure over three subjects or more.

    Attributes:
        figure: its name in :class:`Figures`.
        values: in the order of the subjects.
        word: rises, falls, steady or turns (there and back); the known values are looked at.
    """

    figure: str
    values: tuple[float | None, ...]
    word: str


@dataclass(frozen=True)
class Comparison:
    """What compare formats render.

    Attributes:
        subjects: those that could be served, in the order given; the first one is what the others
            are compared with.
        changes: of every later one.
        rows: ledgers side by side, from the output's side to the input's.
        trends: over three subjects or more; else empty.
        fails: whether a regression makes the exit status 1.
        notes: each one sentence: subjects that were not measured alike.
        next: (command, what it is good for); each works when pasted.
        rules: of every code, for formats that list rules.
        refused: those that could not be served, in the order given.
    """

    subjects: tuple[Subject, ...]
    changes: tuple[Change, ...]
    rows: tuple[Row, ...]
    trends: tuple[Trend, ...]
    fails: bool
    notes: tuple[str, ...] = ()
    next: tuple[tuple[str, str], ...] = ()
    rules: Mapping[str, RuleInfo] = field(default_factory=dict)
    refused: tuple[Refused, ...] = ()

    @property
    def is_regression(self) -> bool:
        """Whether anything got worse."""
        return any(change.regressions for change in self.changes)

    @property
    def exit_status(self) -> int:
        """1 for a regression that fails; of one that was refused, its status comes before."""
        compared = REGRESSION if self.fails and self.is_regression else CLEAN
        return first_status([compared, *(r.exit_status for r in self.refused)])

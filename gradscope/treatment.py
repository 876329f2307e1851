"""What ``gradscope fix`` did, as frozen data. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from gradscope.diagnosis import Inspection

PROOF = 3.0
"""Standard errors by which a repaired model must be better. The best of some dozen scores on the
same held-out samples is taken, so two would be reached by chance too often."""


def is_clear(gain: float | None, error: float | None) -> bool:
    """Whether a held-out score is better beyond chance."""
    return gain is not None and error is not None and gain - PROOF * error > 0


class Outcome(StrEnum):
    """How a repair ended."""

    PLANNED = "planned"
    UNCHANGED = "unchanged"
    IMPROVED = "improved"
    NOT_IMPROVED = "not improved"
    EMITTED = "emitted"


@dataclass(frozen=True)
class Planned:
    """One remedy of the plan.

    Attributes:
        remedy: its name, as in ``--method``.
        why: from the diagnosis.
    """

    remedy: str
    why: str


PLAIN = Planned("plain training", "what any repair has to beat")
"""The model as it came, which is in every race."""


@dataclass(frozen=True)
class Placed:
    """What became of a scale at one place of a model.

    Attributes:
        where: the activation or the parameter.
        state: ``folded`` exactly into parameters, ``explicit`` as a product of its own in the file,
            or ``left``: there is none.
        how: into which parameters, or why not.
    """

    where: str
    state: str
    how: str


@dataclass(frozen=True)
class Stage:
    """The model at one point of its repair.

    Attributes:
        name: before, the remedy's name, or fine-tuned.
        score: on held-out data; None without labels.
        loss: mean held-out loss.
        drift: root mean square of the change of the outputs over their own root mean square, on
            held-out data, against the model as it came; None where it was not measured.
        said: what the remedy says of what it did.
        places: what became of each scale.
    """

    name: str
    score: float | None
    loss: float | None
    drift: float | None
    said: tuple[str, ...] = ()
    places: tuple[Placed, ...] = ()


@dataclass(frozen=True)
class Contestant:
    """One of those that a race was run between.

    Attributes:
        remedy: its name.
        right_after: held-out score of the model that the remedy makes, before any training.
        best: best held-out score in the race; None: it was not run.
        steps: of the optimiser in the race.
        reason: why it was not run, or ended early.
    """

    remedy: str
    right_after: float | None
    best: float | None = None
    steps: int = 0
    reason: str | None = None


@dataclass(frozen=True)
class Treatment:
    """The result of one ``gradscope fix``.

    Attributes:
        outcome: how it ended.
        summary: one sentence for people.
        plan: what was to be done, the first choice first.
        chosen: the remedy whose fine-tuned model is the result; None: none.
        metric, chance, held_out, samples: what the scores are.
        recipe: how it was fine-tuned.
        race: what was tried for a while, the best first; none where there was one remedy only.
        stages: before, after the remedy, after fine-tuning.
        steps, scores, losses: on held-out data while fine-tuning.
        trained_on: mean training loss since the score before; None at the first.
        stopped: why fine-tuning ended early.
        resumed: the step from which fine-tuning went on; None: it was not broken off.
        gain, error: of the score over the model as it came, as a share of what is above chance, and
            its paired standard error.
        written: the file that was written; None if none was.
        before, after: inspections of both.
        warnings: choices that are known to harm.
        threads: of the processor that computed, in each process.
        processes: that shared the work.
    """

    outcome: Outcome
    summary: str
    plan: tuple[Planned, ...]
    before: Inspection
    after: Inspection | None = None
    chosen: str | None = None
    metric: str | None = None
    chance: float | None = None
    held_out: str | None = None
    samples: int = 0
    recipe: str | None = None
    race: tuple[Contestant, ...] = ()
    stages: tuple[Stage, ...] = ()
    steps: tuple[int, ...] = ()
    scores: tuple[float | None, ...] = ()
    losses: tuple[float | None, ...] = ()
    trained_on: tuple[float | None, ...] = ()
    stopped: str | None = None
    resumed: int | None = None
    gain: float | None = None
    error: float | None = None
    written: str | None = None
    warnings: tuple[str, ...] = ()
    threads: int = 0
    processes: int = 1


@dataclass(frozen=True)
class Kept:
    """Where a run that has begun is kept.

    Attributes:
        checkpoints: folder of its checkpoints.
        identity: of its settings and inputs: checkpoints of another run are none of this one.
        events: folder for TensorBoard; None: none are wanted.
    """

    checkpoints: str
    identity: str
    events: str | None = None


class Run(Protocol):
    """Keeps what is needed to resume and to repeat a repair."""

    def begin(self, intent: Treatment) -> Kept:
        """Before the first step; ``intent`` says what will be done, and is kept.

        Raises:
            OutputError: it cannot be written.
        """

    def staging(self) -> str | None:
        """A folder for files that are to be renamed to where they belong; None: none is there."""

"""What a trial says: would a repaired copy of the model have learned what the model did not?

Imports no torch.
"""

from __future__ import annotations

from enum import StrEnum

from gradscope.measurements import Arm, Trial

CLEAR = 0.05
"""Least gain, as a share of what is above chance, that counts as better: below it, two healthy
starts of one network differ as well (.00 to .03 on the sample models, 800 steps)."""

ERRORS = 2.0
"""Standard errors by which a gain or a score must exceed what it is compared with."""

LEARNS = 0.1
"""Share of what is above chance that a copy must reach to have learned anything."""


FAR = 0.5
"""Gain beyond which an untreated copy that still climbs has lost all the same."""

WORKS = 0.9
"""Share of what is above chance from which an untreated copy needs no comparison and a flat one no
more steps: with less, a repaired copy that has not learned yet may come to do better."""

FLAT = 0.02
"""Gain over the last part of the steps up to which a copy is called flat."""

LATE = 0.6
"""Share of the steps after which a copy that still gains :data:`CLEAR` is climbing."""


class Outcome(StrEnum):
    """Of a trial."""

    REPAIRED_WINS = "the repaired copy wins"
    UNTREATED_HOLDS = "a repair gains nothing"
    NEITHER_LEARNS = "neither copy learns"
    STILL_LEARNING = "the untreated copy still gains"
    UNCLEAR = "too close to call"


SAID = {
    Outcome.REPAIRED_WINS: "the repaired copy does clearly better than every untreated one",
    Outcome.UNTREATED_HOLDS: "an untreated copy learns as well as the repaired one",
    Outcome.NEITHER_LEARNS: "the trial did not settle it: no copy has learned; try more steps",
    Outcome.STILL_LEARNING:
        "the trial did not settle it: an untreated copy still gains; try more steps",
    Outcome.UNCLEAR: "the trial did not settle it: too close to call, or the repaired copy has not "
        "shown what it can do; try more steps",
}  # fmt: skip
"""Each outcome, for the report."""


def outcome(trial: Trial) -> Outcome:
    """The judgement of one trial."""
    if trial.gain is None or trial.error is None:
        worked = trial.untreated.stopped is not None and trial.repaired.stopped is None
        learned = _above_chance(trial, trial.repaired.last) > LEARNS
        return Outcome.REPAIRED_WINS if worked and learned else Outcome.UNCLEAR
    repaired = _above_chance(trial, trial.repaired.last)
    if max(best(trial), repaired) < LEARNS:
        return Outcome.NEITHER_LEARNS
    if is_behind(trial.gain, trial.error):
        # A repaired copy is ahead of a healthy one that has only just begun, too.
        climbs = any(is_climbing(trial, a) for a in (trial.untreated, *trial.others))
        ahead_only = climbs and trial.gain < FAR
        return Outcome.STILL_LEARNING if ahead_only else Outcome.REPAIRED_WINS
    if trial.gain - ERRORS * trial.error > 0 and trial.gain > CLEAR:
        return Outcome.UNCLEAR
    unfinished = repaired < LEARNS or is_climbing(trial, trial.repaired)
    if unfinished and best(trial) < WORKS:
        return Outcome.UNCLEAR  # the repaired copy has not shown yet what it can do
    return Outcome.UNTREATED_HOLDS


def is_behind(gain: float, error: float) -> bool:
    """Whether a repaired copy's gain says that an untreated one is clearly behind."""
    return gain - ERRORS * error > CLEAR


def is_climbing(trial: Trial, arm: Arm) -> bool:
    """Whether a copy was still gaining when the trial ended."""
    return _climb(arm, trial.chance or 0.0) > CLEAR


def is_flat(arm: Arm, chance: float) -> bool:
    """Whether a copy gains no more."""
    return _climb(arm, chance) <= FLAT


def is_done(arm: Arm, chance: float) -> bool:
    """Whether a copy gains no more and has little left to gain: one that is flat further down may
    be on a plateau, and is given all of its steps."""
    return is_flat(arm, chance) and _share(arm.last, chance) >= WORKS


def has_learned(arm: Arm, chance: float) -> bool:
    """Whether a copy is above chance."""
    return max((_share(s, chance) for s in arm.score), default=0.0) > LEARNS


def _climb(arm: Arm, chance: float) -> float:
    """What the last part of its steps has gained."""
    scored = zip(arm.steps, arm.score, strict=False)
    late = [score for step, score in scored if step >= LATE * arm.steps[-1]]
    if not late or late[0] is None or arm.last is None:
        return 0.0
    return _share(arm.last, chance) - _share(late[0], chance)


def best(trial: Trial) -> float:
    """The untreated copy's best score, as a share of what is above chance."""
    scores = [s for s in trial.untreated.score if s is not None]
    return _above_chance(trial, max(scores, default=None))


def _above_chance(trial: Trial, score: float | None) -> float:
    return _share(score, trial.chance or 0.0)


def _share(score: float | None, chance: float) -> float:
    return 0.0 if score is None else (score - chance) / max(1 - chance, 1e-3)

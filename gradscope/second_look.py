"""Whether a verdict of "healthy" is to be doubted, and what it becomes when it is looked at again.

A report says what the numbers say. Who repairs a model can afford to ask once more: by a trial, or
of the loss on the sample itself.
"""

from __future__ import annotations

from dataclasses import replace

from gradscope.attribution import works
from gradscope.counterfactual import CLEAR, ERRORS, LEARNS
from gradscope.diagnosis import Diagnosis, Inspection, Verdict, scores_of
from gradscope.judgement import causes_of, open_questions

IN_PART = 0.8
"""Share of what a repaired copy knows above chance from which a model works, and not in part only:
digits with 30 % of the labels wrong in a narrow, saturated and healthy net are above it."""


def is_doubtful(inspection: Inspection) -> bool:
    """Whether a healthy verdict on labelled data leaves a question that a trial would answer: the
    model works in part in spite of what was found, or has learned nothing although nothing was."""
    m, skill = inspection.measurements, inspection.measurements.skill
    if skill is None or m.trial is not None or m.sample.synthetic:
        return False
    known = max(skill.value or 0.0, skill.accuracy_skill or 0.0)
    if known > 1 - CLEAR:
        return False  # there is no room for a clear gain
    return known < LEARNS or bool(open_questions(inspection.findings))


def is_confidently_wrong(inspection: Inspection) -> bool:
    """Whether a model that does not work answers better than guessing, beyond two standard errors,
    and yet its loss on the sample itself is worse than that of guessing.

    Training on the sample would have brought the loss down first of all: what is left of a start
    that is too large still decides. None of the 167 healthy networks of the zoo that know something
    is such; one that has overfitted knows its own sample.
    """
    m = inspection.measurements
    skill, own = m.skill, m.sample_skill or m.skill
    if skill is None or own is None or m.sample.synthetic or works(m):
        return False
    if skill.accuracy_skill is None or skill.accuracy_error is None:
        return False
    knows = skill.accuracy_skill - ERRORS * skill.accuracy_error > LEARNS
    return knows and own.value is not None and own.value + ERRORS * (own.error or 0.0) < 0.0


def as_wrong(judged: Diagnosis) -> Diagnosis:
    """The verdict of a healthy model that :func:`is_confidently_wrong`: a warning."""
    summary = (
        "It answers better than guessing, but its loss on the sample itself is worse than that: "
        "it is sure of what is wrong."
    )
    return replace(judged, verdict=Verdict.WARNING, summary=summary, otherwise=())


def looked_at_again(inspection: Inspection) -> Diagnosis:
    """The verdict after a trial of a doubtful model: a warning where it works, what was found
    hinges on that, and a repaired copy ended ahead of it beyond its standard errors."""
    m, judged = inspection.measurements, inspection.diagnosis
    doubts, trial = open_questions(inspection.findings), m.trial
    if judged.verdict is not Verdict.HEALTHY or not doubts or trial is None:
        return judged
    gain, error = trial.gain, trial.error
    if gain is None or error is None or gain <= CLEAR or gain <= ERRORS * error:
        return judged
    chance, known, best = trial.chance or 0.0, trial.untreated.score[0], trial.repaired.last
    if known is not None and best is not None and known - chance > IN_PART * (best - chance):
        return judged
    summary = f"It works in part: {scores_of(trial)} after {trial.steps} steps on copies."
    causes = causes_of(m, doubts)
    return replace(judged, verdict=Verdict.WARNING, summary=summary, causes=causes, otherwise=())

"""From measurements and findings to a verdict and its causes. Imports no torch.

What a network can do on labelled data comes first. Where it does not work, the findings that are
errors decide; where nobody knows whether it works, those that hinge on it leave the verdict open:
training loss exonerates nobody, and saturation convicts nobody by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from gradscope.attribution import (
    ACCURACY_SKILL,
    LEARNING,
    SKILL,
    has_learned_in_part,
    is_far_behind,
    is_scored,
    works,
)
from gradscope.config import Settings
from gradscope.counterfactual import CLEAR, Outcome, outcome
from gradscope.findings import Cause, Finding, grouped, places
from gradscope.judgement import (
    advice,
    behind,
    causes_of,
    cautions,
    deciding,
    left_open,
    not_acquitted,
    open_questions,
    sentence,
)
from gradscope.measurements import Measurements, Reference, Skill, Trial


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
    undetermined verdict, if there is one; ``otherwise`` says what would have changed the verdict;
    ``advice`` what to do about the first cause in the code that trains the model.
    """

    verdict: Verdict
    summary: str
    causes: tuple[Cause, ...]
    evidence: tuple[Evidence, ...]
    settle: str | None = None
    otherwise: tuple[str, ...] = ()
    advice: str | None = None

    @property
    def provisional(self) -> bool:
        """Whether something that can be asked for would settle it: see ``settle``."""
        return self.settle is not None


@dataclass(frozen=True)
class Inspection:
    """The result of one ``gradscope inspect``: what report formats render.

    ``settings`` are the user's, for the commands that a report prints.
    """

    measurements: Measurements
    findings: tuple[Finding, ...]
    diagnosis: Diagnosis
    settings: Settings | None = None


def if_all_could_be_learned(measured: Measurements) -> Measurements | None:
    """The same with a plain learner that knows everything: if the verdict is another one then, what
    a plain learner really reaches has to be measured. None where the model works, or knows nothing.
    """
    skill = measured.skill
    if skill is None or measured.sample.synthetic or not has_learned_in_part(measured):
        return None
    metric = "skill" if skill.accuracy_skill is None else "accuracy"
    return replace(measured, reference=Reference(1.0, 0.0, metric, "supposed", 0, 0))


def diagnose(measurements: Measurements, findings: tuple[Finding, ...]) -> Diagnosis:
    """The verdict.

    Args:
        measurements: of one model.
        findings: of the rules.
    """
    m = measurements
    judged = _judge(m, findings)
    if m.trial is None or m.sample.synthetic or Cause.NONFINITE in judged.causes:
        return judged
    causes = judged.causes or causes_of(m, [f for f in findings if f.hinges or f.severity.rank])
    return _judge_trial(judged, m.trial, causes)


def _judge_trial(judged: Diagnosis, trial: Trial, causes: tuple[Cause, ...]) -> Diagnosis:
    """An experiment outweighs what the numbers let expect; the causes are still theirs."""
    found = outcome(trial)
    after = f"after {trial.steps} steps on copies"
    scores = scores_of(trial)
    if found is Outcome.REPAIRED_WINS:
        summary = f"It does not learn what it could: {scores} {after}."
        return replace(
            judged, verdict=Verdict.UNHEALTHY, summary=summary, causes=causes, settle=None,
            otherwise=(f"healthy if the repaired copy's gain were within {CLEAR}",),
        )  # fmt: skip
    if found is Outcome.UNTREATED_HOLDS:
        summary = f"It learns as well as a repaired copy: {scores} {after}."
        return replace(
            judged, verdict=Verdict.HEALTHY, summary=summary, causes=(), settle=None, advice=None,
            otherwise=(f"unhealthy if the repaired copy's gain were clearly above {CLEAR}",),
        )  # fmt: skip
    if found is Outcome.NEITHER_LEARNS:
        summary = f"Neither a repaired nor an untreated copy learns: {scores} {after}."
        longer = f"--trial {4 * trial.steps}"
        return replace(judged, verdict=Verdict.UNDETERMINED, summary=summary, settle=longer)
    if found is Outcome.STILL_LEARNING:
        # Being behind while it gains says nothing yet: what the numbers say stands.
        summary = f"{judged.summary} It still gained when the trial ended: {scores} {after}."
        return replace(judged, summary=summary, settle=f"--trial {4 * trial.steps}")
    return judged


def scores_of(trial: Trial) -> str:
    """Where both copies of a trial ended, in words."""
    return (
        f"{trial.metric} {_score(trial.repaired.last)} repaired, "
        f"{_score(trial.untreated.last)} untreated"
    )


def _score(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.2f}"


def _judge(m: Measurements, findings: tuple[Finding, ...]) -> Diagnosis:
    labelled = is_scored(m)
    grave = deciding(findings, labelled=labelled)
    if any(f.cause is Cause.NONFINITE for f in grave):
        broken = [f for f in grave if f.cause is Cause.NONFINITE]
        if all(f.where.startswith("input ") for f in broken):
            return _broken_data(m, broken)
        summary = f"{broken[0].where}: {broken[0].message}."
        return Diagnosis(
            Verdict.UNHEALTHY, summary, (Cause.NONFINITE,), _evidence(m, broken),
            otherwise=("any other verdict if every number were finite",),
            advice=broken[0].advice,
        )  # fmt: skip
    if not m.heads and not m.was_run:
        summary = "Only weights could be examined: the architecture is missing."
        return _open(m, summary, (), [], "--arch FILE.py:factory")
    if m.sample.synthetic:
        return _on_made_up_input(m, findings)
    if works(m):
        return _working(m, findings)
    doubts = [] if labelled else open_questions(findings)
    if grave:
        return _found(m, Verdict.UNHEALTHY, [*grave, *doubts, *behind(findings, grave)], findings)
    if doubts:
        causes = causes_of(m, doubts)
        told = sentence(causes, doubts)[:-1]
        summary = f"{told}; without labels, converged and stuck look alike."
        return _open(m, summary, causes, doubts, "labels in --data")
    minor = [*cautions(findings), *left_open(m, findings)]
    if minor:
        return _found(m, Verdict.WARNING, minor, findings)
    if not m.heads:
        summary = "Nothing found in activations and weights; gradients were not measured."
        return _open(m, summary, (), [], "the same without --no-gradients")
    return _nothing_found(m, findings, labelled=labelled)


def _broken_data(m: Measurements, broken: Sequence[Finding]) -> Diagnosis:
    """What came in was not finite: nothing that came out says anything of the model."""
    summary = f"{broken[0].where}: {broken[0].message}; nothing can be said of the model."
    return Diagnosis(
        Verdict.UNDETERMINED, summary, (Cause.NONFINITE,), _evidence(m, broken),
        settle="--data without NaN or infinity",
        otherwise=("any other verdict if every number of the data were finite",),
        advice="Drop the samples with NaN or infinity from the data, or fill the gaps.",
    )  # fmt: skip


def _found(
    m: Measurements, verdict: Verdict, findings: Sequence[Finding], every: Sequence[Finding]
) -> Diagnosis:
    """A verdict that rests on ``findings``; of ``every`` finding the clearest is told."""
    causes = causes_of(m, findings)
    known = m.skill is not None
    otherwise = [_skill_that_acquits(m.skill)] if m.skill is not None else []
    otherwise += [
        _within_limit(group) for group in grouped(findings)[:3] if group[0].value is not None
    ]
    if not known:
        otherwise.append("healthy if labels in --data showed that it works")
    told = [f for f in every if f.severity.rank or f in findings]
    summary = sentence(causes, told)
    if m.reference is not None and is_far_behind(m):
        summary = f"{summary} It knows less than half of what {_plain(m.reference)} does."
        otherwise.append(f"less grave if it were level with {_plain(m.reference)}")
    return Diagnosis(
        verdict, summary, causes, _evidence(m, findings), otherwise=tuple(otherwise),
        advice=advice(causes, told),
    )  # fmt: skip


def _open(
    m: Measurements,
    summary: str,
    causes: tuple[Cause, ...],
    findings: Sequence[Finding],
    settle: str,
) -> Diagnosis:
    otherwise = []
    if settle.startswith("labels"):
        otherwise = [
            f"healthy with labels that show a skill above {SKILL}, or an accuracy that closes "
            f"{ACCURACY_SKILL:.0%} of the gap from guessing to 1; else unhealthy"
        ]
    return Diagnosis(
        Verdict.UNDETERMINED, summary, causes, _evidence(m, findings), settle=settle,
        otherwise=tuple(otherwise), advice=advice(causes, findings),
    )  # fmt: skip


def _on_made_up_input(m: Measurements, findings: Sequence[Finding]) -> Diagnosis:
    told = [f for f in findings if f.cause is not None and (f.hinges or f.severity.rank)]
    if not told:
        summary = "Nothing found on a made-up input; no verdict rests on that alone."
        return _open(m, summary, (), [], "--data SAMPLE")
    causes = causes_of(m, told)
    text = sentence(causes, told)
    return _open(m, f"On a made-up input: {text[:1].lower()}{text[1:]}", causes, told,
                 "--data SAMPLE")  # fmt: skip


def _working(m: Measurements, findings: Sequence[Finding]) -> Diagnosis:
    assert m.skill is not None
    where = "held-out data" if m.skill.held_out else "this sample"
    accuracy = "" if m.skill.accuracy is None else f", accuracy {m.skill.accuracy:.2f}"
    summary = f"It works: skill {_number(m.skill.value)}{accuracy} on {where}."
    left = not_acquitted(m, findings)
    if left:
        causes = causes_of(m, left)
        summary = f"{summary[:-1]}, but {left[0].where}: {left[0].message}."
        return Diagnosis(
            Verdict.WARNING, summary, causes, _evidence(m, left),
            otherwise=(f"healthy without {left[0].code} {left[0].name}",),
            advice=advice(causes, left),
        )  # fmt: skip
    doubts = [f for f in findings if f.cause is not None and (f.hinges or f.severity.rank)]
    otherwise = [f"undetermined without labels ({f.code} {f.name})" for f in doubts[:1]]
    otherwise.append(f"no longer healthy by its work alone at a skill of {SKILL} or less")
    return Diagnosis(Verdict.HEALTHY, summary, (), _evidence(m, []), otherwise=tuple(otherwise))


def _nothing_found(m: Measurements, findings: Sequence[Finding], *, labelled: bool) -> Diagnosis:
    summary = "Nothing found that keeps the gradient from the first layer."
    if labelled:
        summary = f"{_learned(m)}; nothing keeps the gradient from the first layer."
    otherwise = ["unhealthy if a finding were an error: see gradscope rule"]
    if m.trial is None and labelled:
        otherwise.append("--trial 400 shows whether it learns when trained on")
    return Diagnosis(Verdict.HEALTHY, summary, (), _evidence(m, []), otherwise=tuple(otherwise))


def _learned(m: Measurements) -> str:
    """What the labelled data say of a model that they do not acquit."""
    skill, own = m.skill, m.sample_skill
    assert skill is not None
    of_sample = max(own.value or 0.0, own.accuracy_skill or 0.0) if own is not None else 0.0
    best = max(skill.value or 0.0, skill.accuracy_skill or 0.0)
    if skill.held_out and of_sample > SKILL and best < SKILL:
        return "It knows the sample but not the held-out data (overfitted, or wrong labels)"
    if best > LEARNING:
        than = "" if m.reference is None else f", {_plain(m.reference)}"
        return f"It has learned its task in part (skill {_number(skill.value)}{than})"
    return "It has not learned its task, or not yet"


def _skill_that_acquits(skill: Skill) -> str:
    now = f"{_number(skill.value)} +-{_number(skill.error)}"
    text = f"healthy if its skill were clearly above {SKILL} (it is {now})"
    if skill.accuracy_skill is None:
        return text
    return f"{text} or its accuracy closed {ACCURACY_SKILL:.0%} of the gap from guessing to 1 " + (
        f"({round(skill.accuracy_skill, 2) + 0.0:.0%})"
    )


def _within_limit(group: Sequence[Finding]) -> str:
    finding = group[0]
    return f"less grave if {finding.code} {finding.name} were within {_number(finding.threshold)}"


def _plain(other: Reference) -> str:
    return f"a plain learner on {other.samples} samples ({other.metric} {other.score:.2f})"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g}"


def _evidence(m: Measurements, findings: Sequence[Finding]) -> tuple[Evidence, ...]:
    """What the verdict rests on: skill and trial, the findings, and the main measurements."""
    found: list[Evidence] = []
    if m.skill is not None:
        where = "held-out" if m.skill.held_out else "on the sample"
        found.append(Evidence(f"skill {where}", m.skill.value, SKILL))
        if m.skill.accuracy_skill is not None:
            statement = f"accuracy above guessing, {where}"
            found.append(Evidence(statement, m.skill.accuracy_skill, ACCURACY_SKILL))
    if m.reference is not None:
        how = f"{m.reference.how}, {m.reference.samples} samples"
        statement = f"{m.reference.metric} above guessing of a plain learner ({how})"
        found.append(Evidence(statement, m.reference.score, None))
    if m.trial is not None:
        statement = "gain of a repaired copy over an untreated one, share of what is above chance"
        found.append(Evidence(statement, m.trial.gain, CLEAR))
    found += [
        Evidence(f"{f.code} {f.name}, {places(group)}: {f.message}", f.value, f.threshold)
        for group in grouped(findings)
        for f in group[:1]
    ]
    found.append(Evidence("saturated, mean over hidden sites", m.hidden_saturation, None))
    if m.ledger is not None:
        found.append(Evidence("g, decades from last to first site", m.ledger.gain, None))
        if m.ledger.gain is None and m.heads:
            gain = m.heads[0].input_gain
            found.append(Evidence("decades from output to first site", gain, None))
    return tuple(found)

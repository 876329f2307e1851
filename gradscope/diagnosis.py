"""From measurements and findings to a verdict and its causes. Imports no torch.

The thresholds are those of the first calibration, on small networks; the verdict is provisional and
says so. Training loss exonerates nobody and saturation convicts nobody by itself: what a network
can do on labelled data comes first, then saturation, then the loss of gradient.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from gradscope.attribution import (
    SKILL,
    attenuation_causes,
    bounded_hidden,
    saturation_cause,
    works,
)
from gradscope.config import Settings
from gradscope.counterfactual import CLEAR, Outcome, outcome
from gradscope.findings import Cause, Finding
from gradscope.measurements import Measurements, Trial

SATURATED = 0.70
ATTENUATED, WEAK = -3.0, -2.0
COLLAPSED = 1e-6
"""Between-sample variance over mean square at the last hidden activation: below it all samples
look alike to what follows. Unlike a ratio of gradients it cannot be talked away by moving scale
from one layer to the next."""


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
    """The result of one ``gradscope inspect``: what report formats render.

    ``settings`` are the user's, for the commands that a report prints.
    """

    measurements: Measurements
    findings: tuple[Finding, ...]
    diagnosis: Diagnosis
    settings: Settings | None = None


_WORDS = {
    Cause.FLAT_SLOPE: "the activation's slope is at most a fraction, layer after layer",
    Cause.DEPTH_DERIVATIVE: "the product of the activations' derivatives shrinks with depth",
    Cause.SMALL_WEIGHTS: "the weights are too small, layer after layer",
    Cause.DEPTH_GAIN: "the weights' gain is a little too small, layer after layer",
    Cause.LARGE_PARAMETERS: "large weights drive the units out of their working range",
    Cause.LARGE_INPUTS: "the scale of the input, not of the weights, saturates the first layer",
}


def diagnose(measurements: Measurements, findings: tuple[Finding, ...]) -> Diagnosis:
    """The provisional verdict.

    Args:
        measurements: of one model.
        findings: of the rules; non-finite ones decide.
    """
    m = measurements
    evidence = _evidence(m)
    broken = [f for f in findings if f.cause is Cause.NONFINITE]
    if broken:
        summary = f"{broken[0].where}: {broken[0].message}."
        return Diagnosis(Verdict.UNHEALTHY, summary, (Cause.NONFINITE,), evidence)
    if not m.heads:
        summary = "Only weights could be examined: the architecture is missing."
        return Diagnosis(
            Verdict.UNDETERMINED, summary, (), evidence, settle="--arch FILE.py:factory"
        )
    judged = _judge(m, evidence)
    if m.sample.synthetic and judged.verdict is not Verdict.HEALTHY:
        summary = f"On a made-up input: {judged.summary[:1].lower()}{judged.summary[1:]}"
        return Diagnosis(
            Verdict.UNDETERMINED, summary, judged.causes, evidence, settle="--data SAMPLE"
        )
    if m.sample.synthetic:
        summary = "Nothing found on a made-up input; no verdict rests on that alone."
        return Diagnosis(Verdict.UNDETERMINED, summary, (), evidence, settle="--data SAMPLE")
    return judged


def _judge_trial(judged: Diagnosis, trial: Trial) -> Diagnosis:
    """An experiment outweighs what the numbers let expect; the causes are still theirs."""
    found = outcome(trial)
    after = f"after {trial.steps} steps on copies"
    scores = (
        f"{trial.metric} {_score(trial.repaired.last)} repaired, "
        f"{_score(trial.untreated.last)} untreated"
    )
    if found is Outcome.REPAIRED_WINS:
        summary = f"It does not learn what it could: {scores} {after}."
        return replace(judged, verdict=Verdict.UNHEALTHY, summary=summary, settle=None)
    if found is Outcome.UNTREATED_HOLDS:
        summary = f"It learns as well as a repaired copy: {scores} {after}."
        return replace(judged, verdict=Verdict.HEALTHY, summary=summary, causes=(), settle=None)
    if found is Outcome.NEITHER_LEARNS:
        summary = f"Neither a repaired nor an untreated copy learns: {scores} {after}."
        longer = f"--trial {4 * trial.steps}"
        return replace(judged, verdict=Verdict.UNDETERMINED, summary=summary, settle=longer)
    return judged


def _score(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.2f}"


def _judge(m: Measurements, evidence: tuple[Evidence, ...]) -> Diagnosis:
    judged = _judge_numbers(m, evidence)
    return judged if m.trial is None else _judge_trial(judged, m.trial)


def _judge_numbers(m: Measurements, evidence: tuple[Evidence, ...]) -> Diagnosis:
    if works(m):
        assert m.skill is not None
        where = "held-out data" if m.skill.held_out else "this sample"
        summary = f"It works: skill {m.skill.value:.2f} on {where}."
        return Diagnosis(Verdict.HEALTHY, summary, (), evidence)
    saturated = m.hidden_saturation
    if saturated is not None and saturated > SATURATED:
        return _judge_saturated(m, saturated, evidence)
    ledger = m.ledger
    g = ledger.gain if ledger is not None else None
    if ledger is not None and g is not None and g < WEAK:
        causes = attenuation_causes(m, ledger)
        why = f": {_WORDS[causes[0]]}" if causes else ""
        summary = (
            f"The gradient loses {-g:.1f} decades between the last and the first hidden "
            f"activation{why}."
        )
        verdict = Verdict.UNHEALTHY if g < ATTENUATED else Verdict.WARNING
        return Diagnosis(verdict, summary, causes, evidence)
    spread = _last_spread(m)
    if spread is not None and spread < COLLAPSED:
        summary = (
            f"All samples look alike to the last hidden activation: variance between them is "
            f"{spread:.0e} of the mean square."
        )
        return Diagnosis(Verdict.UNHEALTHY, summary, (Cause.FORWARD_COLLAPSE,), evidence)
    saturated_by = _first_layer_cause(m)
    if saturated_by is Cause.LARGE_INPUTS:
        summary = f"One layer hardly learns: {_WORDS[saturated_by]}."
        return Diagnosis(Verdict.WARNING, summary, (saturated_by,), evidence)
    summary = "Nothing found that keeps the gradient from the first layer."
    return Diagnosis(Verdict.HEALTHY, summary, (), evidence)


def _last_spread(m: Measurements) -> float | None:
    """Between-sample variance over mean square at the hidden activation next to the output."""
    entries = m.ledger.entries if m.ledger is not None else ()
    last = entries[0].site if entries else None
    return next((s.sample_variance_ratio for s in m.sites if s.id == last), None)


def _judge_saturated(
    m: Measurements, saturated: float, evidence: tuple[Evidence, ...]
) -> Diagnosis:
    cause = saturation_causes(m)
    if m.skill is None or m.skill.value is None:
        summary = f"{saturated:.0%} saturated; without labels, converged and stuck look alike."
        return Diagnosis(Verdict.UNDETERMINED, summary, cause, evidence, settle="labels in --data")
    why = f": {_WORDS[cause[0]]}" if cause else ""
    summary = f"{saturated:.0%} of the hidden activations are saturated{why}."
    return Diagnosis(Verdict.UNHEALTHY, summary, cause, evidence)


def saturation_causes(m: Measurements) -> tuple[Cause, ...]:
    """Causes of saturation over all saturated sites, the commonest first."""
    found: dict[Cause, int] = {}
    for site in bounded_hidden(m):
        if (site.saturated_fraction or 0.0) > SATURATED:
            cause = saturation_cause(m, site)
            if cause is not None:
                found[cause] = found.get(cause, 0) + 1
    return tuple(sorted(found, key=lambda c: (-found[c], c.value)))


def _first_layer_cause(m: Measurements) -> Cause | None:
    first = next(iter(bounded_hidden(m)), None)
    if first is None or (first.saturated_fraction or 0.0) <= SATURATED:
        return None
    return saturation_cause(m, first)


def _evidence(m: Measurements) -> tuple[Evidence, ...]:
    found: list[Evidence] = []
    if m.skill is not None:
        where = "held-out" if m.skill.held_out else "on the sample"
        found.append(Evidence(f"skill {where}", m.skill.value, SKILL))
    if m.trial is not None:
        statement = "gain of a repaired copy over an untreated one, share of what is above chance"
        found.append(Evidence(statement, m.trial.gain, CLEAR))
    found.append(Evidence("saturated, mean over hidden sites", m.hidden_saturation, SATURATED))
    ledger = m.ledger
    if ledger is not None:
        found.append(Evidence("g, decades from last to first site", ledger.gain, ATTENUATED))
        spread = _last_spread(m)
        if spread is not None:
            statement = "variance between samples over mean square, last hidden activation"
            found.append(Evidence(statement, spread, COLLAPSED))
        if ledger.gain is None and m.heads:
            gain = m.heads[0].input_gain
            found.append(Evidence("decades from output to first site", gain, None))
    return tuple(found)

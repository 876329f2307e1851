"""Which cause a loss of gradient or a saturated layer points to. Imports no torch.

Used by the rules and by the diagnosis, so that both name the same cause.
"""

from __future__ import annotations

import math

from gradscope.findings import Cause
from gradscope.measurements import Ledger, Measurements, Role, Site

SMALL_WEIGHT_DECADES = 0.45
"""Decades a layer above which weights are called small, and not only deep (first calibration)."""

SATURATED_SITE = 0.70
"""Saturated share of a layer from which saturation is what makes its derivative small."""

SATURATED_MODEL = 0.70
"""Mean saturated share of a model from which saturation does the harm: 163 planted faults were
above it, 127 healthy networks below."""

SATURATED_ALONE = 0.96
"""Saturated share of a single layer, above what healthy networks show in one of theirs."""

FAR_TOO_LARGE = 3.2
"""Median size from which weights are far too large, and explain an explosion; below it a moderate
gain does, layer after layer, and it drives units into saturation as well."""

DEAD_LAYER = 0.99
"""Dead share of a layer from which no gradient comes through it."""

LOST_IN_TIME = -6.0
"""Decades through time below which a recurrent layer has lost its gradient."""

INPUT_RMS = 3.0
"""Root mean square of an input above which its scale, and not only the weights', makes z large:
with weights of the usual size it saturates 55 % of a tanh."""

USUAL_RATIO = 2.0
"""init_ratio up to which weights are of a usual size: no common initialisation gives more."""

SKILL = 0.5
"""Skill, 1 - loss / loss of guessing, beyond two standard errors, that shows that a model works."""

ACCURACY_SKILL = 0.6
"""The same for accuracy above the commonest answer. Scaling all weights up leaves the answers as
they are and multiplies the loss, so either acquits."""

LEARNING = 0.1
"""Skill beyond two standard errors that shows that a model has learned something."""

FAR_BEHIND = 0.5
"""Share of what a plain learner reaches on the same samples below which a model that has learned
something is far behind. With something wrong as well, the zoo's first two parts have stuck ones at
.23 and .47 and a healthy one at .66; the third has stuck ones at .30 and .40, healthy ones at .43
and .65."""

BOTH = (0.2, 0.5)
"""Skill and accuracy's skill that acquit together: on wrong labels neither can be high."""

ALONE = 3.0
"""Decades of slope that are enough by themselves, whatever the other sources add."""


_RECURRENT = ("LSTM", "GRU", "RNN")
"""Kinds of recurrent layers."""

_HIDDEN = "weight_hh"


def attenuation_causes(measured: Measurements, ledger: Ledger) -> tuple[Cause, ...]:
    """The largest of -S, -W, -A first, then what costs at least half as much and a decade.

    The slope is a property of the activation and does not move with training; where it alone is
    enough to lose the gradient it comes before the derivative, which saturation adds to it. Where
    one saturated layer makes most of the derivative's part, what saturates it is the cause.
    """
    parts = {"slope": ledger.slope, "weight": ledger.weight, "activation": ledger.activation}
    losses = {name: -value for name, value in parts.items() if value is not None}
    if not losses or max(losses.values()) <= 0:
        return ()
    order = sorted(losses, key=lambda name: -losses[name])
    if order[0] == "activation" and losses.get("slope", 0.0) >= ALONE:
        order = ["slope", *(name for name in order if name != "slope")]
    floor = max(1.0, losses[order[0]] / 2)
    kept = [name for i, name in enumerate(order) if i == 0 or losses[name] >= floor]
    layers = max(len(ledger.entries) - 1, 1)
    causes = [_cause(name, losses[name] / layers) for name in kept]
    behind = _behind_derivative(measured, ledger, losses.get("activation", 0.0))
    if behind is not None:
        causes = [behind if c is Cause.DEPTH_DERIVATIVE else c for c in causes]
    return tuple(causes)


def _behind_derivative(measured: Measurements, ledger: Ledger, lost: float) -> Cause | None:
    """What saturates the one layer at which most of the derivative's part is lost, if one does."""
    known = [e for e in ledger.entries if e.activation is not None]
    worst = min(known, key=lambda e: e.activation or 0.0, default=None)
    if worst is None or -(worst.activation or 0.0) < lost / 2:
        return None
    site = next((s for s in measured.sites if s.id == worst.site), None)
    if site is None or (site.saturated_fraction or 0.0) <= SATURATED_SITE:
        return None
    return saturation_cause(measured, site)


def _cause(source: str, per_layer: float) -> Cause:
    if source == "weight":
        return Cause.SMALL_WEIGHTS if per_layer > SMALL_WEIGHT_DECADES else Cause.DEPTH_GAIN
    return Cause.FLAT_SLOPE if source == "slope" else Cause.DEPTH_DERIVATIVE


def works(measured: Measurements) -> bool:
    """Whether labelled data show that the model does its task, whatever else was measured."""
    skill = measured.skill
    if skill is None:
        return False
    by_loss = _beyond_error(skill.value, skill.error)
    by_answers = _beyond_error(skill.accuracy_skill, skill.accuracy_error)
    both = by_loss > BOTH[0] and by_answers > BOTH[1]
    return by_loss > SKILL or by_answers > ACCURACY_SKILL or both


def _beyond_error(value: float | None, error: float | None) -> float:
    return -math.inf if value is None or error is None else value - 2 * error


def is_scored(measured: Measurements) -> bool:
    """Whether labelled data tell how well the model does its task."""
    skill = measured.skill
    return skill is not None and (skill.value is not None or skill.accuracy_skill is not None)


def fails_at_its_task(measured: Measurements) -> bool:
    """Whether labelled data show that the model is no better than guessing, confidently wrong, or
    :func:`is_far_behind` what can be learned.

    Between this and :func:`works` lie networks that are learning, and some that are stuck half-way:
    what is wrong with their size is then no more than a warning.
    """
    return _knows_nothing(measured) or is_far_behind(measured)


def has_learned_in_part(measured: Measurements) -> bool:
    """Whether it is better than guessing and yet does not work: what can be learned matters."""
    known = is_scored(measured) and not works(measured)
    return known and not _knows_nothing(measured)


def is_far_behind(measured: Measurements) -> bool:
    """Whether a model that has learned something knows less than half of what a plain learner
    does, beyond two standard errors.

    By itself that is no fault: a network in its first steps is behind, too. Where something is
    wrong with its numbers as well, it will not catch up.
    """
    skill, other = measured.skill, measured.reference
    if skill is None or other is None or not has_learned_in_part(measured):
        return False
    accuracy = other.metric == "accuracy"
    value = skill.accuracy_skill if accuracy else skill.value
    error = skill.accuracy_error if accuracy else skill.error
    if value is None or error is None or value >= FAR_BEHIND * other.score:
        return False
    return other.score - value > 2 * math.hypot(error, other.error)


def _knows_nothing(measured: Measurements) -> bool:
    if not is_scored(measured) or works(measured):
        return False
    skill = measured.skill
    assert skill is not None
    return _beyond_error(skill.value, skill.error) < LEARNING


def is_at_chance(measured: Measurements) -> bool:
    """Whether no score of the labelled data is better than guessing, beyond two standard errors."""
    skill = measured.skill
    if skill is None or not is_scored(measured):
        return False
    scores = ((skill.value, skill.error), (skill.accuracy_skill, skill.accuracy_error))
    return all(_beyond_error(value, error) <= 0.0 for value, error in scores)


def bounded_hidden(measured: Measurements) -> list[Site]:
    """Hidden activations that can saturate, in execution order."""
    hidden = (s for s in measured.sites if s.role is Role.HIDDEN)
    return [s for s in hidden if s.saturated_fraction is not None]


def weights_feeding(measured: Measurements, site: Site) -> list[float]:
    """init_ratio of the matrices that feed a site."""
    ratios = {p.name: p.weight.init_ratio for p in measured.parameters}
    return [r for r in (ratios.get(name) for name in site.parameters) if r is not None]


def is_entry(measured: Measurements, site: Site) -> bool:
    """Whether the input reaches the site through the very first layer: the first activation in
    execution order, and what shares its parameters (the gates of one cell)."""
    first = next(iter(measured.sites), None)
    if first is None:
        return False
    return first.id == site.id or bool(set(first.parameters) & set(site.parameters))


def input_rms(measured: Measurements) -> float | None:
    """Root mean square of the largest floating-point input; None where there is none."""
    return max((i.rms for i in measured.inputs if i.rms is not None), default=None)


def saturation_cause(measured: Measurements, site: Site) -> Cause | None:
    """What makes z large at a site: its weights, or the scale of what comes in.

    z is about init_ratio times the input's root mean square; with either of them at its usual size
    (1) it would be as large as the other, so the larger one is the cause. Only the first layer can
    meet large inputs: behind a bounded activation they are at most 1.
    """
    if site.pre_activation_rms is None:
        return None
    ratios = weights_feeding(measured, site)
    largest = max(ratios, default=None)
    incoming = input_rms(measured) if is_entry(measured, site) else None
    if incoming is not None and incoming > max(INPUT_RMS, largest or 0.0):
        return Cause.LARGE_INPUTS
    if largest is None:  # a norm's scale: a vector has no fan-in to compare with
        return Cause.LARGE_PARAMETERS
    return Cause.LARGE_PARAMETERS if largest >= USUAL_RATIO or _biased(site, largest) else None


def _biased(site: Site, ratio: float) -> bool:
    """z far larger than the weights can make it from activations of at most 1: large biases."""
    return (site.pre_activation_rms or 0.0) > 3.0 * max(ratio, 1.0)


LOGISTIC = 4.0
"""1 / phi'_0 of a logistic unit: a centred start has weights so much larger than others."""


def sizes(measured: Measurements) -> dict[str, float]:
    """init_ratio of every weight matrix, in a logistic network over what is usual there."""
    hidden = [s for s in measured.sites if s.role is Role.HIDDEN]
    logistic = sum(s.kind in ("sigmoid", "hardsigmoid") for s in hidden)
    usual = LOGISTIC if hidden and 2 * logistic > len(hidden) else 1.0
    every = ((p.name, p.weight.init_ratio) for p in measured.parameters)
    return {name: ratio / usual for name, ratio in every if ratio is not None}


def recurrent_matrices(measured: Measurements) -> set[str]:
    """Weight matrices from one time step to the next: by torch's names, in ONNX, which keeps none,
    the second one of a recurrent node (W, R)."""
    named = {p.name for p in measured.parameters if p.name.rpartition(".")[2].startswith(_HIDDEN)}
    if named:
        return named
    nodes = [layer for layer in measured.layers if layer.kind in _RECURRENT]
    every = {p.name for p in measured.parameters if len(p.shape) == 2}
    matrices = ([n for n in layer.parameters if n in every] for layer in nodes)
    return {mine[1] for mine in matrices if len(mine) == 2}


def zero_matrices(measured: Measurements) -> list[str]:
    """Weight matrices that are 0 in every element."""
    weights = ((p.name, p.weight) for p in measured.parameters if not p.weight.nonfinite_fraction)
    return [name for name, w in weights if w.init_ratio == 0.0]


def typical_ratio(measured: Measurements) -> float | None:
    """Median of :func:`sizes`."""
    ratios = sorted(sizes(measured).values())
    return ratios[len(ratios) // 2] if ratios else None


LONE = 0.7
"""Share of what the weights lose from which it is called the loss of one layer alone."""


def lone_layer(ledger: Ledger, share: float = LONE) -> str | None:
    """The layer at which most of what is lost to weights is lost, if there is one.

    Its own gradient is not small, so it usually recovers, unlike the same loss spread over layers.
    What other layers gain does not count: moving scale about would change the answer.
    """
    lost = [(e.weight or 0.0, e.label) for e in ledger.entries if (e.weight or 0.0) < 0]
    if len(ledger.entries) < 3 or not lost:
        return None
    worst, label = min(lost)
    return label if worst < -1.0 and worst <= share * sum(w for w, _ in lost) else None

"""What the curves of a trial's copies tell."""

from __future__ import annotations

import pytest

from gradscope.counterfactual import Outcome, has_learned, is_done, is_flat, outcome
from gradscope.measurements import Arm, Trial


@pytest.mark.parametrize(
    ("scores", "flat", "learned"),
    [
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], False, True),
        ([0.1, 0.5, 0.6, 0.6, 0.6, 0.6], True, True),
        ([0.1, 0.5, 0.9, 0.5, 0.4, 0.3], True, True),  # getting worse is no gain
        ([0.1, 0.1, 0.1, 0.1, 0.1, 0.1], True, False),
        ([0.1, 0.1, 0.1, 0.1, 0.1, None], True, False),
    ],
)
def test_a_curve_is_flat_where_it_gains_no_more(scores, flat, learned):
    arm = Arm(tuple(range(6)), tuple(scores), tuple(scores))
    assert is_flat(arm, 0.1) is flat
    assert has_learned(arm, 0.1) is learned


@pytest.mark.parametrize(
    ("scores", "done"),
    [
        ([0.1, 0.5, 0.95, 0.95, 0.95, 0.95], True),
        ([0.1, 0.5, 0.6, 0.6, 0.6, 0.6], False),  # a plateau, perhaps
        ([0.1, 0.5, 0.8, 0.85, 0.9, 0.95], False),
        ([0.1, 0.95, 0.95, 0.95, 0.5, None], False),
    ],
)
def test_only_a_copy_with_little_left_to_gain_is_done(scores, done):
    assert is_done(Arm(tuple(range(6)), tuple(scores), tuple(scores)), 0.1) is done


def trial(untreated: list[float | None], repaired: list[float | None], **given) -> Trial:
    def arm(scores):
        steps = tuple(round(10 * i / max(len(scores) - 1, 1)) for i in range(len(scores)))
        return Arm(steps, tuple(scores), tuple(scores), given.get("stopped"))

    last, best = repaired[-1], max((s for s in untreated if s is not None), default=None)
    gain = None if last is None or best is None else (last - best) / 0.9
    values = {"gain": gain, "error": None if gain is None else given.get("error", 0.02)}
    return Trial(
        10, "Adam", "restart", (), "accuracy", "--val", 450, 0.1, arm(untreated), arm(repaired),
        **values,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("untreated", "repaired", "given", "expected"),
    [
        ([0.1, 0.2], [0.1, 0.9], {}, Outcome.REPAIRED_WINS),
        ([0.97, 0.97], [0.1, 0.96], {}, Outcome.UNTREATED_HOLDS),
        ([0.97, 0.97], [0.1, 0.99], {}, Outcome.UNTREATED_HOLDS),
        ([0.1, 0.11], [0.1, 0.12], {}, Outcome.NEITHER_LEARNS),
        ([0.6, 0.7], [0.1, 0.8], {"error": 0.04}, Outcome.UNCLEAR),
        ([0.6, 0.7], [0.1, 0.8], {"error": 0.1}, Outcome.UNTREATED_HOLDS),
        ([0.9, 0.2], [0.1, 0.85], {}, Outcome.UNTREATED_HOLDS),  # it was better before training
        ([0.5, 0.6], [0.1, None], {}, Outcome.UNCLEAR),
        ([0.1, 0.3, 0.4, 0.4, 0.4], [0.1, 0.1, 0.2, 0.3, 0.4], {}, Outcome.UNCLEAR),
        ([0.1, 0.3, 0.4, 0.4, 0.4], [0.1, 0.3, 0.4, 0.4, 0.4], {}, Outcome.UNTREATED_HOLDS),
        # One that beats a repaired copy which has not learned yet is not acquitted by it.
        ([0.1, 0.7, 0.8, 0.8, 0.8], [0.1, 0.1, 0.2, 0.3, 0.4], {}, Outcome.UNCLEAR),
        ([0.1, 0.4, 0.4, 0.4, 0.4], [0.1, 0.11, 0.11, 0.11, 0.11], {}, Outcome.UNCLEAR),
        ([0.1, 0.9, 0.95, 0.95, 0.95], [0.1, 0.1, 0.2, 0.3, 0.4], {}, Outcome.UNTREATED_HOLDS),
        ([0.1, 0.4, 0.5, 0.6, 0.7], [0.1, 0.6, 0.8, 0.9, 0.9], {}, Outcome.STILL_LEARNING),
        ([0.1, 0.4, 0.6, 0.6, 0.61], [0.1, 0.6, 0.8, 0.9, 0.9], {}, Outcome.REPAIRED_WINS),
        ([0.1, 0.1, 0.1, 0.1, 0.2], [0.1, 0.6, 0.8, 0.9, 0.9], {}, Outcome.REPAIRED_WINS),
    ],
)
def test_outcomes(untreated, repaired, given, expected):
    assert outcome(trial(untreated, repaired, **given)) is expected

"""What trains the copies of a trial: as asked for, as in the checkpoint, or as usual."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gradscope.config import ProbeSettings
from gradscope.errors import OptionError
from gradscope.findings import Cause
from gradscope.optimisers import Optimiser
from gradscope.repair.trial_recipes import choose, is_recurrent, recipe_of, untreated
from tests.report.examples import EXAMPLES

OWN = Optimiser("sgd", 0.02, (("momentum", 0.9),))


@pytest.mark.parametrize(
    ("given", "own", "said", "rates", "source"),
    [
        ({}, None, "Adam 0.001", 3, "the file keeps no optimiser"),
        ({}, "it holds 2 optimisers", "Adam 0.001", 3,
         "the checkpoint's is not used: it holds 2 optimisers"),
        ({}, OWN, "SGD 0.02, momentum 0.9", 1, "as in the checkpoint"),
        ({"trial_rate": 0.1}, OWN, "SGD 0.1, momentum 0.9", 1,
         "as in the checkpoint, the rate as asked for"),
        ({"trial_momentum": 0.5}, OWN, "SGD 0.02, momentum 0.5", 1, "as in the checkpoint"),
        ({"trial_optimizer": "rmsprop"}, OWN, "RMSprop 0.001", 3, "as asked for"),
        ({"trial_optimizer": "sgd"}, OWN, "SGD 0.02, momentum 0.9", 1, "as asked for"),
        ({"trial_optimizer": "sgd"}, None, "SGD 0.01, momentum 0.9", 3, "as asked for"),
        ({"trial_optimizer": "sgd", "trial_momentum": 0.0, "trial_rate": 0.1}, None, "SGD 0.1", 1,
         "as asked for, the rate as asked for"),
        ({"trial_optimizer": "adamw", "trial_rate": 3e-3}, None, "AdamW 0.003", 1,
         "as asked for, the rate as asked for"),
    ],
)  # fmt: skip
def test_what_trains_the_copies(given, own, said, rates, source):
    choice = choose(ProbeSettings(trial=9, **given), own, deep=False)
    assert str(choice.optimiser) == said
    assert len(choice.rates) == rates
    assert choice.rates[0] == choice.optimiser.rate
    assert choice.source == source


def test_a_deep_network_is_tried_at_lower_rates():
    rates = choose(ProbeSettings(trial=9), None, deep=True).rates
    assert rates == pytest.approx((3e-4, 3e-3, 3e-5))


@pytest.mark.parametrize(
    ("recurrent", "causes", "repaired", "untouched"),
    [
        (False, (), None, None),
        (False, (Cause.EXPLODING,), 1.0, None),
        (True, (), 1.0, 1.0),
        (True, (Cause.EXPLODING,), 1.0, 1.0),
    ],
)
def test_clipping_is_a_part_of_the_repair(recurrent, causes, repaired, untouched):
    """But for recurrent networks, where everyone clips."""
    found = EXAMPLES["recurrent" if recurrent else "healthy"]()
    assert is_recurrent(found) is recurrent
    recipe = recipe_of(choose(ProbeSettings(trial=9), None, deep=False), found, causes, 9, None)
    assert recipe.clip == repaired
    other = untreated(recipe, found, 1e-2)
    assert (other.clip, other.rate) == (untouched, 1e-2)
    assert replace(other, clip=recipe.clip, rate=recipe.rate) == recipe


def test_without_momentum_there_is_no_nesterov():
    own = Optimiser("sgd", 0.01, (("momentum", 0.9), ("nesterov", True)))
    choice = choose(ProbeSettings(trial=9, trial_momentum=0.0), own, deep=False)
    assert dict(choice.optimiser.settings) == {"momentum": 0.0}


def test_adam_has_no_momentum_of_its_own():
    with pytest.raises(OptionError, match="--trial-momentum: Adam has no momentum"):
        choose(ProbeSettings(trial=9, trial_momentum=0.5), None, deep=False)

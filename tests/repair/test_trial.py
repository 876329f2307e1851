"""A trial: two copies, trained alike, scored on samples that neither saw."""

from __future__ import annotations

import copy
import itertools
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gradscope import pipeline
from gradscope.config import DataSettings, LoadSettings, ProbeSettings, Settings
from gradscope.counterfactual import SAID, Outcome, has_learned, is_done, is_flat, outcome
from gradscope.diagnosis import Verdict, diagnose
from gradscope.errors import OptionError
from gradscope.findings import Cause, Skipped
from gradscope.measurements import Arm, Trial
from gradscope.model import LoadedModel
from gradscope.optimisers import Optimiser
from gradscope.progress import Silent
from gradscope.repair import run_trial
from gradscope.repair.minibatches import Minibatches
from gradscope.repair.recipe import Recipe
from gradscope.repair.restart import restart
from gradscope.repair.suspects import find_suspects
from gradscope.repair.trial_recipes import choose, is_recurrent, recipe_of, untreated
from gradscope.rules import run_rules
from tests.report.examples import EXAMPLES
from tests.support import measured, sample_of

SAMPLES = Path(__file__).parent.parent.parent / "sample_models"
sys.path.insert(0, str(SAMPLES))
import build  # noqa: E402

DATA = build.digits()
X, Y = DATA.train


def inspected(name: str, steps: int, arch: str | None = None):
    raw = "_raw" if "raw" in name else ""
    factory = f"{SAMPLES / 'architectures.py'}:{arch}" if arch else None
    data = DataSettings(str(SAMPLES / f"digits{raw}.npz"), str(SAMPLES / f"digits{raw}_val.npz"))
    settings = Settings(
        str(SAMPLES / name),
        LoadSettings(factory),
        replace(data, samples=None),
        ProbeSettings(trial=steps, trial_rate=1e-3),
    )
    return pipeline.inspect(settings)


@pytest.mark.parametrize(
    ("name", "arch", "verdict", "first"),
    [
        ("deep_tanh.pt", None, Verdict.UNHEALTHY, Cause.DEPTH_GAIN),
        ("saturated_tanh.pt", None, Verdict.UNHEALTHY, Cause.LARGE_PARAMETERS),
        ("plateaued_tanh.pt", None, Verdict.UNHEALTHY, None),
        ("logistic.pt", None, Verdict.UNHEALTHY, Cause.FLAT_SLOPE),
        ("small_weights.pt", None, Verdict.UNHEALTHY, Cause.SMALL_WEIGHTS),
        ("raw_pixels.pt", None, Verdict.UNHEALTHY, Cause.LARGE_INPUTS),
        ("healthy_tanh.pt", None, Verdict.HEALTHY, None),
        ("relu.pt", None, Verdict.HEALTHY, None),
        ("lstm_state.pt", "lstm_classifier", Verdict.HEALTHY, None),
        ("residual_state.pt", "residual_mlp", Verdict.HEALTHY, None),
    ],
)
def test_sample_models(name, arch, verdict, first):
    found = inspected(name, 60, arch)
    trial = found.measurements.trial
    assert 60 <= trial.repaired.steps[-1] <= trial.untreated.steps[-1] <= trial.steps <= 240
    assert found.diagnosis.verdict is verdict
    if first is not None:
        assert found.diagnosis.causes[0] is first


def tried(module: nn.Module, x: torch.Tensor, y: torch.Tensor | None, **given):
    steps = given.pop("steps", 40)
    validation = given.pop("validation", None)
    batch, own = given.pop("batch", None), given.pop("own", None)
    found = measured(module, x, y, validation=validation)
    causes = diagnose(found, run_rules(found)).causes
    settings = Settings("model", probe=ProbeSettings(trial=steps, **given))
    model = LoadedModel("model", "PyTorch module", module, batch=batch, optimiser=own)
    sample = sample_of(x, y, 200)
    return run_trial(model, sample, validation, found, causes, settings, Silent())


class Noisy(nn.Module):
    """Dropout, batch norm, a counter, a frozen layer: all that a trial could leave changed."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm = nn.Linear(64, 16), nn.BatchNorm1d(16)
        self.drop, self.b = nn.Dropout(), nn.Linear(16, 10)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.b.weight.requires_grad_(False)

    def forward(self, x):
        self.calls += 1
        return self.b(self.drop(torch.tanh(self.norm(self.a(x)))))


def test_the_model_is_as_it_was():
    torch.manual_seed(0)
    module = Noisy()
    module(X[:50])
    before = copy.deepcopy(module.state_dict())
    random = torch.get_rng_state()
    assert isinstance(tried(module, X, Y), Trial)
    after = module.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert torch.equal(random, torch.get_rng_state())
    assert module.training
    assert [p.requires_grad for p in module.parameters()] == [True] * 4 + [False, True]
    assert all(p.grad is None for p in module.parameters())


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


def test_a_copy_that_gains_is_trained_on_and_the_other_is_given_as_much():
    """A network of digits from its start: 20 steps are not enough, for either copy."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))
    trial = tried(module, X, Y, steps=20)
    assert trial.repaired.steps[-1] > 20
    assert trial.untreated.steps[-1] >= trial.repaired.steps[-1]
    assert trial.steps == trial.untreated.steps[-1] <= 80
    assert set(Recipe(20, 1e-3, 32, None).score_at()) < set(trial.untreated.steps)


def frozen_start() -> nn.Sequential:
    """Saturated: learns nothing at any usual rate in a few steps."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(),
                           nn.Linear(32, 10))  # fmt: skip
    with torch.no_grad():
        for p in module.parameters():
            p.uniform_(-10, 10)
    return module


def test_no_copy_is_convicted_before_every_rate_and_all_of_the_steps():
    trial = tried(frozen_start(), X, Y, steps=40, validation=sample_of(*DATA.val))
    assert outcome(trial) is Outcome.REPAIRED_WINS
    assert {a.how for a in (trial.untreated, *trial.others)} == {
        "Adam 0.001", "Adam 0.01", "Adam 0.0001",
    }  # fmt: skip
    assert {a.steps[-1] for a in (trial.untreated, *trial.others)} == {trial.most} == {160}
    assert all(a.score[0] == trial.untreated.score[0] for a in trial.others)  # one start
    best = max(trial.untreated.score)
    assert all(max(a.score) <= best for a in trial.others)


def test_a_copy_that_holds_needs_no_other_rate():
    module = torch.load(SAMPLES / "relu.pt", weights_only=False)
    trial = tried(module, X, Y, steps=20, validation=sample_of(*DATA.val))
    assert outcome(trial) is Outcome.UNTREATED_HOLDS
    assert trial.others == ()


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


def test_the_checkpoint_s_optimiser_trains_and_is_told():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10))
    trial = tried(module, X, Y, steps=20, own=OWN)
    assert trial.how == "SGD 0.02, momentum 0.9, batches of 32; as in the checkpoint"
    assert trial.untreated.how == trial.repaired.how == "SGD 0.02, momentum 0.9"
    assert trial.untreated.score[1:] != tried(module, X, Y, steps=20).untreated.score[1:]


def test_a_repaired_copy_that_learns_nothing_is_no_measure():
    """With a rate at which nothing learns, neither copy is judged."""
    found = tried(frozen_start(), X, Y, steps=20, trial_rate=1e-9)
    assert outcome(found) is Outcome.NEITHER_LEARNS
    assert "try more steps" in SAID[outcome(found)]


def test_same_seed_same_trial():
    torch.manual_seed(0)
    module = Noisy()
    assert tried(module, X, Y) == tried(module, X, Y)


def test_batch_norm_learns_its_statistics():
    """Were they put back before each call, the evaluation would see those of the start."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.Tanh(), nn.Linear(32, 10))
    trial = tried(module, X * 30 + 5, Y, steps=150)
    assert trial.untreated.last > 0.8


def test_a_regression_is_scored_by_skill():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 1))
    trial = tried(module, X, X[:, 20:30].mean(dim=1, keepdim=True), steps=200)
    assert trial.metric == "skill"
    assert trial.chance == 0.0
    assert trial.repaired.last > 0.5


def test_a_fixed_batch_is_kept_to():
    class Eight(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(64, 8), nn.Linear(8, 10)

        def forward(self, x):
            return self.b(torch.tanh(self.a(x))).reshape(-1 if not self.training else 8, 10)

    trial = tried(Eight(), X, Y, batch=8)
    assert "batches of 8" in trial.how


def test_no_labels_is_a_request_that_cannot_be_served():
    with pytest.raises(OptionError, match="--trial: a trial needs labels"):
        tried(nn.Sequential(nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 10)), X, None)


def test_nothing_to_train_is_skipped():
    class Fixed(nn.Module):
        def forward(self, x):
            return torch.tanh(x)[:, :10]

    found = tried(Fixed(), X, Y)
    assert isinstance(found, Skipped)
    assert "no parameter" in found.reason


def test_a_loss_that_is_not_finite_ends_a_copy():
    module = nn.Sequential(nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 10))
    with torch.no_grad():
        module[2].weight.fill_(float("inf"))
    trial = tried(module, X, Y)
    assert trial.untreated.stopped.startswith("the loss is nan at step 1, first in ")
    assert trial.untreated.loss[0] is None
    assert trial.repaired.stopped is None


@pytest.mark.parametrize("size", [32, 7])
@pytest.mark.parametrize("exact", [False, True])
def test_an_epoch_shows_every_sample_once_and_no_held_out_one(size, exact):
    x = torch.arange(300.0)[:, None]
    sample = sample_of(x, torch.zeros(300, dtype=torch.long), 100)
    data = Minibatches(sample, None, size=size, seed=3, exact=exact)
    every = Minibatches(sample, None, size=size, seed=3, exact=False)
    held = [int(v) for b in every.held_out() for v in b.args[0]]
    left = 300 - len(held)
    per_epoch = left // size if exact else -(-left // size) - (left % size == 1)
    batches = list(itertools.islice(data.training(), per_epoch))
    seen = [int(v) for b in batches for v in b.args[0]]
    kept = left // size * size if exact else left - (left % size == 1)  # one alone is left out
    assert len(seen) == len(set(seen)) == kept
    assert not set(seen) & set(held)
    assert 40 < len(held) < 110
    assert {b.size for b in batches[:-1]} == {size}
    assert seen != sorted(seen)


def test_held_out_data_are_all_scored():
    sample = sample_of(X, Y, 500)
    data = Minibatches(sample, sample_of(*DATA.val), size=32, seed=0, exact=False)
    assert sum(b.size for b in data.held_out()) == 450
    assert not data.split


def restarted(module: nn.Module, x: torch.Tensor) -> nn.Module:
    suspects = find_suspects(measured(module, x), ())
    restart(dict(module.named_parameters()), suspects, torch.Generator().manual_seed(0))
    return module


@pytest.mark.parametrize(("kind", "gain"), [(nn.Tanh, 1.0), (nn.ReLU, 2**0.5), (nn.Sigmoid, 4.0)])
def test_a_restarted_layer_is_orthogonal_with_its_gain(kind, gain):
    module = restarted(nn.Sequential(nn.Linear(64, 24), kind(), nn.Linear(24, 10)), X[:50])
    product = module[0].weight @ module[0].weight.T
    assert torch.allclose(product, gain**2 * torch.eye(24), atol=1e-4)
    assert not module[0].bias.any()


def test_logistic_layers_are_centred():
    """At z = 0 every unit gives 1/2, which the next bias takes out again."""
    layers = itertools.chain.from_iterable((nn.Linear(64, 64), nn.Sigmoid()) for _ in range(3))
    module = restarted(nn.Sequential(*layers, nn.Linear(64, 10)), X[:50])
    for layer in (module[2], module[4], module[6]):
        half = torch.full((1, 64), 0.5)
        assert torch.allclose(layer(half), torch.zeros(1), atol=1e-5)


def test_recurrent_layers():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.RNN(8, 12, batch_first=True)
            self.lstm = nn.LSTM(12, 6, batch_first=True)
            self.head = nn.Linear(6, 3)

        def forward(self, x):
            return self.head(self.lstm(self.rnn(x)[0])[0][:, -1])

    module = restarted(Net(), torch.randn(20, 8, 8))
    assert torch.equal(module.rnn.weight_hh_l0, torch.eye(12))
    for block in module.lstm.weight_hh_l0.split(6):
        assert torch.allclose(block @ block.T, torch.eye(6), atol=1e-5)
    assert torch.equal(module.lstm.bias_ih_l0[6:12], torch.ones(6))
    assert not module.lstm.bias_hh_l0.any()


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


def test_narrow_and_saturated_but_working():
    """Reference case 10 by experiment: more than .7 saturated, and no restart does better."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 10))
    optimiser = torch.optim.Adam(module.parameters(), lr=5e-3)
    rows = np.random.default_rng(0)
    for _ in range(6000):
        index = torch.from_numpy(rows.integers(0, len(X), 32))
        optimiser.zero_grad()
        nn.functional.cross_entropy(module(X[index]), Y[index]).backward()
        optimiser.step()
    found = tried(module, X, Y, steps=400, validation=sample_of(*DATA.val))
    assert outcome(found) is Outcome.UNTREATED_HOLDS


class Named(nn.Module):
    """Its input has the array's name, so it is passed by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.chain = build.mlp(3, 32, nn.Tanh)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.chain(x)


def test_inputs_passed_by_name_are_standardised_too(tmp_path):
    torch.manual_seed(0)
    model = tmp_path / "named.pt"
    torch.save(Named().state_dict(), model)
    raw = {"x": (X.numpy() + 1000).astype(np.float32), "y": Y.numpy()}
    np.savez(tmp_path / "raw.npz", **raw)
    factory = tmp_path / "arch.py"
    factory.write_text("from tests.repair.test_trial import Named as factory\n")
    data = DataSettings(str(tmp_path / "raw.npz"))
    settings = Settings(
        str(model), LoadSettings(f"{factory}:factory"), data, ProbeSettings(trial=200)
    )
    trial = pipeline.inspect(settings).measurements.trial
    assert "inputs standardised" in trial.repair
    assert trial.repaired.last > 0.7
    assert trial.untreated.last < 0.4


def test_a_feature_of_a_smaller_scale_than_the_others_is_not_lost():
    """The answer stands in one column of eight, the others are 10^4 times as large."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 2))
    x = torch.randn(400, 8)
    y = (x[:, 0] > 0).long()
    x[:, 1:] *= 1e4
    trial = tried(module, x, y, steps=100)
    assert "inputs standardised" in trial.repair
    assert trial.repaired.last > 0.9


def test_the_repaired_copy_is_repaired_and_not_only_restarted():
    """Lost weights are replaced and the rest is kept, far ahead of a restart; of an input of the
    wrong scale there is the restart alone."""
    module = torch.load(SAMPLES / "relu.pt", weights_only=False)
    with torch.no_grad():
        module[2].weight[::4, ::4] = float("nan")
    before = copy.deepcopy(module.state_dict())
    trial = tried(module, X, Y, steps=20)
    assert trial.repair.startswith("revive (")
    assert trial.repaired.score[0] > 0.8
    assert all(torch.equal(before[k].nan_to_num(), v.nan_to_num())
               for k, v in module.state_dict().items())  # fmt: skip
    module = build.xavier(build.mlp(3, 32, nn.Tanh))
    assert tried(module, 1000 * X, Y, steps=20).repair.startswith("restart of")

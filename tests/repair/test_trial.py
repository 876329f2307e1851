"""A trial: two copies, trained alike, scored on samples that neither saw."""

from __future__ import annotations

import copy
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gradscope import pipeline
from gradscope.config import DataSettings, LoadSettings, ProbeSettings, Settings
from gradscope.counterfactual import SAID, Outcome, outcome
from gradscope.diagnosis import Verdict, diagnose
from gradscope.errors import OptionError
from gradscope.findings import Cause, Skipped
from gradscope.measurements import Trial
from gradscope.model import LoadedModel
from gradscope.progress import Silent
from gradscope.repair import run_trial
from gradscope.repair.recipe import Recipe
from gradscope.rules import run_rules
from tests.repair.test_trial_recipes import OWN
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

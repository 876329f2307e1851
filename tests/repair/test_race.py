"""Which contestant of a race is trained to the end."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from gradscope.config import FixSettings, LoadSettings, Settings
from gradscope.diagnosis import Inspection, diagnose
from gradscope.loading import load_model
from gradscope.probe import measure
from gradscope.progress import Silent
from gradscope.repair import race, treat
from gradscope.repair.base import Result
from gradscope.repair.compare import Scale
from gradscope.repair.loop import Trained
from gradscope.repair.race import Candidate, Ring
from gradscope.repair.recipe import Recipe
from gradscope.repair.training import Scored
from gradscope.repair.treat import best_of
from gradscope.rules import run_rules
from gradscope.treatment import Planned
from tests.repair.test_more_remedies import DATA, mlp, trained
from tests.support import sample_of


def treated(module: nn.Module, path, plan: tuple[str, ...], epochs: int):
    (x, y), (held_x, held_y) = DATA.train, DATA.val
    torch.save(module, path)
    model = load_model(str(path), LoadSettings())
    sample, held = sample_of(x, y, 512), sample_of(held_x, held_y, 512)
    settings = Settings("model")
    found = measure(model, sample, held, settings.probe, 0, 512, Silent())
    findings = run_rules(found)
    before = Inspection(found, findings, diagnose(found, findings), settings)
    planned = tuple(Planned(name, "") for name in plan)
    return treat(model, sample, held, before, planned, settings, FixSettings(epochs=epochs),
                 Silent())  # fmt: skip


def test_the_model_as_it_came_is_in_the_race(tmp_path):
    """It has learned, and a restart is behind: plain training goes on, to no worse."""
    found = treated(trained(mlp(nn.Tanh), 300), tmp_path / "model.pt", ("restart",), 4)
    assert found.chosen == "plain training"
    assert found.stages[1].score == found.stages[0].score
    assert found.stages[-1].score >= found.stages[0].score


def test_a_rescaling_alone_is_not_raced(tmp_path):
    found = treated(trained(mlp(nn.Tanh), 300), tmp_path / "model.pt", ("kappa",), 1)
    assert found.chosen == "kappa"
    assert found.race == ()


def test_all_that_was_tried_is_told_with_its_scores(tmp_path):
    """Right after the remedy, before any training, and the best of the race; who did not run, why:
    a remedy that does not fit, and one that would begin with the same numbers."""
    plan = ("kappa", "identity", "std-restore", "restart")
    found = treated(trained(mlp(nn.Tanh), 300), tmp_path / "model.pt", plan, 2)
    ran = {c.remedy: c for c in found.race if c.reason is None}
    assert ran.keys() >= {"restart", "plain training"}
    best = [c.best for c in found.race if c.best is not None]
    assert best == sorted(best, reverse=True)
    assert all(c.steps >= 50 and c.best >= c.right_after for c in ran.values())
    assert ran["plain training"].right_after == found.stages[0].score
    assert ran[found.chosen].right_after == found.stages[1].score
    assert ran["restart"].right_after < 0.4
    out = {c.remedy: c.reason for c in found.race if c.reason is not None}
    assert "no recurrent layer was found" in out["identity"]


HELD_OUT = 400


def scored(accuracy: float) -> Scored:
    """The same samples are right first, as models that learn the easy ones."""
    points = (torch.arange(HELD_OUT) < round(HELD_OUT * accuracy)).double()
    return Scored(points, 1 - points)


def raced(monkeypatch, curves: dict[str, tuple[float, ...]], steps: int = 4000):
    """The order and the steps of contestants whose accuracy is given at 0, 1/16, 1/8, 1/4 of the
    steps."""
    at = (0, steps // 16, steps // 8, steps // 4)
    trained = []

    def train(trainee, data, recipe, progress, keeper):
        moments = [(t, scored(a)) for t, a in zip(at, curves[keeper], strict=True)]
        trained.append((keeper, recipe.steps))
        return Trained([m for m in moments if m[0] <= recipe.steps])

    monkeypatch.setattr(race, "train", train)
    monkeypatch.setattr(race, "scale_of", lambda trainee, data: Scale("accuracy", 0.1, 0.9))
    module = nn.Linear(1, 1)
    ring = Ring(SimpleNamespace(trainee=SimpleNamespace(module=module), data=None, seed=0,
                                with_products=lambda products: race.put_back(module)))  # fmt: skip
    found = [Candidate(Planned(n, ""), Result({}), scored(c[0])) for n, c in curves.items()]
    recipe = Recipe(steps, 1e-3, 32, None)
    ranked = ring.race(found, recipe, lambda name: name.split("-", 2)[-1].lstrip("0123-"), Silent())
    return [c.planned.remedy for c in ranked], trained


@pytest.mark.parametrize(
    ("curves", "first", "longer"),
    [
        # What has learned something is on a plateau, and a restart is as far, and climbs.
        ({"plain": (0.33, 0.35, 0.36, 0.36), "restart": (0.1, 0.28, 0.34, 0.5)}, "restart", True),
        # Behind, but about to overtake.
        ({"plain": (0.6, 0.6, 0.6, 0.61), "restart": (0.1, 0.1, 0.4, 0.7)}, "restart", True),
        # At the end it is still behind, and clearly expected to come further.
        ({"plain": (0.6, 0.6, 0.6, 0.6), "restart": (0.1, 0.1, 0.4, 0.58)}, "restart", True),
        # As far, and neither climbs: what was learned is not thrown away.
        ({"plain": (0.5, 0.6, 0.6, 0.6), "restart": (0.1, 0.59, 0.59, 0.59)}, "plain", True),
        # Clearly behind, and not climbing faster.
        ({"plain": (0.5, 0.6, 0.7, 0.8), "restart": (0.1, 0.4, 0.5, 0.99)}, "plain", False),
        # No room for more: the closer race is left as it is.
        ({"plain": (0.5, 0.9, 0.97, 0.97), "restart": (0.1, 0.8, 0.96, 0.99)}, "plain", False),
    ],
)
def test_an_undecided_race_is_run_for_twice_as_long(monkeypatch, curves, first, longer):
    order, trained = raced(monkeypatch, curves)
    assert order[0] == first
    assert [steps for _, steps in trained] == [500, 500, *([1000, 1000] if longer else [])]


def test_only_the_leader_and_who_may_overtake_it_run_on(monkeypatch):
    curves = {
        "kappa": (0.3, 0.50, 0.50, 0.50),
        "plain": (0.3, 0.50, 0.51, 0.51),
        "restart": (0.1, 0.3, 0.47, 0.6),
        "polar": (0.1, 0.1, 0.1, 0.9),
    }
    order, trained = raced(monkeypatch, curves)
    assert order == ["restart", "plain", "kappa", "polar"]
    assert [name for name, steps in trained if steps == 1000] == ["plain", "restart"]


def test_a_race_is_never_longer_than_the_training(monkeypatch):
    curves = {"plain": (0.5, 0.5, 0.5, 0.5), "restart": (0.1, 0.4, 0.5, 0.5)}
    _, trained = raced(monkeypatch, curves, steps=80)
    assert [steps for _, steps in trained] == [50, 50]


@pytest.mark.parametrize(
    ("tried", "chosen", "trained"),
    [
        ([(True, 0.9), (True, 0.95)], 0, 1),
        ([(False, 0.9), (True, 0.7)], 1, 2),
        ([(True, 0.55), (True, 0.9)], 1, 2),  # better than it was, and no better than a guess
        ([(True, 0.55), (True, 0.5)], 0, 2),
        ([(True, 0.55), (False, 0.9)], 0, 2),
        ([(False, 0.5), (False, 0.6)], 0, 2),
        ([(False, None), (True, 0.7)], 1, 2),
    ],
)
def test_who_ends_no_better_than_a_guess_is_not_the_last_to_be_trained(tried, chosen, trained):
    ended = []

    def treated():
        for better, score in tried:
            stages = (SimpleNamespace(score=score),)
            ended.append(SimpleNamespace(better=better, stages=stages))
            yield ended[-1]

    assert best_of(treated(), 0.6) is ended[chosen]
    assert len(ended) == trained

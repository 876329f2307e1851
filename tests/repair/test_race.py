"""Which contestant of a race is trained to the end."""

from __future__ import annotations

import torch
from torch import nn

from gradscope.config import FixSettings, LoadSettings, Settings
from gradscope.diagnosis import Inspection, diagnose
from gradscope.loading import load_model
from gradscope.probe import measure
from gradscope.progress import Silent
from gradscope.repair import treat
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

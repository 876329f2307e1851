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

"""Which healthy verdicts ``fix`` does not leave at that."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from gradscope.config import DataSettings, FixSettings, Settings
from gradscope.diagnosis import Diagnosis, Inspection, Verdict
from gradscope.measurements import Skill
from gradscope.pipeline import fix
from gradscope.rules.examples import measured, site
from gradscope.second_look import is_confidently_wrong
from gradscope.treatment import Outcome


def knowing(by_loss: float, by_answers: float | None, error: float = 0.02) -> Skill:
    return Skill(
        by_loss, error, 1.0, "cross-entropy", "integer labels", 0.5, True, 500,
        chance=0.1, accuracy_skill=by_answers, accuracy_error=None if by_answers is None else 0.02,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("held_out", "own", "wrong"),
    [
        (knowing(-4.7, 0.5), knowing(-4.4, 0.55), True),
        (knowing(-4.7, 0.5), None, True),  # nothing is held out
        (knowing(-4.7, 0.5), knowing(0.9, 0.99), False),  # it has overfitted
        (knowing(-4.7, 0.7), knowing(-4.4, 0.7), False),  # it works: its scale is all that is wrong
        (knowing(-0.1, 0.05), knowing(-0.1, 0.05), False),  # a start
        (knowing(-0.1, 0.13), knowing(-0.1, 0.13), False),  # by chance, perhaps
        (knowing(-4.7, 0.5), knowing(-4.4, 0.55, error=3.0), False),
        (knowing(-4.7, None), knowing(-4.4, None), False),
        (knowing(0.1, 0.5), knowing(0.1, 0.5), False),
        (None, None, False),
    ],
)
def test_who_is_sure_of_what_is_wrong(held_out, own, wrong):
    m = measured(site("0/relu"), total=-0.3, skill=held_out)
    judged = Diagnosis(Verdict.HEALTHY, "", (), ())
    assert is_confidently_wrong(Inspection(replace(m, sample_skill=own), (), judged)) == wrong


def test_it_is_repaired_though_nothing_was_found(tmp_path):
    """ReLUs pass any scale on: no activation, no gradient and no single weight tells."""
    torch.manual_seed(0)
    centres = torch.randn(4, 6) * 1.2
    y = torch.randint(0, 4, (900,))
    x = centres[y] + torch.randn(900, 6)
    module = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(),
                           nn.Linear(24, 4))  # fmt: skip
    with torch.no_grad():
        for p in module.parameters():
            p.mul_(5)
    optimiser = torch.optim.Adam(module.parameters(), 1e-3)
    for _ in range(60):
        loss = nn.functional.cross_entropy(module(x[:600]), y[:600])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    torch.save(module, tmp_path / "model.pt")
    np.savez(tmp_path / "x.npz", x=x[:600], y=y[:600])
    np.savez(tmp_path / "val.npz", x=x[600:], y=y[600:])
    data = DataSettings(str(tmp_path / "x.npz"), str(tmp_path / "val.npz"))
    settings = Settings(str(tmp_path / "model.pt"), data=data)
    found = fix(settings, FixSettings(out=str(tmp_path / "fixed.pt"), epochs=20))
    assert found.outcome is Outcome.IMPROVED
    assert "sure of what is wrong" in found.before.diagnosis.summary

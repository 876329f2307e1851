"""Which remedies are tried for which diagnosis, on models that show it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gradscope.config import FixSettings
from gradscope.diagnosis import diagnose
from gradscope.errors import OptionError
from gradscope.findings import Cause
from gradscope.repair.plan import make_plan, warnings_of
from gradscope.rules import run_rules
from tests.repair.test_more_remedies import Recurrent, mlp, norms
from tests.repair.test_remedies import X, Y
from tests.support import measured


def biased() -> nn.Module:
    module = mlp(nn.Tanh)
    with torch.no_grad():
        for i in (0, 2):
            module[i].bias.uniform_(-30, 30)
    return module


def dead() -> nn.Module:
    module = mlp(nn.ReLU)
    with torch.no_grad():
        module[2].bias.fill_(-100)
    return module


def lost() -> nn.Module:
    module = mlp(nn.ReLU)
    with torch.no_grad():
        module[2].weight[0] = float("nan")
    return module


def gated() -> nn.Module:
    torch.manual_seed(0)
    module = Recurrent(nn.LSTM)
    with torch.no_grad():
        for p in module.rnn.parameters():
            p.mul_(30)
    return module


def normed() -> nn.Module:
    module = norms()
    with torch.no_grad():
        for p in module.parameters():
            p.uniform_(-10, 10)
    module.train()
    module(X)
    return module.eval()


@pytest.mark.parametrize(
    ("make", "first"),
    [(biased, "centre"), (dead, "revive"), (lost, "revive"), (gated, "kappa-gates"),
     (normed, "batch-norm-fold")],
)  # fmt: skip
def test_the_first_choice(make, first):
    found = measured(make(), X[:512], Y[:512])
    causes = diagnose(found, run_rules(found)).causes
    plan = [p.remedy for p in make_plan(found, causes)]
    assert plan[0] == first
    assert plan[-1] == "restart"
    assert len(plan) <= 4
    assert "restart" not in [p.remedy for p in make_plan(found, causes, rescale=True)]


def test_no_rescaling_fits():
    found = measured(mlp(nn.Tanh), X[:512], Y[:512])
    with pytest.raises(OptionError, match="no rescaling fits"):
        make_plan(found, (), rescale=True)


@pytest.mark.parametrize(
    ("kind", "strength", "causes", "warned"),
    [
        ("l2", 1e-4, (Cause.SMALL_WEIGHTS,), False),
        ("l2", 1e-2, (Cause.SMALL_WEIGHTS,), True),
        ("l2", 1e-2, (Cause.LARGE_PARAMETERS,), False),
        ("adamw", 1e-2, (Cause.LARGE_PARAMETERS,), False),
        ("adamw", 3.0, (Cause.LARGE_PARAMETERS,), True),
    ],
)
def test_warnings(kind, strength, causes, warned):
    settings = FixSettings(regularize=kind, strength=strength)
    assert bool(warnings_of(causes, settings)) is warned

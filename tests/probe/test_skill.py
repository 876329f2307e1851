"""How much better than guessing: by the loss, and by the answers, which no scale changes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tests.support import measured, sample_of

near = lambda value: pytest.approx(value, rel=1e-6, abs=1e-9)  # noqa: E731


def logits(x: torch.Tensor, factor: float = 1.0) -> nn.Module:
    """The input itself, scaled."""
    layer = nn.Linear(x.shape[1], x.shape[1], bias=False)
    layer.weight.data = factor * torch.eye(x.shape[1])
    return layer


def data(n: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    y = torch.tensor([0, 0, 0, 1, 2] * (n // 5))
    return torch.nn.functional.one_hot(y, 3) + 0.6 * torch.randn(n, 3), y


def test_accuracy_above_the_commonest_answer():
    x, y = data()
    skill = measured(logits(x), x, y).skill
    right = float((x.argmax(1) == y).double().mean())
    assert skill.accuracy == near(right)
    assert skill.chance == near(0.6)
    assert skill.accuracy_skill == near((right - 0.6) / 0.4)
    assert skill.accuracy_error == near(math.sqrt(right * (1 - right) / 60) / 0.4)


def test_scaling_the_logits_changes_the_loss_and_no_answer():
    x, y = data()
    one, many = (measured(logits(x, f), x, y).skill for f in (1.0, 50.0))
    assert many.accuracy_skill == one.accuracy_skill
    assert many.value < 0 < one.value


def test_always_the_commonest_answer_is_no_skill():
    """99 of 100 of one class: accuracy .99 is guessing."""
    y = torch.tensor([0] * 99 + [1])
    x = torch.tensor([[1.0, 0.0]]).repeat(100, 1)
    skill = measured(logits(x), x, y).skill
    assert skill.accuracy == near(0.99)
    assert skill.accuracy_skill == near(0.0)


def test_binary_outputs_and_regression():
    x = torch.randn(40, 1)
    y = (x > 0).float()
    y[:5] = 1 - y[:5]
    skill = measured(logits(x), x, y).skill
    chance = max(float(y.mean()), 1 - float(y.mean()))
    assert skill.chance == near(chance)
    assert skill.accuracy_skill == near((35 / 40 - chance) / (1 - chance))
    real = measured(logits(x), x, x + 0.5).skill
    assert (real.chance, real.accuracy_skill, real.accuracy_error) == (None, None, None)


def test_with_held_out_data_the_sample_is_scored_as_well():
    x, y = data()
    both = measured(logits(x), x[:40], y[:40], validation=sample_of(x[40:], y[40:]))
    assert (both.skill.samples, both.skill.held_out) == (20, True)
    assert both.sample_skill == measured(logits(x), x[:40], y[:40]).skill
    assert measured(logits(x), x, y).sample_skill is None

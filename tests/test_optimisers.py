"""Optimisers as checkpoints keep them: every one of torch's is read back as what it was."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gradscope.optimisers import KINDS, Optimiser, read_group, usual
from gradscope.repair.recipe import Recipe

MADE = {
    "Adam": {"lr": 0.002},
    "Adam amsgrad": {"lr": 0.002, "amsgrad": True, "betas": (0.5, 0.9)},
    "AdamW": {"lr": 0.003, "weight_decay": 0.05},
    "SGD": {"lr": 0.02},
    "SGD nesterov": {"lr": 0.02, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-4},
    "RMSprop": {"lr": 0.001, "momentum": 0.5, "alpha": 0.9, "centered": True},
    "NAdam": {"lr": 0.001, "momentum_decay": 0.01},
    "RAdam": {"lr": 0.001, "weight_decay": 0.01, "decoupled_weight_decay": True},
    "Adagrad": {"lr": 0.1, "lr_decay": 0.01},
    "Adadelta": {"lr": 1.0, "rho": 0.8},
}


def parameters() -> list[nn.Parameter]:
    return [nn.Parameter(torch.ones(3))]


def made(name: str) -> torch.optim.Optimizer:
    kind = getattr(torch.optim, name.split()[0])
    return kind(parameters(), **MADE[name])


@pytest.mark.parametrize("name", MADE)
def test_what_torch_keeps_is_made_again(name):
    """A step of the one is a step of the other, twice, since the second has a history."""
    first = made(name)
    read = read_group(first.state_dict()["param_groups"][0])
    assert isinstance(read, Optimiser)
    assert KINDS[read.kind].name == name.split()[0]
    recipe = Recipe(1, read.rate, 32, None, read.kind, settings=read.settings)
    second = recipe.made(parameters())
    assert type(second) is type(first)
    for _ in range(2):
        for optimiser in (first, second):
            (p,) = optimiser.param_groups[0]["params"]
            p.grad = p.detach() * 2 + torch.tensor([0.0, 1.0, -3.0])
            optimiser.step()
    a, b = first.param_groups[0]["params"][0], second.param_groups[0]["params"][0]
    assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("SGD nesterov", "SGD 0.02, momentum 0.9, weight decay 0.0001, nesterov"),
        ("SGD", "SGD 0.02"),
        ("Adam", "Adam 0.002"),
        ("Adam amsgrad", "Adam 0.002, betas 0.5 0.9, amsgrad"),
        ("AdamW", "AdamW 0.003, weight decay 0.05"),
        ("RMSprop", "RMSprop 0.001, momentum 0.5, centered"),
    ],
)
def test_what_is_told_of_it(name, said):
    read = read_group(made(name).state_dict()["param_groups"][0])
    assert str(read) == said


OLD_ADAM = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "amsgrad": False}


@pytest.mark.parametrize(
    ("group", "kind", "remark"),
    [
        ({**OLD_ADAM, "weight_decay": 0}, "adam", ""),
        (
            {**OLD_ADAM, "weight_decay": 0.01},
            "adamw",
            "Adam or AdamW",
        ),  # no version told them apart
        ({**OLD_ADAM, "weight_decay": 0.01, "decoupled_weight_decay": False}, "adam", ""),
        ({**OLD_ADAM, "weight_decay": 0.01, "decoupled_weight_decay": True}, "adamw", ""),
    ],
)
def test_adam_and_adamw(group, kind, remark):
    read = read_group(group)
    assert read.kind == kind
    assert read.remark.startswith(remark)
    assert bool(read.remark) == bool(remark)


def test_a_schedule_began_higher():
    optimiser = made("SGD")
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 10)
    for _ in range(10):
        optimiser.step()
        schedule.step()
    read = read_group(optimiser.state_dict()["param_groups"][0])
    assert read.rate == 0.02
    assert "the rate its schedule began with, which is 0 now" in read.remark


@pytest.mark.parametrize(
    "change",
    [
        {"lr": float("nan")},
        {"lr": 0.0},
        {"lr": -1.0},
        {"lr": "high"},
        {"lr": None},
        {"lr": torch.ones(3)},
        {"lr": True},
        {"lr": 10**5000},
        {"momentum": 0},
        {"momentum": 5.0},
        {"momentum": True},
        {"dampening": 0.5},
    ],
)
def test_what_torch_refuses_is_no_optimiser(change):
    change = {"nesterov": True, "momentum": 0.9, **change}
    assert isinstance(read_group({**made("SGD").state_dict()["param_groups"][0], **change}), str)


@pytest.mark.parametrize("group", [{}, {"lr": 1.0}, {"lr": 1e-3, "betas": (0.9, 0.99)}])
def test_what_is_not_known_says_so(group):
    """The last is Lion's, which is not torch's."""
    assert "none of torch's" in read_group(group)


@pytest.mark.parametrize("betas", [(2.0, 0.9), (0.9,), "ab", None, (float("nan"), 0.9)])
def test_settings_that_make_no_sense_are_left_to_the_class(betas):
    read = read_group({**OLD_ADAM, "betas": betas, "eps": "small"})
    assert read.settings == (("amsgrad", False),)


@pytest.mark.parametrize(
    "momentum", [5.0, 1.0, True, -0.1, "much", pytest.param(10**400, id="huge")]
)
def test_a_momentum_that_only_grows_is_left_to_the_class(momentum):
    read = read_group({**made("SGD").state_dict()["param_groups"][0], "momentum": momentum})
    assert "momentum" not in dict(read.settings)


def test_a_rate_in_a_tensor():
    assert read_group({**OLD_ADAM, "lr": torch.tensor(0.5)}).rate == 0.5


def test_sgd_by_name_has_momentum():
    assert dict(usual("sgd").settings) == {"momentum": 0.9}
    assert dict(usual("sgd", 0.0).settings) == {}
    assert dict(usual("adam").settings) == {}

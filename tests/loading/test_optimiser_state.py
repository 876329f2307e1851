"""The optimiser beside the weights of a checkpoint, wherever trainers put it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gradscope.config import LoadSettings
from gradscope.loading import load_model
from gradscope.loading.optimiser_state import find_optimiser
from gradscope.optimisers import Optimiser


def chain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))


def stepped(module: nn.Module, **given: object) -> dict[str, object]:
    """State of an SGD that has taken a step, so that it has tensors as well."""
    optimiser = torch.optim.SGD(module.parameters(), **{"lr": 0.02, "momentum": 0.9, **given})
    module(torch.ones(2, 4)).sum().backward()
    optimiser.step()
    return optimiser.state_dict()


SGD = Optimiser(
    "sgd", 0.02,
    (("momentum", 0.9), ("dampening", 0.0), ("weight_decay", 0.0), ("nesterov", False)),
)  # fmt: skip

PLACES = {
    "optimizer": lambda state, own: {"model": state, "optimizer": own},
    "optimizer_state_dict": lambda state, own: {"state_dict": state, "optimizer_state_dict": own},
    "Lightning": lambda state, own: {"state_dict": state, "optimizer_states": [own], "epoch": 3},
    "deeper": lambda state, own: {"model": state, "trainer": {"states": {"optim": own}}},
    "beside a schedule": lambda state, own: {
        "model": state, "optimizer": own, "lr_schedulers": [{"base_lrs": [0.1], "last_epoch": 2}],
    },
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_it_is_found(place, tmp_path):
    module = chain()
    file = tmp_path / "checkpoint.pt"
    torch.save(PLACES[place](module.state_dict(), stepped(module)), file)
    assert load_model(str(file), LoadSettings()).optimiser == SGD


def test_beside_a_whole_module(tmp_path):
    module = chain()
    torch.save({"model": module, "optimizer": stepped(module)}, tmp_path / "whole.pt")
    found = load_model(str(tmp_path / "whole.pt"), LoadSettings())
    assert found.module is not None
    assert found.optimiser == SGD


@pytest.mark.parametrize("value", ["state", "module"])
def test_a_file_without_one(value, tmp_path):
    module = chain()
    torch.save(module if value == "module" else module.state_dict(), tmp_path / "plain.pt")
    assert load_model(str(tmp_path / "plain.pt"), LoadSettings()).optimiser is None


def test_two_of_them_are_not_chosen_from():
    own = stepped(chain())
    assert find_optimiser({"optimizer_states": [own, own]}) == "it holds 2 optimisers"


def test_groups_of_different_rates():
    module = chain()
    groups = [{"params": module[0].parameters()}, {"params": module[2].parameters(), "lr": 1.0}]
    found = find_optimiser({"optimizer": torch.optim.SGD(groups, lr=0.5).state_dict()})
    assert found.rate == 0.5
    assert found.remark == "of the first of 2 groups, whose rates differ"


def around() -> dict[str, object]:
    ring: dict[str, object] = {"model": {}}
    ring["self"] = ring
    return ring


def test_parts_that_are_shared_are_looked_into_once():
    """Four levels of 300 references each, to one dictionary a level, are 8e9 paths."""
    looked = 0

    class Counted(dict[int, object]):
        def values(self):
            nonlocal looked
            looked += 1
            return super().values()

    level: object = Counted()
    for _ in range(4):
        level = Counted(dict.fromkeys(range(300), level))
    assert find_optimiser(level) is None
    assert looked <= 5


@pytest.mark.parametrize(
    "loaded",
    [
        None, [], {}, {"optimizer": None}, {"optimizer": {"param_groups": []}},
        {"optimizer": {"param_groups": "abc"}}, {"optimizer": {"param_groups": [3]}}, around(),
    ],
)  # fmt: skip
def test_what_is_none(loaded):
    assert find_optimiser(loaded) is None

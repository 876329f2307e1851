"""A training that is watched is, bit for bit, the training that is not."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from gradscope.callbacks import Moment, Watch
from gradscope.errors import GradscopeError, OptionError
from tests.test_api import assert_same

STEPS = 12


class Net(nn.Module):
    """With dropout, batch norm, a recurrent layer, and a state between calls."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.drop = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.3)
        self.cell, self.out = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 3)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.seen: list[float] = []

    def forward(self, x):
        self.calls += 1
        self.seen.append(float(x.detach().sum()))
        hidden = self.drop(torch.tanh(self.norm(self.a(x))))
        return self.out(self.cell(hidden.reshape(-1, 2, 4))[0][:, -1])


def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(40, 6, generator=generator)
    return x, x[:, :3].argmax(1)


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": lambda p: torch.optim.Adam(p, 0.01),
    "momentum": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=1e-3),
}


def trained(optimizer: str, place: str | None, accumulate: int = 1) -> dict[str, object]:
    """Everything that a training leaves behind; ``place``: where in the loop it is watched."""
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    net = Net().train()
    stepped = OPTIMIZERS[optimizer](net.parameters())
    loader = DataLoader(TensorDataset(*data()), 8, shuffle=True)
    hooked: list[int] = []
    net.out.register_forward_hook(lambda *given: hooked.append(1))
    watch = Watch(net, loader, every=3, val=data(), samples=16)
    losses = []
    batches = iter(loader)
    for step in range(STEPS):
        batch = next(batches, None)
        if batch is None:
            batches = iter(loader)
            batch = next(batches)
        x, y = batch
        x = x + 0.01 * float(np.random.randn()) + 0.01 * random.random()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        losses.append(loss.item())
        if place == "before the step":
            watch.step()
        if step % accumulate == accumulate - 1:
            stepped.step()
            stepped.zero_grad()
        if place == "after the step":
            watch.step()
    assert len(watch.moments) == (0 if place is None else STEPS // 3)
    if place is not None:
        assert watch.report is not None
    return {
        "losses": losses, "weights": dict(net.state_dict()), "seen": net.seen,
        "gradients": [None if p.grad is None else p.grad for p in net.parameters()],
        "modes": [m.training for m in net.modules()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules()],
        "optimizer": copy.deepcopy(stepped.state_dict()),
        "torch": torch.get_rng_state(), "python": random.getstate(),
        "numpy": np.random.get_state()[1].copy(),
    }  # fmt: skip


@pytest.mark.parametrize("place", ["before the step", "after the step"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_watched_training_is_the_same(optimizer, place):
    assert_same(trained(optimizer, None), trained(optimizer, place))


def test_gradients_that_are_accumulated_stay():
    assert_same(trained("adam", None, 4), trained("adam", "after the step", 4))


def test_the_comparison_would_see_a_difference():
    other = trained("adam", None)
    other["losses"][-1] += 1e-7
    with pytest.raises(AssertionError):
        assert_same(trained("adam", None), other)


class Changing(nn.Module):
    """Writes to a buffer that its backward pass needs."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 4), nn.Linear(4, 3)
        self.register_buffer("scale", torch.ones(4))

    def forward(self, x):
        self.scale.mul_(1.01)
        return self.b(torch.tanh(self.a(x)) * self.scale)


def test_a_graph_waits_for_its_backward_pass_meanwhile():
    """Examined between the forward and the backward pass of a step."""

    def gradients(watched: bool) -> list[torch.Tensor]:
        torch.manual_seed(0)
        net, (x, y) = Changing(), data()
        watch = Watch(net, (x, y), every=1)
        loss = nn.functional.cross_entropy(net(x), y)
        if watched:
            watch.step()
        loss.backward()
        return [p.grad for p in net.parameters()]

    assert_same(gradients(False), gradients(True))


def test_optimisers_that_step_in_the_backward_pass_do_not_step():
    net = nn.Linear(3, 2)
    stepped = []
    net.weight.register_post_accumulate_grad_hook(lambda p: stepped.append(1))
    Watch(net, (torch.randn(8, 3), torch.arange(8) % 2), every=1).step()
    assert not stepped


def test_what_a_watch_tells():
    x, y = data()
    seen = []
    net = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    watch = Watch(net, (x, y), every=2, on_report=lambda *given: seen.append(given), samples=20)
    assert watch.step() is None
    report = watch.step()
    assert watch.report is report
    assert seen == [(2, report)]
    assert watch.moments == [Moment.of(2, report)]
    scalars = watch.moments[0].scalars()
    assert set(scalars) == {"total", "skill", "saturated", "errors"}
    assert scalars["total"] == report.ledger.total
    unlabelled = Watch(net, x, every=1)
    unlabelled.step()
    assert "skill" not in unlabelled.moments[0].scalars()


def test_what_a_hook_raises_ends_the_training():
    def stop(step, report):
        raise StopIteration(report.verdict)

    with pytest.raises(StopIteration, match=r"undetermined|healthy"):
        Watch(nn.Linear(6, 3), data(), every=1, on_report=stop).step()


BAD = {
    "every": ({"every": 0}, "every: must be a whole number from 1, not 0"),
    "iterator": ({"sample": iter([1])}, "sample: an iterator can be read only once"),
    "val": ({"val": iter([1])}, "val: an iterator can be read only once"),
    "workers": (
        {"sample": DataLoader([1], num_workers=1, persistent_workers=True)},
        "sample: a loader with persistent workers is not shared",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_refused_before_training(case):
    options, message = BAD[case]
    with pytest.raises(OptionError, match=message):
        Watch(nn.Linear(6, 3), **{"sample": data(), **options})


def test_a_sample_that_does_not_fit_is_named():
    with pytest.raises(GradscopeError, match="the sample: the model does not run on it"):
        Watch(nn.Linear(6, 3), torch.zeros(4, 5), every=1).step()

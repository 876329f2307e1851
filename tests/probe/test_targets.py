"""Passes that end at the activations, and one to the parameters, show what full passes show."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from gradscope.measurements import Measurements
from gradscope.probe import probed, sweep
from gradscope.probe.arriving import taken_by
from tests.probe.cases import CASES
from tests.probe.test_laws import assert_same
from tests.support import measured


class _TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.right = nn.Linear(6, 5), nn.Linear(5, 3), nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = self.stem(x).tanh()
        return self.left(h), self.right(h.sigmoid())


class _OnWeights(nn.Module):
    """An activation that has nothing but a parameter below it."""

    def __init__(self) -> None:
        super().__init__()
        self.raw, self.inner = nn.Parameter(torch.randn(5, 6)), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner((x @ torch.tanh(self.raw).T).tanh())


class _Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(checkpoint(lambda h: self.one(h).tanh(), x, use_reentrant=False).relu())


class _Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.inner, self.out = nn.Embedding(9, 4), nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        ids = x.long().abs().remainder(9)
        return self.out(nn.functional.softsign(self.inner(self.table(ids).tanh())).mean(1))


MORE = {
    "two heads": _TwoHeads,
    "on weights": _OnWeights,
    "checkpointed": _Checkpointed,
    "tokens": _Tokens,
    "learned slope": lambda: nn.Sequential(nn.Linear(6, 5), nn.PReLU(5), nn.Linear(5, 3)),
    "input first": lambda: nn.Sequential(nn.Tanh(), nn.Linear(6, 6), nn.GLU(1), nn.Linear(3, 3)),
}
MODELS = {case.name: (case.module, case.x) for case in CASES} | {
    name: (make, lambda: torch.randn(7, 6, dtype=torch.float64)) for name, make in MORE.items()
}

OUTPUTS = {"two heads": ("0",)}


def _measured(name: str) -> Measurements:
    make, x = MODELS[name]
    torch.manual_seed(0)
    return measured(make().double().eval(), x(), batch_size=4)


@pytest.mark.parametrize("name", MODELS)
def test_they_show_what_full_passes_show(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = _measured(name)
    monkeypatch.setattr(sweep, "PAYS_FROM", 1000)
    assert_same(_measured(name), found, ignore=(".run.",))


def test_the_passes_of_the_draws_make_no_gradient_of_a_parameter() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).eval()
    arrived = []
    for parameter in model.parameters():
        parameter.register_hook(lambda g: arrived.append(tuple(g.shape)))
    found = measured(model, torch.randn(7, 6))
    assert found.run.backward_passes == found.run.draws + 1
    assert len(arrived) == len(list(model.parameters()))


@pytest.mark.parametrize("name", MODELS)
def test_gradients_looked_at_as_they_arrive_are_those_that_stay(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, x = MODELS[name]
    torch.manual_seed(0)
    module, inputs = make().double().eval(), x()
    labels = torch.randint(0, 2, (len(inputs),))
    found = measured(module, inputs, labels, outputs=OUTPUTS.get(name, ()))
    assert all(p.grad is None for p in module.parameters())
    monkeypatch.setattr(probed.Probed, "_taking", lambda self, sample: None)
    assert_same(measured(module, inputs, labels, outputs=OUTPUTS.get(name, ())), found)


def test_no_gradient_waits_for_the_others() -> None:
    module = nn.Sequential(*[nn.Linear(6, 6) for _ in range(5)])
    waiting: list[int] = []

    def take(name: str, gradient: torch.Tensor) -> None:
        waiting.append(sum(p.grad is not None for p in module.parameters()))

    with taken_by(take, dict(module.named_parameters())):
        module(torch.randn(3, 6)).sum().backward()
    assert waiting == [0] * 10
    module(torch.randn(3, 6)).sum().backward()
    assert all(p.grad is not None for p in module.parameters())

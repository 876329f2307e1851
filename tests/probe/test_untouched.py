"""What the probe touches is as it was, also after an exception."""

from __future__ import annotations

import copy
import itertools
import random

import numpy as np
import pytest
import torch
from torch import nn

from gradscope.errors import GradscopeError
from gradscope.probe.state import BackwardInEval
from gradscope.snapshot import Snapshot
from tests.support import measured


class Stateful(nn.Module):
    """Counts its calls, drops out, normalises; may fail at a given call."""

    def __init__(self, fails_at: int | None = None) -> None:
        super().__init__()
        self.a, self.bn = nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.drop, self.b = nn.Dropout(), nn.Linear(4, 2)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.fails_at, self.seen = fails_at, itertools.count(1)

    def forward(self, x):
        if next(self.seen) == self.fails_at:
            raise ValueError("no more")
        self.calls += 1
        x.mul_(2)  # changes its input in place
        return self.b(self.drop(torch.tanh(self.bn(self.a(x)))))


@pytest.mark.parametrize("fails_at", [None, 1, 2, 3])
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_everything_is_restored(fails_at, mode):
    torch.manual_seed(0)
    module = Stateful(fails_at)
    module.a.weight.requires_grad_(False)
    module.b.weight.grad = torch.ones_like(module.b.weight)
    module.drop.eval()
    kept = module.b.weight.grad
    state = copy.deepcopy(module.state_dict())
    modes = [m.training for m in module.modules()]
    x, y = torch.randn(8, 4), torch.arange(8) % 2
    before = x.clone()
    generators = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    if fails_at is None:
        measured(module, x, y, mode=mode)
    else:
        with pytest.raises(GradscopeError, match="no more"):
            measured(module, x, y, mode=mode)
    assert all(torch.equal(v, state[k]) for k, v in module.state_dict().items())
    assert [m.training for m in module.modules()] == modes
    assert not module.a.weight.requires_grad
    assert module.b.weight.grad is kept
    assert torch.equal(kept, torch.ones_like(kept))
    assert module.a.weight.grad is None
    assert torch.equal(x, before)
    assert torch.equal(torch.get_rng_state(), generators[0])
    assert random.getstate() == generators[1]
    assert (np.random.get_state()[1] == generators[2]).all()
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    assert not any(getattr(m, h) for m in module.modules() for h in hooks)
    assert torch.backends.mkldnn.enabled


def test_frozen_weights_have_gradients_all_the_same():
    module = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)).requires_grad_(False)
    found = measured(module, torch.randn(8, 4))
    assert [p.trainable for p in found.parameters] == [False] * 4
    assert all(p.gradient.norm for p in found.parameters)


@pytest.mark.parametrize("fused", [True, False], ids=["gpu", "cpu"])
def test_recurrent_layers_of_a_gpu_are_differentiated_without_cudnn(fused, monkeypatch):
    """Whose backward pass refuses eval mode. On a CPU nothing is switched off."""
    seen = []
    monkeypatch.setattr("gradscope.probe.state.cells_are_fused", lambda x: fused)
    lstm, real = nn.LSTM(3, 2), torch.lstm

    class Watched(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is real:
                seen.append(torch._C._get_cudnn_enabled())
            return func(*args, **(kwargs or {}))

    with Watched(), BackwardInEval():
        lstm(torch.zeros(1, 1, 3))
    assert seen == [not fused]
    assert torch._C._get_cudnn_enabled()


def test_fused_transformers_are_unfused():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    net = nn.TransformerEncoder(layer, 2).requires_grad_(False).eval()
    found = measured(net, torch.randn(4, 5, 8))
    assert [s.id for s in found.sites] == [f"layers.{i}.linear1/relu" for i in (0, 1)]
    assert all(p.gradient.norm for p in found.parameters)


@pytest.mark.parametrize("keywords", [False, True])
def test_hooks_that_are_set_later_stay_as_they_were_set(keywords):
    """Which hooks take keywords is told by dictionaries beside those of the hooks."""
    module, seen = nn.Linear(3, 2), []
    snapshot = Snapshot(module)
    hook = lambda *given: seen.append(len(given))  # noqa: E731
    module.register_forward_hook(hook, with_kwargs=keywords)
    snapshot.restore()
    module(torch.zeros(1, 3))
    assert seen == [4 if keywords else 3]


def test_a_weight_under_another_name_is_no_state():
    """What trains a model must not find its weights put back before each call."""
    module = nn.Linear(3, 2)
    module.by_name = {"w": module.weight.detach()}
    snapshot = Snapshot(module)
    with torch.no_grad():
        module.weight.add_(1.0)
    changed = module.weight.detach().clone()
    snapshot.restore()
    assert torch.equal(module.weight, changed)

"""Layers that are started anew."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from gradscope.repair.restart import restart
from gradscope.repair.suspects import find_suspects
from tests.repair.test_trial import X
from tests.support import measured


def restarted(module: nn.Module, x: torch.Tensor) -> nn.Module:
    suspects = find_suspects(measured(module, x), ())
    restart(dict(module.named_parameters()), suspects, torch.Generator().manual_seed(0))
    return module


@pytest.mark.parametrize(("kind", "gain"), [(nn.Tanh, 1.0), (nn.ReLU, 2**0.5), (nn.Sigmoid, 4.0)])
def test_a_restarted_layer_is_orthogonal_with_its_gain(kind, gain):
    module = restarted(nn.Sequential(nn.Linear(64, 24), kind(), nn.Linear(24, 10)), X[:50])
    product = module[0].weight @ module[0].weight.T
    assert torch.allclose(product, gain**2 * torch.eye(24), atol=1e-4)
    assert not module[0].bias.any()


def test_logistic_layers_are_centred():
    """At z = 0 every unit gives 1/2, which the next bias takes out again."""
    layers = itertools.chain.from_iterable((nn.Linear(64, 64), nn.Sigmoid()) for _ in range(3))
    module = restarted(nn.Sequential(*layers, nn.Linear(64, 10)), X[:50])
    for layer in (module[2], module[4], module[6]):
        half = torch.full((1, 64), 0.5)
        assert torch.allclose(layer(half), torch.zeros(1), atol=1e-5)


def test_recurrent_layers():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.RNN(8, 12, batch_first=True)
            self.lstm = nn.LSTM(12, 6, batch_first=True)
            self.head = nn.Linear(6, 3)

        def forward(self, x):
            return self.head(self.lstm(self.rnn(x)[0])[0][:, -1])

    module = restarted(Net(), torch.randn(20, 8, 8))
    assert torch.equal(module.rnn.weight_hh_l0, torch.eye(12))
    for block in module.lstm.weight_hh_l0.split(6):
        assert torch.allclose(block @ block.T, torch.eye(6), atol=1e-5)
    assert torch.equal(module.lstm.bias_ih_l0[6:12], torch.ones(6))
    assert not module.lstm.bias_hh_l0.any()

"""What the conditions of the fourth part do to a network, in place."""

from __future__ import annotations

import math

import torch
from torch import nn

from bench.zoo import plants
from bench.zoo.families import Family
from bench.zoo.fourth_nets import Bare
from bench.zoo.nets import Recurrent
from bench.zoo.plants import Plant
from bench.zoo.starts import hidden, weighted

CUT = 0.25
"""Of the units of a hidden layer."""
LEVELS = 31
"""On each side of zero: six bits."""


def _start_gain(gain: float) -> Plant:
    def scale(net: nn.Module, family: Family, x: torch.Tensor) -> None:
        for layer in hidden(net):
            layer.weight.mul_(gain)

    return scale


def _middle(factor: float, biases: bool) -> Plant:
    def scale(net: nn.Module, family: Family, x: torch.Tensor) -> None:
        layers = hidden(net)
        layer = layers[len(layers) // 2]
        layer.weight.mul_(factor)
        if biases:
            layer.bias.mul_(factor)

    return scale


def _biases(net: nn.Module, family: Family, x: torch.Tensor) -> None:
    for layer in hidden(net):
        layer.bias.uniform_(-10, 10)


def _zeros(net: nn.Module, family: Family, x: torch.Tensor) -> None:
    for p in weighted(net):
        p.zero_()


def _gate(index: int, value: float) -> Plant:
    """Biases of one gate, in torch's order."""

    def shut(net: nn.Module, family: Family, x: torch.Tensor) -> None:
        assert isinstance(net, Recurrent)
        width = net.rnn.hidden_size
        net.rnn.bias_ih_l0[index * width : (index + 1) * width] = value

    return shut


def _queries_and_keys(net: nn.Module, family: Family, x: torch.Tensor) -> None:
    for block in net.modules():
        if isinstance(block, Bare):
            block.attention.in_proj_weight[: 2 * family.width].mul_(20)


def _nan_bias(net: nn.Module, family: Family, x: torch.Tensor) -> None:
    hidden(net)[-1].bias[0] = math.nan


def _units_cut(net: nn.Module, family: Family, x: torch.Tensor) -> None:
    """Those with the smallest weights, as pruning by magnitude has it."""
    for layer in hidden(net):
        sizes = layer.weight.flatten(1).norm(dim=1)
        least = sizes.argsort()[: max(1, round(CUT * len(sizes)))]
        layer.weight[least] = 0.0
        layer.bias[least] = 0.0


def _quantised(net: nn.Module, family: Family, x: torch.Tensor) -> None:
    for p in weighted(net):
        if p.dim() > 1:
            step = p.abs().max() / LEVELS
            p.copy_((p / step).round() * step)


def _head(net: nn.Module) -> nn.Linear:
    return [m for m in net.modules() if isinstance(m, nn.Linear)][-1]


def _confident(net: nn.Module, family: Family, x: torch.Tensor) -> None:
    for p in _head(net).parameters():
        p.mul_(5)


def _new_head(net: nn.Module, family: Family, x: torch.Tensor) -> None:
    _head(net).reset_parameters()


CHANGED = ("units-cut", "quantised", "confident", "new-head")
"""Healthy ones: the reference with something done to it afterwards."""
AFTER_TRAINING = {"x20", "block-x50", "block-tiny", "nan-bias"}
AS_SAVED = {"nan-bias"}
HALF_BUDGET = {"u3-half", "n0.01-half", "default-half"}
"""Saved after half of the budget of steps."""
WHOLE_BUDGET = {"u3-whole", "u10-whole", "n1-whole"}

PLANTS: dict[str, Plant] = {
    "u3": plants._uniform(3),
    "u3-half": plants._uniform(3),
    "u3-whole": plants._uniform(3),
    "u10-whole": plants._uniform(10),
    "n1-whole": plants._normal(1),
    "n0.05": plants._normal(0.05),
    "n0.01": plants._normal(0.01),
    "n0.01-half": plants._normal(0.01),
    "x20": plants._times(20),
    "zeros": _zeros,
    "gain4": _start_gain(4),
    "block-x50": _middle(50, biases=True),
    "block-tiny": _middle(1e-4, biases=False),
    "bias-u10": _biases,
    "input-shut": _gate(0, -8.0),
    "update-shut": _gate(1, 8.0),
    "qk-x20": _queries_and_keys,
    "nan-bias": _nan_bias,
    "units-cut": _units_cut,
    "quantised": _quantised,
    "confident": _confident,
    "new-head": _new_head,
}

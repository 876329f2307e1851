"""What the conditions of the third part do to a network, in place."""

from __future__ import annotations

import math

import torch
from torch import nn

from bench.zoo import plants
from bench.zoo.families import Family
from bench.zoo.nets import Recurrent, Transformer
from bench.zoo.plants import Plant
from bench.zoo.starts import hidden, weighted

KEPT_SHARE = 0.4
"""Of the weights of a pruned matrix."""


def _student(net: nn.Module, family: Family, x: torch.Tensor) -> None:
    """Heavy tails: half of the draws beyond 1, one in a hundred beyond 20."""
    draw = torch.distributions.StudentT(1.5)
    for p in weighted(net):
        p.copy_(draw.sample(p.shape))


def _start_times(factor: float) -> Plant:
    """Weight matrices of the start, wherever it came from, scaled."""

    def scale(net: nn.Module, family: Family, x: torch.Tensor) -> None:
        for p in weighted(net):
            if p.dim() > 1:
                p.mul_(factor)

    return scale


def _late(net: nn.Module, family: Family, x: torch.Tensor) -> None:
    every = weighted(net)
    for p in every[len(every) // 2 :]:
        p.mul_(20)


def _bias5(net: nn.Module, family: Family, x: torch.Tensor) -> None:
    for layer in hidden(net):
        plants._shift(net, layer, x, lambda mean, sd: 5 * sd + 2 - mean)


def _dead_most(net: nn.Module, family: Family, x: torch.Tensor) -> None:
    for layer in hidden(net):
        few = max(1, round(0.03 * layer.weight.shape[0]))

        def down(mean: torch.Tensor, sd: torch.Tensor, few: int = few) -> torch.Tensor:
            move = -mean - 20 * sd - 1
            move[:few] = 0
            return move

        plants._shift(net, layer, x, down)


def _recurrent_gain(gain: float) -> Plant:
    def scale(net: nn.Module, family: Family, x: torch.Tensor) -> None:
        assert isinstance(net, Recurrent)
        for name, p in net.rnn.named_parameters():
            if name.startswith("weight_hh"):
                nn.init.orthogonal_(p, gain)

    return scale


def _forgets(net: nn.Module, family: Family, x: torch.Tensor) -> None:
    assert isinstance(net, Recurrent)
    width = net.rnn.hidden_size
    for name, p in net.rnn.named_parameters():
        if name.startswith("bias_ih"):
            p[width : 2 * width].uniform_(-8, -4)


def _qk30(net: nn.Module, family: Family, x: torch.Tensor) -> None:
    assert isinstance(net, Transformer)
    for layer in net.encoder.layers:
        layer.self_attn.in_proj_weight[: 2 * family.width].mul_(30)


def _infinite(net: nn.Module, family: Family, x: torch.Tensor) -> None:
    last = [p for p in weighted(net) if p.dim() == 1][-2]
    last.view(-1)[0] = math.inf


def _gain25(net: nn.Module, family: Family, x: torch.Tensor) -> None:
    for layer in hidden(net):
        layer.weight.mul_(2.5)


def _pruned(net: nn.Module, family: Family, x: torch.Tensor) -> None:
    for p in weighted(net):
        if p.dim() > 1:
            p[p.abs() < p.abs().flatten().quantile(1 - KEPT_SHARE)] = 0.0


def _rounded(net: nn.Module, family: Family, x: torch.Tensor) -> None:
    for p in net.parameters():
        p.copy_(p.bfloat16().float())


AFTER_TRAINING = {"late-x20", "inf", "pruned", "rounded"}
AS_SAVED = {"inf", "pruned", "rounded"}
"""Saved as planted, without steps behind it."""

PLANTS: dict[str, Plant] = {
    "u4": plants._uniform(4),
    "student": _student,
    "start-x6": _start_times(6),
    "start-x0.15": _start_times(0.15),
    "start-x0.4": _start_times(0.4),
    "late-x20": _late,
    "bias5": _bias5,
    "dead-most": _dead_most,
    "rec0.15": _recurrent_gain(0.15),
    "rec4": _recurrent_gain(4.0),
    "forgets": _forgets,
    "qk30": _qk30,
    "inf": _infinite,
    "gain2.5": _gain25,
    "pruned": _pruned,
    "rounded": _rounded,
}

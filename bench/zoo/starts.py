"""Sane starts: what a restart would use, and what the healthy reference begins with."""

from __future__ import annotations

import torch
from torch import nn

from bench.zoo.families import Family
from bench.zoo.nets import Recurrent, Residual, Transformer

DEEP = 6
"""Chains from this depth start orthogonal, logistic ones centred."""
RECTIFIED = ("relu", "gelu", "silu", "elu", "leaky", "whererelu")
WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d)


def hidden(net: nn.Module) -> list[nn.Module]:
    """Layers that feed a hidden activation, in order: all weighted ones of a chain but the last."""
    if isinstance(net, Residual):
        return [block.first for block in net.blocks]
    if isinstance(net, Transformer):
        return [layer.linear1 for layer in net.encoder.layers]
    if hasattr(net, "hidden_layers"):
        return net.hidden_layers()
    if isinstance(net, Recurrent):
        return []
    return [m for m in net if isinstance(m, WEIGHTED)][:-1]


def weighted(net: nn.Module) -> list[nn.Parameter]:
    """Weights and biases of everything but normalisations, positions and embeddings."""
    found: list[nn.Parameter] = []
    for module in net.modules():
        if isinstance(module, (*WEIGHTED, nn.RNNBase, nn.MultiheadAttention)):
            found += list(module.parameters(recurse=False))
    return found


def sane(net: nn.Module, family: Family) -> None:
    """In place. Xavier or orthogonal; times sqrt 2 for relu and gelu; recurrent identity (RNN) or
    orthogonal, forget bias 1; attention and norms stay as torch draws them."""
    deep = family.kind in ("mlp", "cnn", "cnn1d") and family.depth >= DEEP
    gain = 2**0.5 if family.activation in RECTIFIED else 1.0
    with torch.no_grad():
        if isinstance(net, Recurrent):
            _recurrent(net.rnn)
            return
        for layer in hidden(net):
            if deep:
                nn.init.orthogonal_(layer.weight, gain)
            else:
                nn.init.xavier_normal_(layer.weight, gain)
            nn.init.zeros_(layer.bias)
        if deep and family.activation == "logistic":
            _centre(net)


def _centre(net: nn.Module) -> None:
    """Weights behind logistic units x4, biases minus half of the rows' sums: 4 (sigma - 1/2)."""
    layers = [m for m in net if isinstance(m, WEIGHTED)]
    for layer in layers[1:]:
        layer.weight.mul_(4)
        layer.bias.copy_(layer.bias - layer.weight.flatten(1).sum(1) / 2)


def _recurrent(rnn: nn.RNNBase) -> None:
    width = rnn.hidden_size
    for name, p in rnn.named_parameters():
        if name.startswith("bias"):
            nn.init.zeros_(p)
        elif isinstance(rnn, nn.RNN) and name.startswith("weight_hh"):
            nn.init.eye_(p)
        elif name.startswith("weight_hh"):
            for gate in p.split(width):
                nn.init.orthogonal_(gate)
        else:
            for gate in p.split(width):
                nn.init.xavier_uniform_(gate)
        if isinstance(rnn, nn.LSTM) and name.startswith("bias_ih"):
            p[width : 2 * width] = 1.0

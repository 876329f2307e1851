"""Architectures of the fourth part: a perceptron with dropout, and a transformer without norms."""

from __future__ import annotations

import torch
from torch import nn

from bench.zoo.nets import activated

DROPPED = 0.3
"""Share of the hidden units in training."""


class Bare(nn.Module):
    """``x + attention(x)``, then ``x + W2 phi(W1 x)``; nothing is normalised."""

    def __init__(self, activation: str, width: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.first, self.second = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.act = activated(activation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return x + self.second(self.act(self.first(x)))


class BareTransformer(nn.Module):
    """Mean over tokens at the end; ``[N, 1, L]`` is cut into tokens of four points."""

    def __init__(self, activation: str, width: int, outputs: int, depth: int, length: int) -> None:
        super().__init__()
        self.embed = nn.Linear(4, width)
        self.place = nn.Parameter(torch.randn(length // 4, width) * 0.3)
        self.blocks = nn.Sequential(*(Bare(activation, width) for _ in range(depth)))
        self.head = nn.Linear(width, outputs)

    def hidden_layers(self) -> list[nn.Module]:
        return [block.first for block in self.blocks]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.embed(x.reshape(len(x), -1, 4)) + self.place
        return self.head(self.blocks(tokens).mean(1))


def with_dropout(
    activation: str, inputs: int, width: int, outputs: int, depth: int
) -> nn.Sequential:
    """Dense layers."""
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Linear(width if i else inputs, width), activated(activation)]
        layers.append(nn.Dropout(DROPPED))
    return nn.Sequential(*layers, nn.Linear(width, outputs))


def build(
    kind: str, activation: str, inputs: int, width: int, outputs: int, depth: int, size: int
) -> nn.Module:
    """A network as torch starts it; arguments as ``nets.build`` has them."""
    if kind == "dropmlp":
        return with_dropout(activation, inputs, width, outputs, depth)
    assert kind == "bare"
    return BareTransformer(activation, width, outputs, depth, size)

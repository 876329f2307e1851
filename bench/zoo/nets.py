"""The networks of the zoo. ``build`` is also what ``--arch bench/zoo/nets.py:build`` names.

Chains are plain ``nn.Sequential`` and are saved whole; everything else as a state_dict.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


class Arctan(nn.Module):
    """arctan; torch has no module for it."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.atan(z)


class Where(nn.Module):
    """A ReLU as a condition."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.where(z > 0, z, torch.zeros_like(z))


class Clamp(nn.Module):
    """Between -1 and 1."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return z.clamp(-1.0, 1.0)


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "tanh": nn.Tanh,
    "logistic": nn.Sigmoid,
    "softsign": nn.Softsign,
    "arctan": Arctan,
    "hardtanh": nn.Hardtanh,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "leaky": lambda: nn.LeakyReLU(0.1),
    "whererelu": Where,
    "clamp": Clamp,
}
MIXED = ("tanh", "softsign", "arctan", "hardtanh")


def activated(name: str, index: int = 0) -> nn.Module:
    """The activation of a hidden layer; ``mixed`` takes its turns."""
    return ACTIVATIONS[MIXED[index % len(MIXED)] if name == "mixed" else name]()


class Recurrent(nn.Module):
    """A recurrent layer read out at its last step; ``[N, T, features]``."""

    def __init__(
        self, kind: str, activation: str, inputs: int, width: int, outputs: int, depth: int
    ) -> None:
        super().__init__()
        if kind == "rnn":
            self.rnn: nn.RNNBase = nn.RNN(
                inputs, width, depth, nonlinearity=activation, batch_first=True
            )
        else:
            cell = {"lstm": nn.LSTM, "gru": nn.GRU}[kind]
            self.rnn = cell(inputs, width, depth, batch_first=True)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0][:, -1])


class Branch(nn.Module):
    """``x + W2 phi(W1 x)``; with batch norm before phi, or layer norm before W1."""

    def __init__(self, width: int, activation: str, norm: str, conv: bool) -> None:
        super().__init__()
        if conv:
            self.first: nn.Module = nn.Conv2d(width, width, 3, padding=1)
            self.second: nn.Module = nn.Conv2d(width, width, 3, padding=1)
        else:
            self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        batch = nn.BatchNorm2d(width) if conv else nn.BatchNorm1d(width)
        self.before = nn.LayerNorm(width) if norm == "layer" else nn.Identity()
        self.between = batch if norm == "batch" else nn.Identity()
        self.act = ACTIVATIONS[activation]()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.second(self.act(self.between(self.first(self.before(x)))))


class Residual(nn.Module):
    """A stem, ``depth`` branches, a head; dense, or convolutions with pooling at the end."""

    def __init__(
        self, conv: bool, activation: str, inputs: int, width: int, outputs: int, depth: int,
        norm: str,
    ) -> None:  # fmt: skip
        super().__init__()
        self.stem = (
            nn.Conv2d(inputs, width, 3, stride=2, padding=1) if conv else nn.Linear(inputs, width)
        )
        self.blocks = nn.Sequential(*(Branch(width, activation, norm, conv) for _ in range(depth)))
        self.norm = nn.LayerNorm(width) if norm == "layer" else nn.Identity()
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()) if conv else nn.Identity()
        self.head = nn.Linear(width, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.pool(self.blocks(self.stem(x)))))


class Transformer(nn.Module):
    """Pre-norm encoder, mean over tokens; ``[N, T, features]``, or int64 ``[N, T]``."""

    def __init__(
        self, activation: str, inputs: int, width: int, outputs: int, depth: int, tokens: int,
        vocabulary: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.embed: nn.Module = (
            nn.Embedding(vocabulary, width) if vocabulary else nn.Linear(inputs, width)
        )
        self.place = nn.Parameter(torch.randn(tokens, width) * 0.3)
        layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, 0.0, activation, batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(
            layer, depth, nn.LayerNorm(width), enable_nested_tensor=False
        )
        self.head = nn.Linear(width, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.embed(x) + self.place).mean(1))


def mlp(activation: str, inputs: int, width: int, outputs: int, depth: int) -> nn.Sequential:
    """Dense layers."""
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Linear(width if i else inputs, width), activated(activation, i)]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


def cnn(
    activation: str, inputs: int, width: int, outputs: int, depth: int, norm: str, size: int,
    dimensions: int,
) -> nn.Sequential:  # fmt: skip
    """Convolutions of kernel 3, the first two of stride 2, then a dense head."""
    conv = nn.Conv2d if dimensions == 2 else nn.Conv1d
    batch = nn.BatchNorm2d if dimensions == 2 else nn.BatchNorm1d
    layers: list[nn.Module] = []
    for i in range(depth):
        stride = 2 if i < 2 else 1
        layers.append(conv(width if i else inputs, width, 3, stride=stride, padding=1))
        layers += [batch(width)] if norm == "batch" else []
        layers.append(ACTIVATIONS[activation]())
        size = (size + stride - 1) // stride
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * size**dimensions, outputs))


def build(
    kind: str, activation: str, inputs: int, width: int, outputs: int, depth: int,
    norm: str = "none", size: int = 0, vocabulary: int = 0,
) -> nn.Module:  # fmt: skip
    """A network as torch starts it.

    Args:
        inputs: features, channels, or features of a step.
        size: of an image's side, a signal's length, or the number of tokens.
        vocabulary: of integer tokens; 0 for float inputs.
    """
    if kind == "mlp":
        return mlp(activation, inputs, width, outputs, depth)
    if kind in ("cnn", "cnn1d"):
        dimensions = 2 if kind == "cnn" else 1
        return cnn(activation, inputs, width, outputs, depth, norm, size, dimensions)
    if kind in ("resmlp", "rescnn"):
        return Residual(kind == "rescnn", activation, inputs, width, outputs, depth, norm)
    if kind == "transformer":
        return Transformer(activation, inputs, width, outputs, depth, size, vocabulary)
    if kind in ("rnn", "lstm", "gru"):
        return Recurrent(kind, activation, inputs, width, outputs, depth)
    from bench.zoo import fourth_nets, fresh_nets  # which build on this

    if kind in ("dropmlp", "bare"):
        return fourth_nets.build(kind, activation, inputs, width, outputs, depth, size)
    return fresh_nets.build(kind, activation, inputs, width, outputs, depth, size)

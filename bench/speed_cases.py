"""Models whose passes are timed, bare and probed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from gradscope.model import Batch, Sample


@dataclass(frozen=True)
class Case:
    """A model and its input.

    Attributes:
        model: made anew.
        x: its input.
        limit: the ratio to stay below.
        fused: whether the bare passes may fuse recurrent cells, whose gates then are not there.
        averaged: whether it counts for the mean of ratios.
    """

    model: Callable[[], nn.Module]
    x: Callable[[], torch.Tensor]
    limit: float
    fused: bool = True
    averaged: bool = True


class Last(nn.Module):
    """A recurrent layer, read out at its last step."""

    def __init__(self, rnn: nn.RNNBase, classes: int = 10) -> None:
        super().__init__()
        self.rnn, self.head = rnn, nn.Linear(rnn.hidden_size, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, steps, features) -> (n, classes)."""
        return self.head(self.rnn(x)[0][:, -1])


class Block(nn.Module):
    """relu(x + conv(relu(conv(x)))), with batch norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.one, self.two = (nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2))
        self.norm_one, self.norm_two = nn.BatchNorm2d(width), nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, width, h, w) -> the same."""
        inner = torch.relu(self.norm_one(self.one(x)))
        return torch.relu(x + self.norm_two(self.two(inner)))


def _seen(net: nn.Module) -> nn.Module:
    """As if it had been trained: batch norm uses its running statistics."""
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.num_batches_tracked += 1
    return net


def mlp(layers: int = 12, width: int = 1024) -> nn.Module:
    """A chain of tanh."""
    inner = [m for _ in range(layers) for m in (nn.Linear(width, width), nn.Tanh())]
    return nn.Sequential(*inner, nn.Linear(width, 10))


def cnn() -> nn.Module:
    """Eight convolutions with batch norm and ReLU."""
    layers: list[nn.Module] = []
    channels = 3
    for i in range(8):
        width = 32 if i < 4 else 64
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if i in (1, 3, 5) else []
        channels = width
    return _seen(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)))


def resnet() -> nn.Module:
    """Six residual blocks in three stages."""
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32)]
    layers += [nn.ReLU(), Block(32), Block(32)]
    for before, width in ((32, 64), (64, 128)):
        down = nn.Conv2d(before, width, 3, stride=2, padding=1, bias=False)
        layers += [down, nn.BatchNorm2d(width), nn.ReLU(), Block(width), Block(width)]
    return _seen(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10)))


def transformer(layers: int = 6, width: int = 256) -> nn.Module:
    """An encoder."""
    heads, inner = width // 32, 4 * width
    layer = nn.TransformerEncoderLayer(
        width, heads, inner, 0.0, batch_first=True, activation="gelu"
    )
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


def lstm() -> nn.Module:
    """Two layers."""
    return Last(nn.LSTM(256, 256, 2, batch_first=True))


def gru() -> nn.Module:
    """Two layers."""
    return Last(nn.GRU(256, 256, 2, batch_first=True))


def _steps() -> torch.Tensor:
    return torch.randn(64, 48, 256)


CASES = {
    "MLP 12 x 1024, batch 256": Case(mlp, lambda: torch.randn(256, 1024), 1.15),
    "CNN 8 conv, batch norm, 32 x 32, batch 64": Case(
        cnn, lambda: torch.randn(64, 3, 32, 32), 1.15
    ),
    "ResNet-like, 6 blocks, 32 x 32, batch 32": Case(
        resnet, lambda: torch.randn(32, 3, 32, 32), 1.15
    ),
    "LSTM 2 x 256, 48 steps, batch 64, against the same steps": Case(
        lstm, _steps, 1.15, fused=False
    ),
    "TransformerEncoder 6 x 256, 128 tokens, batch 16": Case(
        transformer, lambda: torch.randn(16, 128, 256), 1.15
    ),
    "LSTM 2 x 256, 48 steps, batch 64, gates against fused": Case(
        lstm, _steps, 1.6, averaged=False
    ),
    "GRU 2 x 256, 48 steps, batch 64, gates against fused": Case(gru, _steps, 1.3, averaged=False),
}


def sample_of(x: torch.Tensor) -> Sample:
    """One batch."""

    def batches() -> Iterator[Batch]:
        yield Batch((x,), {}, None, len(x), 0)

    return Sample("x", len(x), len(x), False, False, {}, batches)

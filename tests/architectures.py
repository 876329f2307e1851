"""Architectures of the matrix test: small, of every common style, and such that TorchScript can
compile, trace and export them.

Each class stands by itself, so that ``--arch tests/architectures.py:mlp`` works as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def mlp() -> nn.Module:
    """Four tanh layers."""
    return nn.Sequential(
        nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(),
        nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3),
    )  # fmt: skip


def cnn() -> nn.Module:
    """Convolutions, pooling, dropout, a dense layer; sigmoid and ReLU."""
    return nn.Sequential(
        nn.Conv2d(2, 5, 3, padding=1), nn.Sigmoid(), nn.MaxPool2d(2), nn.Conv2d(5, 6, 3),
        nn.ReLU(inplace=True), nn.AvgPool2d(2), nn.Flatten(), nn.Dropout(), nn.Linear(6, 8),
        nn.Tanh(), nn.Linear(8, 3),
    )  # fmt: skip


class Block(nn.Module):
    """Convolution, batch norm, ReLU, twice, and a skip connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """x + f(x)."""
        return F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


class ResidualCnn(nn.Module):
    """A small ResNet; its batch norms have seen data."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.blocks = nn.Sequential(Block(6), Block(6))
        self.head = nn.Linear(6, 4)
        for child in self.modules():
            if isinstance(child, nn.BatchNorm2d):
                child.running_mean.normal_(std=0.2)
                child.running_var.uniform_(0.5, 2)
                child.num_batches_tracked += 5

    def forward(self, x: Tensor) -> Tensor:
        """Class scores."""
        return self.head(self.blocks(F.relu(self.stem(x))).mean(dim=(2, 3)))


class UNet(nn.Module):
    """Two levels down and up, joined by concatenation; an image of probabilities comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1)
        self.middle = nn.Conv2d(6, 6, 3, padding=1)
        self.up2 = nn.ConvTranspose2d(6, 6, 2, stride=2)
        self.up1 = nn.ConvTranspose2d(12, 4, 2, stride=2)
        self.out = nn.Conv2d(8, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """One probability a pixel."""
        a = F.elu(self.down1(x))
        b = F.elu(self.down2(F.max_pool2d(a, 2)))
        c = F.elu(self.middle(F.max_pool2d(b, 2)))
        b = torch.cat([b, torch.tanh(self.up2(c))], dim=1)
        a = torch.cat([a, torch.tanh(self.up1(b))], dim=1)
        return torch.sigmoid(self.out(a))


class TwoBranch(nn.Module):
    """Two inputs, branches of different depth, joined."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh())
        self.right = nn.Sequential(nn.Linear(3, 5), nn.Sigmoid())
        self.join, self.head = nn.Linear(10, 7), nn.Linear(7, 3)

    def forward(self, x: Tensor, side: Tensor) -> Tensor:
        """Class scores."""
        both = torch.cat([self.left(x), self.right(side)], dim=1)
        return self.head(F.leaky_relu(self.join(both), 0.2))


class Lstm(nn.Module):
    """Embedding, LSTM, the last step."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(12, 5)
        self.lstm = nn.LSTM(5, 6, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores."""
        steps, _ = self.lstm(self.table(x))
        return self.head(steps[:, -1])


class BiGru(nn.Module):
    """Two bidirectional layers, a label for every step."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(4, 5, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Log-probabilities of each step."""
        steps, _ = self.gru(x)
        return F.log_softmax(self.head(steps), dim=-1)


class Rnn(nn.Module):
    """A plain RNN over a hundred steps."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(2, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores, from the last step; time first inside."""
        steps, _ = self.rnn(x.transpose(0, 1))
        return self.head(steps[-1])


class PreNorm(nn.Module):
    """One transformer block, written by hand, norm first."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.mix = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """x + attention + feed-forward."""
        n, t, width = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(n, t, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        weights = torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(width // self.heads), dim=-1)
        x = x + self.mix((weights @ v).transpose(1, 2).reshape(n, t, width))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class PreLnTransformer(nn.Module):
    """Words, positions, three blocks, a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(13, 8)
        self.positions = nn.Parameter(0.1 * torch.randn(6, 8))
        self.blocks = nn.Sequential(*(PreNorm(8, 2) for _ in range(3)))
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of each step."""
        return self.head(self.norm(self.blocks(self.words(x) + self.positions)))


class PostLnTransformer(nn.Module):
    """PyTorch's own encoder, norm last, with its fast path in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.1, batch_first=True)
        self.enter = nn.Linear(4, 8)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores."""
        return self.head(self.encoder(self.enter(x)).mean(dim=1))


class Seq2Seq(nn.Module):
    """GRU encoder; GRU cell with additive attention that decodes its own best guess."""

    def __init__(self) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(9, 6), nn.Embedding(7, 6)
        self.encoder = nn.GRU(6, 6, batch_first=True)
        self.cell = nn.GRUCell(12, 6)
        self.keys, self.query, self.score = nn.Linear(6, 5), nn.Linear(6, 5), nn.Linear(5, 1)
        self.head = nn.Linear(6, 7)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of three steps."""
        memory, last = self.encoder(self.source(x))
        keys, state = self.keys(memory), last[0]
        token = torch.zeros_like(x[:, 0])
        steps = []
        for _ in range(3):
            energy = self.score(torch.tanh(keys + self.query(state).unsqueeze(1)))
            context = (torch.softmax(energy, dim=1) * memory).sum(dim=1)
            state = self.cell(torch.cat([self.target(token), context], dim=1), state)
            scores = self.head(state)
            token = scores.argmax(dim=1)
            steps.append(scores)
        return torch.stack(steps, dim=1)


class Gated(nn.Module):
    """Squeeze and excitation over channels, then a gated linear unit."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 6, 3, padding=1)
        self.squeeze, self.excite = nn.Linear(6, 3), nn.Linear(3, 6)
        self.both, self.mix = nn.Linear(6, 10), nn.Linear(5, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores."""
        h = F.silu(self.conv(x))
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(h.mean(dim=(2, 3))))))
        h = (h * gate.unsqueeze(-1).unsqueeze(-1)).mean(dim=(2, 3))
        return self.head(torch.tanh(self.mix(F.glu(self.both(h), dim=-1))))


class WaveNet(nn.Module):
    """Dilated convolutions, tanh times sigmoid, residual and skip sums."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv1d(1, 5, 1)
        self.filters = nn.ModuleList(nn.Conv1d(5, 5, 2, dilation=d, padding=d) for d in (1, 2))
        self.gates = nn.ModuleList(nn.Conv1d(5, 5, 2, dilation=d, padding=d) for d in (1, 2))
        self.mixes = nn.ModuleList(nn.Conv1d(5, 5, 1) for _ in range(2))
        self.head = nn.Conv1d(5, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of every step."""
        x = self.enter(x)
        length = x.shape[-1]
        total = torch.zeros_like(x)
        for filtered, gate, mix in zip(self.filters, self.gates, self.mixes):  # noqa: B905
            h = torch.tanh(filtered(x)[..., :length]) * torch.sigmoid(gate(x)[..., :length])
            h = mix(h)
            total = total + h
            x = x + h
        return self.head(F.relu(total))


class Autoencoder(nn.Module):
    """Down to two numbers and back; two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Linear(8, 6), nn.Linear(6, 2)
        self.up1, self.up2 = nn.Linear(2, 6), nn.Linear(6, 8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruction and code."""
        code = torch.tanh(self.down2(F.softplus(self.down1(x))))
        return torch.sigmoid(self.up2(F.selu(self.up1(code)))), code


class Causal(nn.Module):
    """One block with causal attention by the fused operation."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.qkv, self.up, self.down = nn.Linear(8, 24), nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        """x + attention + feed-forward."""
        n, t, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(n, t, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + mixed.transpose(1, 2).reshape(n, t, 8)
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Gpt(nn.Module):
    """Words in, the next word out; the output shares the embedding's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 8)
        self.blocks = nn.Sequential(Causal(), Causal())
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.words.weight

    def forward(self, x: Tensor) -> Tensor:
        """Scores of the next word at each step."""
        return self.head(self.blocks(self.words(x)))


class Written(nn.Module):
    """Activations written otherwise: a sine, a choice, the larger of two, limits."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(6, 6) for _ in range(6)])
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores."""
        x = torch.sin(self.layers[0](x))
        h = self.layers[1](x)
        h = self.layers[2](torch.where(h > 0, h, torch.zeros_like(h)))
        h = self.layers[3](torch.maximum(h, torch.zeros_like(h)))
        h = self.layers[4](torch.clamp(h, -1.0, 1.0))
        h = self.layers[5](torch.clamp(h, 0.0, 6.0))
        return self.head(torch.maximum(torch.zeros_like(h), h))


@dataclass(frozen=True)
class Architecture:
    """One row of the matrix.

    Attributes:
        name: of the row.
        build: makes the module, to be seeded by the caller.
        inputs: names and values of its inputs, samples first.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], dict[str, Tensor]]


def _x(*shape: int) -> Callable[[], dict[str, Tensor]]:
    return lambda: {"x": torch.randn(6, *shape)}


def _words(kinds: int, *shape: int) -> Callable[[], dict[str, Tensor]]:
    return lambda: {"x": torch.randint(0, kinds, (6, *shape))}


ARCHITECTURES = (
    Architecture("mlp", mlp, _x(6)),
    Architecture("cnn", cnn, _x(2, 8, 8)),
    Architecture("residual-cnn", ResidualCnn, _x(3, 6, 6)),
    Architecture("u-net", UNet, _x(1, 8, 8)),
    Architecture(
        "two-branch", TwoBranch, lambda: {"x": torch.randn(6, 4), "side": torch.randn(6, 3)}
    ),
    Architecture("lstm", Lstm, _words(12, 7)),
    Architecture("bigru", BiGru, _x(5, 4)),
    Architecture("rnn-100", Rnn, _x(100, 2)),
    Architecture("pre-ln", PreLnTransformer, _words(13, 6)),
    Architecture("post-ln", PostLnTransformer, _x(5, 4)),
    Architecture("seq2seq", Seq2Seq, _words(9, 4)),
    Architecture("gated", Gated, _x(2, 5, 5)),
    Architecture("wavenet", WaveNet, _x(1, 9)),
    Architecture("autoencoder", Autoencoder, _x(8)),
    Architecture("written", Written, _x(6)),
    Architecture("gpt", Gpt, _words(11, 5)),
)

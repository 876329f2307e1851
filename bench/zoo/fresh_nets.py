"""Architectures of the third part: autoencoder, U-net, mixer, post-norm transformer, a recurrent
net that answers at every step. ``hidden_layers`` of a network feed its hidden activations."""

from __future__ import annotations

import torch
from torch import nn

from bench.zoo.nets import Recurrent, Transformer, activated


class EveryStep(Recurrent):
    """One answer a step: ``[N, T]``."""

    def __init__(self, inputs: int, width: int, depth: int) -> None:
        super().__init__("gru", "tanh", inputs, width, 1, depth)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0]).squeeze(-1)


class UNet(nn.Module):
    """Two levels over ``[N, 1, L]``; answers ``[N, L]``."""

    def __init__(self, activation: str, inputs: int, width: int) -> None:
        super().__init__()
        self.enter = nn.Conv1d(inputs, width, 5, padding=2)
        self.down = nn.Conv1d(width, 2 * width, 5, stride=2, padding=2)
        self.middle = nn.Conv1d(2 * width, 2 * width, 5, padding=2)
        self.up = nn.Upsample(scale_factor=2)
        self.join = nn.Conv1d(3 * width, width, 5, padding=2)
        self.leave = nn.Conv1d(width, 1, 1)
        self.act = activated(activation)

    def hidden_layers(self) -> list[nn.Module]:
        return [self.enter, self.down, self.middle, self.join]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        top = self.act(self.enter(x))
        low = self.act(self.middle(self.act(self.down(top))))
        joined = self.act(self.join(torch.cat([top, self.up(low)], 1)))
        return self.leave(joined).flatten(1)


class Mixing(nn.Module):
    """``x + W2 phi(W1 norm(x))``, over tokens, then over features."""

    def __init__(self, activation: str, tokens: int, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.first = nn.ModuleList([nn.Linear(tokens, 2 * tokens), nn.Linear(width, 2 * width)])
        self.second = nn.ModuleList([nn.Linear(2 * tokens, tokens), nn.Linear(2 * width, width)])
        self.acts = nn.ModuleList([activated(activation), activated(activation)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.acts[0](self.first[0](self.norms[0](x).transpose(1, 2)))
        x = x + self.second[0](inner).transpose(1, 2)
        return x + self.second[1](self.acts[1](self.first[1](self.norms[1](x))))


class Mixer(nn.Module):
    """``[N, T, features]``; mean over tokens at the end."""

    def __init__(
        self, activation: str, inputs: int, width: int, outputs: int, depth: int, tokens: int
    ) -> None:
        super().__init__()
        self.stem = nn.Linear(inputs, width)
        self.blocks = nn.Sequential(*(Mixing(activation, tokens, width) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs)

    def hidden_layers(self) -> list[nn.Module]:
        return [layer for block in self.blocks for layer in block.first]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.blocks(self.stem(x))).mean(1))


class PostNorm(Transformer):
    """Normalised behind each sum; ``[N, 1, L]`` is cut into tokens of four points."""

    def __init__(self, activation: str, width: int, outputs: int, depth: int, length: int) -> None:
        super().__init__(activation, 4, width, outputs, depth, length // 4, 0)
        layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, 0.0, activation, batch_first=True, norm_first=False
        )
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.reshape(len(x), -1, 4))


def autoencoder(activation: str, inputs: int, width: int, depth: int) -> nn.Sequential:
    """``depth`` hidden layers around one of 8."""
    layers: list[nn.Module] = []
    sizes = [inputs, *(8 if i == depth // 2 else width for i in range(depth))]
    for i in range(depth):
        layers += [nn.Linear(sizes[i], sizes[i + 1]), activated(activation, i)]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], inputs))


def build(
    kind: str, activation: str, inputs: int, width: int, outputs: int, depth: int, size: int
) -> nn.Module:
    """A network as torch starts it; arguments as ``nets.build`` has them."""
    if kind == "ae":
        return autoencoder(activation, inputs, width, depth)
    if kind == "unet1d":
        return UNet(activation, inputs, width)
    if kind == "gruseq":
        return EveryStep(inputs, width, depth)
    if kind == "mixer":
        return Mixer(activation, inputs, width, outputs, depth, size)
    assert kind == "postln"
    return PostNorm(activation, width, outputs, depth, size)

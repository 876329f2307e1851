"""Architectures that are unlike the zoo's: ``--arch nets.py:NAME`` builds each without arguments.

Everything is in this one file, since ``--arch`` loads it by its path. Images are scikit-learn's
digits, 8 x 8, laid out as each net wants them.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm


class Seq2Seq(nn.Module):
    """torch's own nn.Transformer: says a sequence backwards; src, tgt [N, 6] tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(12, 32)
        self.place = nn.Parameter(torch.randn(6, 32) * 0.1)
        self.core = nn.Transformer(32, 4, 2, 2, 64, dropout=0.1, batch_first=True)
        self.head = nn.Linear(32, 12)
        self.register_buffer("mask", torch.triu(torch.full((6, 6), -math.inf), 1))

    def forward(self, src: torch.Tensor, tgt: torch.Tensor) -> torch.Tensor:
        a, b = self.embed(src) + self.place, self.embed(tgt) + self.place
        return self.head(self.core(a, b, tgt_mask=self.mask))


class VisionTransformer(nn.Module):
    """Patches of 2 x 2, a class token, pre-norm."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, 32, 2, 2)
        self.token = nn.Parameter(torch.zeros(1, 1, 32))
        self.place = nn.Parameter(torch.randn(1, 17, 32) * 0.02)
        layer = nn.TransformerEncoderLayer(
            32, 4, 64, 0.1, "gelu", batch_first=True, norm_first=True
        )
        self.core = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        p = self.patch(x).flatten(2).transpose(1, 2)
        p = torch.cat([self.token.expand(p.shape[0], -1, -1), p], 1) + self.place
        return self.head(self.norm(self.core(p)[:, 0]))


class Selu(nn.Module):
    """Batch norm and SELU on a table of 30 columns."""

    def __init__(self) -> None:
        super().__init__()
        self.core = nn.Sequential(
            nn.BatchNorm1d(30), nn.Linear(30, 32), nn.SELU(), nn.AlphaDropout(0.05),
            nn.BatchNorm1d(32), nn.Linear(32, 32), nn.SELU(), nn.Linear(32, 1),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.core(x)


class Spline(nn.Module):
    """A function of each input for each output, in radial bases, as in a KAN."""

    def __init__(self, inputs: int, outputs: int, bases: int = 6) -> None:
        super().__init__()
        self.register_buffer("centres", torch.linspace(-2, 2, bases))
        self.weight = nn.Parameter(torch.randn(outputs, inputs, bases) / math.sqrt(inputs * bases))
        self.base = nn.Linear(inputs, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        phi = torch.exp(-((x[..., None] - self.centres) ** 2) / 0.5)
        return self.base(F.silu(x)) + torch.einsum("nib,oib->no", phi, self.weight)


class Kan(nn.Module):
    """Two layers of splines."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = Spline(64, 24), nn.LayerNorm(24), Spline(24, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.norm(self.a(x)))


class Siren(nn.Module):
    """sin(30 z) first, sin(30 z) after; coordinates to colours."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(2, 64), nn.Linear(64, 64), nn.Linear(64, 64)])
        self.last = nn.Linear(64, 3)
        with torch.no_grad():
            for i, layer in enumerate(self.layers):
                bound = 1 / 2 if i == 0 else math.sqrt(6 / 64) / 30
                layer.weight.uniform_(-bound, bound)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = torch.sin(30 * layer(x))
        return self.last(x)


class Flow(nn.Module):
    """RealNVP of six couplings on points of a plane: (z, log-determinant)."""

    def __init__(self) -> None:
        super().__init__()
        self.nets = nn.ModuleList(
            nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(),
                          nn.Linear(32, 2)) for _ in range(6)
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        a, b = x[:, :1], x[:, 1:]
        total = torch.zeros_like(a)
        for net in self.nets:
            shift, scale = net(a).chunk(2, 1)
            scale = torch.tanh(scale)
            b = b * torch.exp(scale) + shift
            total = total + scale
            a, b = b, a
        return torch.cat([a, b], 1), total[:, 0]


class Vae(nn.Module):
    """Eight latent numbers; the mean in evaluation mode: (image, mean, log variance)."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(64, 64), nn.ReLU())
        self.mean, self.log = nn.Linear(64, 8), nn.Linear(64, 8)
        self.decode = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        h = self.encode(x)
        mean, log = self.mean(h), self.log(h)
        z = mean + torch.randn_like(mean) * torch.exp(log / 2) if self.training else mean
        return self.decode(z), mean, log


class Generator(nn.Module):
    """Of images of a GAN."""

    def __init__(self) -> None:
        super().__init__()
        self.core = nn.Sequential(
            nn.Linear(8, 64), nn.BatchNorm1d(64), nn.LeakyReLU(0.2),
            nn.Linear(64, 64), nn.BatchNorm1d(64), nn.LeakyReLU(0.2),
            nn.Linear(64, 64), nn.Tanh(),
        )  # fmt: skip

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.core(z)


class Discriminator(nn.Module):
    """Its opponent, spectrally normalised; one logit."""

    def __init__(self) -> None:
        super().__init__()
        self.core = nn.Sequential(
            spectral_norm(nn.Linear(64, 64)), nn.LeakyReLU(0.2),
            spectral_norm(nn.Linear(64, 64)), nn.LeakyReLU(0.2), nn.Linear(64, 1),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.core(x)


class Contrastive(nn.Module):
    """Unit vectors of 16 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.core = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.normalize(self.core(x), dim=1)


class Experts(nn.Module):
    """Four experts, gated by a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(64, 4)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(64, 24), nn.GELU(), nn.Linear(24, 10)) for _ in range(4)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        every = torch.stack([e(x) for e in self.experts], 1)
        return (torch.softmax(self.gate(x), 1)[..., None] * every).sum(1)


class TopOne(nn.Module):
    """Four experts, each sample sent to one of them, as in a switch transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.gate = nn.Linear(64, 32), nn.Linear(32, 4)
        self.up = nn.Parameter(torch.randn(4, 32, 48) / math.sqrt(32))
        self.down = nn.Parameter(torch.randn(4, 48, 32) / math.sqrt(48))
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.enter(x)
        share = torch.softmax(self.gate(h), 1)
        top = F.one_hot(share.argmax(1), 4).to(h.dtype) * share
        inner = torch.relu(torch.einsum("nd,edh->neh", h, self.up))
        return self.head(h + torch.einsum("neh,ehd,ne->nd", inner, self.down, top))


class FakeQuant(nn.Module):
    """Eight-bit weights and activations with straight-through gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(64, 48), nn.Linear(48, 48), nn.Linear(48, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in (self.a, self.b):
            z = F.linear(x, self._rounded(layer.weight, 0.01, -128), layer.bias)
            x = self._rounded(torch.relu(z), 0.04, 0)
        return F.linear(x, self._rounded(self.c.weight, 0.01, -128), self.c.bias)

    @staticmethod
    def _rounded(t: torch.Tensor, scale: float, low: int) -> torch.Tensor:
        return torch.fake_quantize_per_tensor_affine(t, scale, 0, low, low + 255)


class Lora(nn.Module):
    """A frozen base and adapters of rank eight."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(64, 64), nn.Linear(64, 10)
        self.a_down, self.a_up = nn.Linear(64, 8, False), nn.Linear(8, 64, False)
        self.b_down, self.b_up = nn.Linear(64, 8, False), nn.Linear(8, 10, False)
        nn.init.zeros_(self.a_up.weight)
        nn.init.zeros_(self.b_up.weight)
        self.a.requires_grad_(False)
        self.b.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(self.a(x) + self.a_up(self.a_down(x)))
        return self.b(h) + self.b_up(self.b_down(h))


class Equilibrium(nn.Module):
    """Thirty rounds of one layer, towards its fixed point."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.turn = nn.Linear(64, 32), nn.Linear(32, 32, False)
        self.head = nn.Linear(32, 10)
        with torch.no_grad():
            self.turn.weight.mul_(0.8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        u = self.enter(x)
        z = torch.zeros_like(u)
        for _ in range(30):
            z = torch.tanh(self.turn(z) + u)
        return self.head(z)


class Squeeze(nn.Module):
    """Squeeze and excitation behind each of two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(1, 16, 3, 1, 1), nn.Conv2d(16, 16, 3, 2, 1)])
        self.norms = nn.ModuleList([nn.BatchNorm2d(16), nn.BatchNorm2d(16)])
        self.gates = nn.ModuleList(
            nn.Sequential(nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 16), nn.Sigmoid())
            for _ in range(2)
        )
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for conv, norm, gate in zip(self.convs, self.norms, self.gates, strict=True):
            x = torch.relu(norm(conv(x)))
            x = x * gate(x.mean((2, 3)))[:, :, None, None]
        return self.head(x.mean((2, 3)))


class Mobile(nn.Module):
    """Inverted residuals with depthwise convolutions, ReLU6 and hard swish."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 12, 3, 1, 1), nn.BatchNorm2d(12), nn.Hardswish())
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(12, 36, 1, bias=False), nn.BatchNorm2d(36), nn.ReLU6(),
                nn.Conv2d(36, 36, 3, 1, 1, groups=36, bias=False), nn.BatchNorm2d(36), nn.ReLU6(),
                nn.Conv2d(36, 12, 1, bias=False), nn.BatchNorm2d(12),
            ) for _ in range(3)
        )  # fmt: skip
        self.head = nn.Linear(12, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x.mean((2, 3)))


class UNet(nn.Module):
    """Marks the ink in a noisy image, by the pixel; a sigmoid at its end."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(1, 12, 3, 1, 1), nn.Conv2d(12, 24, 3, 2, 1)
        self.middle = nn.Conv2d(24, 24, 3, 1, 1)
        self.up, self.last = nn.ConvTranspose2d(24, 12, 2, 2), nn.Conv2d(24, 1, 3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = torch.relu(self.down1(x))
        b = torch.relu(self.middle(torch.relu(self.down2(a))))
        return torch.sigmoid(self.last(torch.cat([a, torch.relu(self.up(b))], 1)))


class GroupNorm(nn.Module):
    """Group norm and instance norm, SiLU."""

    def __init__(self) -> None:
        super().__init__()
        self.core = nn.Sequential(
            nn.Conv2d(1, 16, 3, 1, 1), nn.GroupNorm(4, 16), nn.SiLU(),
            nn.Conv2d(16, 16, 3, 2, 1), nn.InstanceNorm2d(16, affine=True), nn.SiLU(),
            nn.Flatten(), nn.Linear(256, 10),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.core(x)


class RmsNorm(nn.Module):
    """RMS norm and SwiGLU in four residual blocks, as in a language model."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.head = nn.Linear(64, 32), nn.Linear(32, 10)
        self.norms = nn.ModuleList(nn.RMSNorm(32) for _ in range(4))
        self.gates = nn.ModuleList(nn.Linear(32, 64, False) for _ in range(4))
        self.ups = nn.ModuleList(nn.Linear(32, 64, False) for _ in range(4))
        self.downs = nn.ModuleList(nn.Linear(64, 32, False) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.enter(x)
        for norm, gate, up, down in zip(self.norms, self.gates, self.ups, self.downs, strict=True):
            h = norm(x)
            x = x + down(F.silu(gate(h)) * up(h))
        return self.head(x)


def grid() -> torch.Tensor:
    """Of 64 pixels, each joined to its neighbours: D^-1/2 (A + I) D^-1/2, [64, 64]."""
    a = torch.eye(64)
    for i in range(64):
        for j in range(64):
            if abs(i // 8 - j // 8) + abs(i % 8 - j % 8) == 1:
                a[i, j] = 1.0
    d = a.sum(1) ** -0.5
    return d[:, None] * a * d


class Graph(nn.Module):
    """Graph convolutions by a dense adjacency; pixels with their places are nodes: [N, 64, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("adjacency", grid())
        self.a, self.b, self.head = nn.Linear(3, 32), nn.Linear(32, 32), nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.adjacency @ self.a(x))
        h = torch.relu(self.adjacency @ self.b(h))
        return self.head(torch.cat([h.mean(1), h.amax(1)], 1))


class Spiking(nn.Module):
    """Leaky integrate-and-fire over eight steps; a steep sigmoid's slope in place of the step's."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(64, 64), nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        current = self.a(x)
        v, total = torch.zeros_like(current), torch.zeros(x.shape[0], 10, dtype=x.dtype)
        for _ in range(8):
            v = 0.8 * v + current
            soft = torch.sigmoid(5 * (v - 1))
            spike = (v > 1).to(v.dtype).detach() + soft - soft.detach()
            v = v * (1 - spike.detach())
            total = total + self.b(spike)
        return total / 8


class MultiLabel(nn.Module):
    """Even? above four? a loop? prime? Four sigmoids."""

    def __init__(self) -> None:
        super().__init__()
        self.core = nn.Sequential(
            nn.Linear(64, 48), nn.ELU(), nn.Linear(48, 32), nn.ELU(), nn.Linear(32, 4), nn.Sigmoid()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.core(x)


class Ctc(nn.Module):
    """Reads three digits side by side: [N, 24, 8] columns to log-probabilities [N, 24, 11]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(8, 32, 5, 1, 2)
        self.core = nn.LSTM(32, 32, batch_first=True, bidirectional=True)
        self.head = nn.Linear(64, 11)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.conv(x.transpose(1, 2))).transpose(1, 2)
        return torch.log_softmax(self.head(self.core(h)[0]), -1)


class ActorCritic(nn.Module):
    """Logits of a policy and a value."""

    def __init__(self) -> None:
        super().__init__()
        self.core = nn.Sequential(nn.Linear(64, 48), nn.Tanh(), nn.Linear(48, 48), nn.Tanh())
        self.policy, self.value = nn.Linear(48, 10), nn.Linear(48, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = self.core(x)
        return self.policy(h), self.value(h)


class Causal(nn.Module):
    """Dilated causal convolutions with a gate, as in WaveNet: [N, 64, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv1d(1, 16, 1)
        self.filters = nn.ModuleList(nn.Conv1d(16, 32, 2, dilation=2**i) for i in range(6))
        self.mixes = nn.ModuleList(nn.Conv1d(16, 16, 1) for _ in range(6))
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.enter(x.transpose(1, 2))
        skip = torch.zeros_like(h)
        for i, (conv, mix) in enumerate(zip(self.filters, self.mixes, strict=True)):
            a, b = conv(F.pad(h, (2**i, 0))).chunk(2, 1)
            out = mix(torch.tanh(a) * torch.sigmoid(b))
            h, skip = h + out, skip + out
        return self.head(torch.relu(skip).amax(2))


class Highway(nn.Module):
    """Twelve layers that carry what their gates do not change; gates begin shut."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.head = nn.Linear(64, 24), nn.Linear(24, 10)
        self.layers = nn.ModuleList(nn.Linear(24, 24) for _ in range(12))
        self.gates = nn.ModuleList(nn.Linear(24, 24) for _ in range(12))
        for gate in self.gates:
            nn.init.constant_(gate.bias, -3.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.enter(x)
        for layer, gate in zip(self.layers, self.gates, strict=True):
            t = torch.sigmoid(gate(x))
            x = t * torch.tanh(layer(x)) + (1 - t) * x
        return self.head(x)


class DeepSet(nn.Module):
    """A set of points, pooled by their maximum, with attention to it: [N, 64, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.point = nn.Sequential(nn.Linear(3, 32), nn.Mish(), nn.Linear(32, 48), nn.Mish())
        self.seed = nn.Parameter(torch.randn(1, 4, 48) * 0.1)
        self.look = nn.MultiheadAttention(48, 4, batch_first=True)
        self.head = nn.Linear(192, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.point(x)
        pooled, _ = self.look(self.seed.expand(x.shape[0], -1, -1), h, h, need_weights=False)
        return self.head(pooled.flatten(1))


class Mixture(nn.Module):
    """A mixture density network: shares, means, deviations of three normals."""

    def __init__(self) -> None:
        super().__init__()
        self.core = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh())
        self.share, self.mean, self.log = (nn.Linear(32, 3) for _ in range(3))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        h = self.core(x)
        share, scale = torch.log_softmax(self.share(h), 1), F.softplus(self.log(h)) + 1e-3
        return {"share": share, "mean": self.mean(h), "scale": scale}


class Maxout(nn.Module):
    """The largest of three, weight-normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = weight_norm(nn.Linear(64, 96)), weight_norm(nn.Linear(32, 96))
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in (self.a, self.b):
            x = layer(x).reshape(x.shape[0], 32, 3).amax(2)
        return self.head(x)


class Text(nn.Module):
    """A bag of embeddings and a GRU over the same tokens: is there more of one than of another?"""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 16, padding_idx=0)
        self.core = nn.GRU(16, 24, 2, batch_first=True)
        self.head = nn.Linear(40, 2)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        e = self.embed(tokens)
        return self.head(torch.cat([e.mean(1), self.core(e)[0][:, -1]], 1))


class Probabilities(nn.Module):
    """Ends in a softmax and is trained by the log of it."""

    def __init__(self) -> None:
        super().__init__()
        self.core = nn.Sequential(
            nn.Linear(13, 24), nn.Softplus(), nn.Linear(24, 3), nn.Softmax(dim=1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.core(x)


class Hyper(nn.Module):
    """One net makes the weights of another."""

    def __init__(self) -> None:
        super().__init__()
        self.look = nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 32 * 10 + 10))
        self.features = nn.Sequential(nn.Linear(64, 32), nn.Tanh())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = self.look(x)
        w, b = made[:, :320].reshape(-1, 10, 32), made[:, 320:]
        return (w @ self.features(x)[..., None])[..., 0] + b


class Binary(nn.Module):
    """Weights of one bit, with straight-through gradients and batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(64, 96), nn.Linear(96, 96), nn.Linear(96, 10)
        self.n, self.m = nn.BatchNorm1d(96), nn.BatchNorm1d(96)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.hardtanh(self.n(F.linear(x, self._bit(self.a.weight), self.a.bias)))
        x = F.hardtanh(self.m(F.linear(x, self._bit(self.b.weight), self.b.bias)))
        return self.c(x)

    @staticmethod
    def _bit(w: torch.Tensor) -> torch.Tensor:
        return (torch.sign(w) * w.abs().mean() - w).detach() + w


ALL: dict[str, Any] = {
    c.__name__.lower(): c
    for c in (
        Seq2Seq, VisionTransformer, Selu, Kan, Siren, Flow, Vae, Generator, Discriminator,
        Contrastive, Experts, TopOne, FakeQuant, Lora, Equilibrium, Squeeze, Mobile, UNet,
        GroupNorm, RmsNorm, Graph, Spiking, MultiLabel, Ctc, ActorCritic, Causal, Highway, DeepSet,
        Mixture, Maxout, Text, Probabilities, Hyper, Binary,
    )
}  # fmt: skip

"""Architectures in the style of those that people publish, at their usual start: every activation
found, its role right, a ledger where there is one, and no alarm."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradscope.findings import Severity
from gradscope.rules import run_rules
from tests.support import measured


class Inverted(nn.Module):
    """MobileNetV2's block: wider, by channel, narrower; ReLU6 in place."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = 4 * channels
        self.f = nn.Sequential(
            nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(inplace=True),
            nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False), nn.BatchNorm2d(wide),
            nn.ReLU6(inplace=True), nn.Conv2d(wide, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.f(x)


def _mobile() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU6(inplace=True), Inverted(8), Inverted(8),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))  # fmt: skip


def _attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    scores = scores if mask is None else scores.masked_fill(mask, -math.inf)
    return scores.softmax(-1) @ v


class Gpt2Block(nn.Module):
    """Norm first, causal, GELU written out as GPT-2 does."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc, self.out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        future = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        x = x + self.proj(_attention(*self.attn(self.ln1(x)).chunk(3, -1), future))
        z = self.fc(self.ln2(x))
        cubic = math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)
        return x + self.out(0.5 * z * (1 + torch.tanh(cubic)))


class Gpt2(nn.Module):
    """Words and positions, both looked up; all samples share the positions."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(20, 16), nn.Embedding(12, 16)
        self.blocks, self.norm = nn.ModuleList(Gpt2Block() for _ in range(3)), nn.LayerNorm(16)

    def forward(self, x: Tensor) -> Tensor:
        h = self.words(x) + self.places(torch.arange(x.shape[1]))
        for block in self.blocks:
            h = block(h)
        return F.linear(self.norm(h), self.words.weight)


class LlamaBlock(nn.Module):
    """RMS norm, rotated positions, SwiGLU."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.n1, self.n2 = nn.RMSNorm(width), nn.RMSNorm(width)
        self.qkv, self.o = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.gate, self.up = nn.Linear(width, 32), nn.Linear(width, 32)
        self.down = nn.Linear(32, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.n1(x)).chunk(3, -1)
        angle = torch.arange(x.shape[1])[:, None] * 0.5 ** torch.arange(8)
        c, s = angle.cos(), angle.sin()
        turn = lambda a: torch.cat([a[..., :8] * c - a[..., 8:] * s,  # noqa: E731
                                    a[..., :8] * s + a[..., 8:] * c], -1)  # fmt: skip
        x = x + self.o(_attention(turn(q), turn(k), v))
        h = self.n2(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Experts(nn.Module):
    """Each sample goes to two of three experts."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.route = nn.Linear(6, 8), nn.Linear(8, 3)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8))
                                     for _ in range(3))  # fmt: skip
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.enter(x))
        weights, chosen = self.route(h).softmax(-1).topk(2, -1)
        out = torch.zeros_like(h)
        for i, expert in enumerate(self.experts):
            rows, slot = (chosen == i).nonzero(as_tuple=True)
            out = out.index_add(0, rows, expert(h[rows]) * weights[rows, slot, None])
        return self.head(h + out)


class Cell(nn.Module):
    """A recurrent cell by hand, run over time; ``kind`` says how it is written."""

    def __init__(self, kind: str, width: int = 6) -> None:
        super().__init__()
        self.kind, self.width = kind, width
        parts = {"sliced": 4, "chunked": 4}.get(kind, 1)
        self.i = nn.Linear(4 + width, parts * width)
        if parts == 1:
            self.f, self.g = nn.Linear(4 + width, width), nn.Linear(4 + width, width)
            self.o = nn.Linear(4 + width, width)
        self.head = nn.Linear(width, 3)

    def gates(self, xh: Tensor) -> tuple[Tensor, ...]:
        if self.kind == "sliced":
            z, w = self.i(xh), self.width
            return z[:, :w], z[:, w : 2 * w], z[:, 2 * w : 3 * w], z[:, 3 * w :]
        if self.kind == "chunked":  # in another order
            i, f, o, g = self.i(xh).chunk(4, 1)
            return i, f, g, o
        return self.i(xh), self.f(xh), self.g(xh), self.o(xh)

    def forward(self, x: Tensor) -> Tensor:
        h = c = torch.zeros(len(x), self.width)
        for t in range(x.shape[1]):
            xh = torch.cat([x[:, t], h], 1)
            if self.kind == "gru":
                update, reset = torch.sigmoid(self.i(xh)), torch.sigmoid(self.f(xh))
                new = torch.tanh(self.g(torch.cat([x[:, t], reset * h], 1)))
                h = (1 - update) * new + update * h
                continue
            i, f, g, o = self.gates(xh)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        return self.head(h)


class Highway(nn.Module):
    """A gate decides between the layer and the identity."""

    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.ModuleList(nn.Linear(6, 6) for _ in range(3))
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(3))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        for gate, layer in zip(self.gates, self.layers, strict=True):
            g = torch.sigmoid(gate(x))
            x = g * torch.tanh(layer(x)) + (1 - g) * x
        return self.head(x)


class Film(nn.Module):
    """Features scaled and shifted by a condition: the tanh carries the signal."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.scale, self.shift = nn.Linear(4, 8), nn.Linear(2, 8), nn.Linear(2, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        condition = x[:, 4:]
        h = torch.tanh(self.a(x[:, :4])) * self.scale(condition) + self.shift(condition)
        return self.head(torch.tanh(h))


class Detector(nn.Module):
    """DETR: a transformer asks an image with learned queries; two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(3, 16, 4, 4)
        self.queries = nn.Embedding(5, 16)
        self.transformer = nn.Transformer(16, 2, 1, 1, 32, batch_first=True)
        self.scores, self.box = nn.Linear(16, 4), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        pixels = F.relu(self.backbone(x)).flatten(2).transpose(1, 2)
        queries = self.queries.weight.expand(len(x), -1, -1)
        h = self.transformer(pixels, queries)
        return {"logits": self.scores(h), "boxes": torch.sigmoid(self.box(h))}


@dataclass(frozen=True)
class Style:
    """One architecture.

    Attributes:
        build: the module.
        x: its input.
        roles: of each site.
        ledger: whether there is a total.
        coupled: part of the reason why samples are not told apart; None: they are.
    """

    build: Callable[[], nn.Module]
    x: Callable[[], Tensor]
    roles: dict[str, str]
    ledger: bool = True
    coupled: str | None = None


def _all(role: str, *names: str) -> dict[str, str]:
    return dict.fromkeys(names, role)


NAMED = ("input", "forget", "cell", "output", "state")
sequence = lambda: torch.randn(8, 5, 4)  # noqa: E731
words = lambda: torch.randint(0, 20, (8, 9))  # noqa: E731

STYLES = {
    "mobilenet": Style(
        _mobile, lambda: torch.randn(8, 3, 16, 16),
        _all("hidden", "0/relu6", "2.f.1/relu6", "2.f.4/relu6", "3.f.1/relu6", "3.f.4/relu6"),
        coupled="batch statistics"),
    "gpt-2": Style(Gpt2, words, _all("part", *(f"blocks.{i}.fc/tanh" for i in range(3)))),
    "llama": Style(
        lambda: nn.Sequential(nn.Embedding(20, 16), LlamaBlock(), LlamaBlock(), nn.Linear(16, 20)),
        words, _all("hidden", "1.gate/silu", "2.gate/silu")),
    "experts": Style(
        Experts, lambda: torch.randn(24, 6),
        _all("hidden", "enter/tanh", *(f"experts.{i}.0/gelu" for i in range(3))),
        coupled="no fixed place"),
    "lstm, sliced": Style(lambda: Cell("sliced"), sequence,
                          _all("gate", *(f"i/{n}" for n in NAMED)), ledger=False),
    "lstm, other order": Style(
        lambda: Cell("chunked"), sequence,
        _all("gate", "i/sigmoid", "i/sigmoid#2", "i/sigmoid#3", "i/tanh", "i/tanh#2"),
        ledger=False),
    "lstm, four layers": Style(
        lambda: Cell("apart"), sequence,
        _all("gate", "i/sigmoid", "f/sigmoid", "g/tanh", "o/sigmoid", "f/tanh"), ledger=False),
    "gru": Style(lambda: Cell("gru"), sequence,
                 _all("gate", "i/sigmoid", "f/sigmoid", "g/tanh"), ledger=False),
    "highway": Style(
        Highway, lambda: torch.randn(8, 6),
        _all("gate", *(f"gates.{i}/sigmoid" for i in range(3)))
        | _all("hidden", *(f"layers.{i}/tanh" for i in range(3)))),
    "film": Style(Film, lambda: torch.randn(8, 6),
                  _all("hidden", "a/tanh", "scale+shift/tanh")),
    "detector": Style(
        Detector, lambda: torch.randn(8, 3, 8, 8),
        _all("hidden", "backbone/relu", "transformer.encoder.layers.0.linear1/relu",
             "transformer.decoder.layers.0.linear1/relu") | {"box/sigmoid": "output"}),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", STYLES)
def test_styles(name):
    style = STYLES[name]
    torch.manual_seed(0)
    module, x = style.build(), style.x()
    found = measured(module, x)
    assert {s.id: s.role for s in found.sites} == style.roles
    total = found.heads[0].ledger.total
    assert (total is not None) == style.ledger
    assert total is None or abs(total) < 1.5
    reasons = {s.what: s.reason for s in found.skipped}
    assert (style.coupled is not None) == ("per-sample statistics" in reasons)
    assert style.coupled is None or style.coupled in reasons["per-sample statistics"]
    assert not [s for s in found.skipped if s.what.startswith("activation")]
    assert not [f for f in run_rules(found) if f.severity is not Severity.INFORMATION]


def test_a_unit_by_hand_has_the_ledger_of_the_ready_made_one():
    class Unit(nn.Module):
        def __init__(self, f: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            self.f = f
            self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers[:-1]:
                x = self.f(layer(x))
            return self.layers[-1](x)

    totals = []
    for f in (F.silu, lambda z: z * torch.sigmoid(z)):
        torch.manual_seed(0)
        unit = Unit(f).double()
        totals.append(measured(unit, torch.randn(8, 6).double()).heads[0].ledger)
    assert totals[1].total == pytest.approx(totals[0].total, rel=1e-6)
    assert totals[1].median == pytest.approx(totals[0].median, rel=1e-6)
    assert len(totals[1].entries) == 3

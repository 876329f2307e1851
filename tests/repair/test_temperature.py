"""Attention that is too sharp is cooled, whatever code it is: projections packed or apart."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gradscope.repair.base import RemedyError, perform
from gradscope.repair.temperature import WORKING, Temperature, _seen
from tests.repair.test_fold import case_of, changed_by

WIDTH, STEPS, HEADS = 8, 5, 2


class Attending(nn.Module):
    """``hot`` names what is multiplied by 20: parameters, or rows of them."""

    hot: tuple[str, ...] = ("q.weight", "k.weight")

    def __init__(self):
        super().__init__()
        self.enter, self.out = nn.Linear(6, WIDTH * STEPS), nn.Linear(WIDTH, 3)
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x):
        return self.out(self.attend(self.enter(x).reshape(-1, STEPS, WIDTH)).mean(1))

    def heads(self, x):
        return x.reshape(len(x), -1, HEADS, WIDTH // HEADS).transpose(1, 2)


class ByHand(Attending):
    """As in BERT: a projection each, a scaled product, a mask, a softmax."""

    def attend(self, x):
        q, k, v = (self.heads(f(x)) for f in (self.q, self.k, self.v))
        scores = q @ k.transpose(-1, -2) / (WIDTH // HEADS) ** 0.5
        mask = torch.zeros(STEPS, STEPS, dtype=x.dtype).fill_diagonal_(float("-inf"))
        return (
            (F.dropout(torch.softmax(scores + mask, -1), 0.1, False) @ v).transpose(1, 2).flatten(2)
        )


class Fused(Attending):
    def attend(self, x):
        q, k, v = (self.heads(f(x)) for f in (self.q, self.k, self.v))
        found = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return found.transpose(1, 2).flatten(2)


class OneQueryGroup(Attending):
    """Heads of queries that share their keys and values."""

    def __init__(self):
        super().__init__()
        self.k, self.v = nn.Linear(WIDTH, WIDTH // HEADS), nn.Linear(WIDTH, WIDTH // HEADS)

    def attend(self, x):
        q = self.heads(self.q(x))
        k, v = self.k(x)[:, None], self.v(x)[:, None]
        found = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        return found.transpose(1, 2).flatten(2)


class Rotary(Attending):
    """Positions turn queries and keys, which leaves their scale."""

    def attend(self, x):
        angle = torch.arange(STEPS, dtype=x.dtype)[:, None] * torch.ones(2, dtype=x.dtype)
        q, k, v = (self.heads(f(x)) for f in (self.q, self.k, self.v))
        q, k = (
            t * angle.cos().repeat(1, 2)
            + torch.cat([-t[..., 2:], t[..., :2]], -1) * angle.sin().repeat(1, 2)
            for t in (q, k)
        )
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Packed(Attending):
    """As in GPT-2: one projection, cut in three."""

    hot = ("qkv.weight[:16]",)

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)

    def attend(self, x):
        q, k, v = (self.heads(t) for t in self.qkv(x).split(WIDTH, dim=2))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class OtherSizes(Attending):
    """torch's own, with keys and values of other widths: three matrices and one bias."""

    hot = ("attention.q_proj_weight", "attention.k_proj_weight")

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, kdim=6, vdim=7, batch_first=True)

    def attend(self, x):
        return self.attention(x, x[..., :6], x[..., :7], need_weights=False)[0]


class NormedQueries(Attending):
    """Norms with gains behind the projections: the gains set the scale."""

    hot = ("one.weight", "two.weight")

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.LayerNorm(4), nn.LayerNorm(4)

    def attend(self, x):
        q, k, v = (self.heads(f(x)) for f in (self.q, self.k, self.v))
        q, k = self.one(q), self.two(k)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


EVERY = [ByHand, Fused, OneQueryGroup, Rotary, Packed, OtherSizes, NormedQueries]


class SameForAll(Attending):
    """Queries, keys and values are one: scaling would change what is passed on."""

    hot = ("q.weight",)

    def attend(self, x):
        q = self.heads(self.q(x))
        return F.scaled_dot_product_attention(q, q, q).transpose(1, 2).flatten(2)


class NoParameters(Attending):
    """A bare norm undoes whatever is done to the projections."""

    def attend(self, x):
        q, k, v = (self.heads(f(x)) for f in (self.q, self.k, self.v))
        q, k = (20 * F.layer_norm(t, [4]) for t in (q, k))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def made(kind: type[Attending]) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    module = kind().double().eval()
    with torch.no_grad():
        for name in kind.hot:
            name, _, rows = name.partition("[")
            weight = dict(module.named_parameters())[name]
            weight[: int(rows[1:-1]) if rows else None] *= 20
    return module, torch.randn(64, 6, dtype=torch.float64)


def spread(module: nn.Module, x: torch.Tensor) -> list[float]:
    return [a.spread for a in _seen(case_of(module, x), {}).values()]


@pytest.mark.parametrize("kind", EVERY)
def test_its_logits_come_back_and_nothing_else_is_touched(kind: type[Attending]):
    module, x = made(kind)
    assert spread(module, x)[0] > 2 * WORKING
    result = perform(Temperature(), case_of(module, x))
    cooled = changed_by(module, result)
    assert spread(cooled, x) == pytest.approx([WORKING], rel=1e-6)
    (place,) = result.places
    assert place.state == "folded"
    factors = set()
    for name, value in result.changed.items():
        ratio = value / dict(module.named_parameters())[name]
        factors |= set(ratio.flatten().double().round(decimals=9).tolist())
    assert len(factors - {1.0}) == 1  # one factor, or as it was
    assert not any(n.startswith(("v.", "enter.", "out.")) for n in result.changed)
    if kind is Packed:
        assert torch.equal(result.changed["qkv.weight"][16:], module.qkv.weight[16:])
        assert torch.equal(result.changed["qkv.bias"][16:], module.qkv.bias[16:])


@pytest.mark.parametrize(
    ("kind", "why"),
    [(SameForAll, "its values come from q."), (NoParameters, "a norm undoes the scale")],
)
def test_what_cannot_be_cooled_is_left_and_named(kind: type[Attending], why: str):
    module, x = made(kind)
    result = perform(Temperature(), case_of(module, x))
    assert not result.changed
    assert [p.state for p in result.places] == ["left"]
    assert why in result.places[0].how


def test_a_softmax_that_is_no_attention_is_none():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 8), nn.Softmax(-1), nn.Linear(8, 3)).double()
    with pytest.raises(RemedyError, match="no attention was found"):
        perform(Temperature(), case_of(module, torch.randn(64, 6).double()))

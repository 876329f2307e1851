"""How sharp attention is, whichever way it is computed."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.support import measured

TOKENS, WIDTH, HEADS = 6, 8, 2


class Attends(nn.Module):
    """Self-attention in one of several ways, all with the same weights."""

    def __init__(self, how: str, scale: float = 1.0, causal: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.attn = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        with torch.no_grad():
            self.attn.in_proj_weight[: 2 * WIDTH].mul_(scale)
        self.head, self.how, self.causal = nn.Linear(WIDTH, 3), how, causal

    def forward(self, x):
        off = torch.ones(TOKENS, TOKENS, dtype=torch.bool).triu(1) if self.causal else None
        if self.how in ("module", "module with weights"):
            wanted = self.how != "module"
            mixed = self.attn(x, x, x, need_weights=wanted, attn_mask=off)[0]
            return self.head(mixed.mean(1))
        joint = F.linear(x, self.attn.in_proj_weight, self.attn.in_proj_bias)
        parts = joint.unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        if self.how == "fused":
            mixed = F.scaled_dot_product_attention(*parts, is_causal=self.causal)
        else:
            scores = parts[0] @ parts[1].transpose(-1, -2) / math.sqrt(WIDTH // HEADS)
            if off is not None:
                scores = scores.masked_fill(off, -math.inf)
            mixed = scores.softmax(-1) @ parts[2]
        mixed = mixed.transpose(1, 2).flatten(2)
        return self.head(self.attn.out_proj(mixed).mean(1))


def attention(net: nn.Module):
    return measured(net.eval(), torch.randn(16, TOKENS, WIDTH, generator=GENERATOR())).attention


def GENERATOR():
    return torch.Generator().manual_seed(1)


@pytest.mark.parametrize("causal", [False, True])
def test_every_way_to_attend_shows_the_same(causal: bool):
    ways = ("module", "module with weights", "fused", "by hand")
    found = [attention(Attends(how, 3.0, causal)) for how in ways]
    for (one,) in found:
        assert one.layer == "attn"
        rows = TOKENS - 1 if causal else TOKENS  # the first token sees only itself
        assert one.rows == 16 * HEADS * rows
        assert one.keys == pytest.approx((TOKENS + 2) / 2 if causal else TOKENS)
        (first,) = found[0]
        assert one.saturated_fraction == pytest.approx(first.saturated_fraction, abs=0.02)
        assert one.mean_relative_derivative == pytest.approx(
            first.mean_relative_derivative, rel=1e-4
        )


def test_large_queries_and_keys_saturate_it():
    (usual,), (large,) = attention(Attends("fused")), attention(Attends("fused", 30.0))
    assert usual.saturated_fraction < 0.05 < usual.mean_relative_derivative
    assert large.saturated_fraction > 0.9
    assert large.mean_relative_derivative < 0.1


def test_even_weights_have_the_relative_derivative_one():
    (even,) = attention(Attends("by hand", 0.0))
    assert even.mean_relative_derivative > 0.9


def test_a_softmax_that_gives_the_answer_is_no_attention():
    net = nn.Sequential(nn.Linear(WIDTH, 8), nn.Tanh(), nn.Linear(8, 3), nn.Softmax(-1))
    assert measured(net, torch.randn(16, WIDTH)).attention == ()

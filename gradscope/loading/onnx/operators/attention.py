"""Scaled dot-product attention (opset 23 to 25) and rotary position embedding."""

from __future__ import annotations

import math
from typing import Any

import torch

from gradscope.loading.onnx.registry import Call, operator

Tensor = torch.Tensor


@operator("Attention", since=23)
def attention(
    call: Call, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None,
    past_key: Tensor | None = None, past_value: Tensor | None = None, valid: Tensor | None = None,
) -> tuple[Any, ...]:  # fmt: skip
    """softmax(q k^T scale + bias) v, with caches, grouped heads and masks.

    Returns:
        the result, present key and value, and the scores as qk_matmul_output_mode asks for them.
    """
    flat = q.dim() == 3
    if flat:
        q = _heads(q, int(call.get("q_num_heads")))
        k, v = (_heads(t, int(call.get("kv_num_heads"))) for t in (k, v))
    scale = math.sqrt(call.get("scale") or 1.0 / math.sqrt(q.shape[-1]))
    if past_key is not None and past_value is not None:
        k, v = torch.cat([past_key, k], 2), torch.cat([past_value, v], 2)
    present = (k, v)
    if q.shape[1] != k.shape[1]:
        repeats = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
    bias = _bias(call, q, k, mask, past_key, valid)
    scores = (q * scale) @ (k * scale).transpose(-1, -2)
    shown = scores
    cap = call.get("softcap", 0.0)
    if cap > 0:
        scores = cap * torch.tanh(scores / cap)
    mode = int(call.get("qk_matmul_output_mode", 0))
    shown = scores if mode == 1 or (cap > 0 and mode == 0 and call.version < 25) else shown
    weights, scores = _softmax(call, scores, bias)
    shown = scores if mode == 2 else weights if mode == 3 else shown
    y = weights @ v
    y = y.transpose(1, 2).flatten(2) if flat else y
    return y, *present, shown


def _heads(x: Tensor, count: int) -> Tensor:
    return x.unflatten(-1, (count, -1)).transpose(1, 2)  # type: ignore[no-untyped-call, no-any-return]


def _softmax(call: Call, scores: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """(probabilities, biased scores); a row where nothing may be attended to is 0, not NaN."""
    dtype = scores.dtype
    if bias is None:
        wide = scores.to(_precision(call, dtype))
        return torch.softmax(wide, -1).to(dtype), scores
    closed = (bias == float("-inf")).all(-1, keepdim=True)
    biased = scores + bias
    wide = torch.where(closed, torch.zeros_like(biased), biased).to(_precision(call, dtype))
    weights = torch.softmax(wide, -1).to(dtype)
    return torch.where(closed, torch.zeros_like(weights), weights), biased


def _precision(call: Call, dtype: torch.dtype) -> torch.dtype:
    code = call.get("softmax_precision")
    return dtype if code is None else call.types.of(code)


def _bias(
    call: Call, q: Tensor, k: Tensor, mask: Tensor | None, past: Tensor | None, valid: Tensor | None
) -> Tensor | None:
    """What is added to the scores: -inf where a key may not be seen."""
    rows, columns = q.shape[2], k.shape[2]
    bias = None if mask is None else _as_bias(mask, columns, q.dtype)
    i = torch.arange(rows, device=q.device).reshape(-1, 1)
    j = torch.arange(columns, device=q.device)
    if valid is not None and past is None:
        offset = valid.to(q.device).reshape(-1, 1, 1, 1) - rows
    else:
        offset = torch.tensor(0 if past is None else past.shape[2], device=q.device)
    position = i + offset
    allowed = torch.ones((), dtype=torch.bool, device=q.device)
    if call.get("is_causal", 0):
        allowed = allowed & (j <= position)
    left, right = call.get("left_window_size", -1), call.get("right_window_size", -1)
    if left >= 0:
        allowed = allowed & (j >= position - left)
    if right >= 0:
        allowed = allowed & (j <= position + right)
    if valid is not None:
        allowed = allowed & (j < valid.to(q.device).reshape(-1, 1, 1, 1))
    if allowed.dim() == 0:
        return bias
    shut = torch.zeros(allowed.shape, dtype=q.dtype, device=q.device).masked_fill(
        ~allowed, float("-inf")
    )
    return shut if bias is None else bias + shut


def _as_bias(mask: Tensor, columns: int, dtype: torch.dtype) -> Tensor:
    missing = columns - mask.shape[-1]
    if mask.dtype is torch.bool:
        zeros = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
        mask = zeros.masked_fill(~mask, float("-inf"))
    if missing > 0:
        mask = torch.nn.functional.pad(mask, (0, missing), value=float("-inf"))
    return mask


@operator("RotaryEmbedding", since=23)
def rotary(call: Call, x: Tensor, cos: Tensor, sin: Tensor, at: Tensor | None = None) -> Tensor:
    """Pairs of features turned by an angle that depends on the position (Su et al. 2021)."""
    flat = x.dim() == 3
    # [batch, sequence, heads, features]
    x = _heads(x, int(call.get("num_heads"))).transpose(1, 2) if flat else x.transpose(1, 2)
    size = int(call.get("rotary_embedding_dim", 0)) or x.shape[-1]
    turned, rest = x[..., :size], x[..., size:]
    if at is not None:
        cos, sin = cos[at], sin[at]
    cos, sin = cos[..., : size // 2].unsqueeze(2), sin[..., : size // 2].unsqueeze(2)
    if call.get("interleaved", 0):
        one, two = turned[..., 0::2], turned[..., 1::2]
        turned = torch.stack([cos * one - sin * two, sin * one + cos * two], -1).flatten(-2)
    else:
        one, two = turned.chunk(2, -1)
        turned = torch.cat([cos * one - sin * two, sin * one + cos * two], -1)
    y = torch.cat([turned, rest], -1)
    return y.flatten(2) if flat else y.transpose(1, 2)

"""Convolutions of one, two and three axes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.nn import functional

from gradscope.loading.onnx.budget import check_shape
from gradscope.loading.onnx.operators.shape import bounded
from gradscope.loading.onnx.registry import Call, Slot, operator

Tensor = torch.Tensor


def pads_of(call: Call, sizes: Sequence[int], kernel: Sequence[int]) -> tuple[list[int], list[int]]:
    """(before, after) for each spatial axis, whether given or to be found (auto_pad)."""
    rank = len(kernel)
    automatic = call.get("auto_pad", "NOTSET")
    if automatic == "VALID":
        return [0] * rank, [0] * rank
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        strides = call.get("strides", (1,) * rank)
        dilations = call.get("dilations", (1,) * rank)
        before, after = [], []
        for size, k, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
            out = -(-size // stride)
            total = max((out - 1) * stride + dilation * (k - 1) + 1 - size, 0)
            small, large = total // 2, total - total // 2
            upper = automatic == "SAME_UPPER"
            before.append(small if upper else large)
            after.append(large if upper else small)
        return before, after
    pads = call.get("pads", (0,) * (2 * rank))
    return list(pads[:rank]), list(pads[rank:])


def padded(x: Tensor, before: Sequence[int], after: Sequence[int], value: float = 0.0) -> Tensor:
    """x with its last axes made larger (or, where negative, smaller)."""
    flat: list[int] = []
    for one, two in zip(reversed(list(before)), reversed(list(after)), strict=True):
        flat += [int(one), int(two)]
    if not any(flat):
        return x
    inner = x.dim() - len(before)
    ends = zip(x.shape[inner:], before, after, strict=True)
    bounded([*x.shape[:inner], *(max(int(n + b + a), 0) for n, b, a in ends)], x)
    return functional.pad(x, flat, value=value)


def _fan_in(_: Call, shape: tuple[int, ...]) -> int | None:
    return math.prod(shape[1:]) if len(shape) > 2 else None


@operator("Conv", weights={1: Slot(_fan_in, linear=True), 2: Slot()})
def conv(call: Call, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    """Cross-correlation, as torch's."""
    rank = w.dim() - 2
    before, after = pads_of(call, x.shape[2:], w.shape[2:])
    if before != after:
        x, before = padded(x, before, after), [0] * rank
    strides = list(call.get("strides", (1,) * rank))
    dilations = list(call.get("dilations", (1,) * rank))
    group = call.get("group", 1)
    sizes = zip(x.shape[2:], before, strides, dilations, w.shape[2:], strict=False)
    made = ((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, p, s, d, k in sizes)
    check_shape([x.shape[0], w.shape[0], *(max(n, 0) for n in made)], (x, w))
    return torch.convolution(x, w, b, strides, before, dilations, False, [0] * rank, group)


def _transposed_fan_in(call: Call, shape: tuple[int, ...]) -> int | None:
    return shape[0] // int(call.get("group", 1)) * math.prod(shape[2:]) if len(shape) > 2 else None


@operator("ConvTranspose", weights={1: Slot(_transposed_fan_in, linear=True), 2: Slot()})
def conv_transpose(call: Call, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    """The transposed map of a convolution, cut to the pads or the shape asked for."""
    rank = w.dim() - 2
    strides = list(call.get("strides", (1,) * rank))
    dilations = list(call.get("dilations", (1,) * rank))
    extra = list(call.get("output_padding", (0,) * rank))
    full = [
        (size - 1) * stride + dilation * (k - 1) + 1
        for size, stride, dilation, k in zip(
            x.shape[2:], strides, dilations, w.shape[2:], strict=True
        )
    ]
    before, after = _transposed_pads(call, x, full, strides, extra)
    check_shape([x.shape[0], w.shape[1], *full], (x, w))
    group = call.get("group", 1)
    plain = before == after and all(p >= 0 for p in before)
    small = all(e < max(s, d) for e, s, d in zip(extra, strides, dilations, strict=True))
    if plain and small:
        return torch.convolution(x, w, b, strides, before, dilations, True, extra, group)
    none = [0] * rank
    y = torch.convolution(x, w, None, strides, none, dilations, True, none, group)
    y = padded(
        y,
        [-p for p in before],
        [e - p for e, p in zip(extra, after, strict=True)],
    )
    return y if b is None else y + b.reshape(-1, *[1] * rank)


def _transposed_pads(
    call: Call, x: Tensor, full: Sequence[int], strides: Sequence[int], extra: Sequence[int]
) -> tuple[list[int], list[int]]:
    rank = len(full)
    automatic = call.get("auto_pad", "NOTSET")
    wanted = call.get("output_shape")
    if wanted is not None:
        wanted = list(wanted)[-rank:]
    elif automatic in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [s * stride for s, stride in zip(x.shape[2:], strides, strict=True)]
    elif automatic == "VALID":
        return [0] * rank, [0] * rank
    else:
        pads = call.get("pads", (0,) * (2 * rank))
        return list(pads[:rank]), list(pads[rank:])
    before, after = [], []
    for size, e, w in zip(full, extra, wanted, strict=True):
        total = size + e - w
        small, large = total // 2, total - total // 2
        upper = automatic == "SAME_UPPER"
        before.append(small if upper else large)
        after.append(large if upper else small)
    return before, after

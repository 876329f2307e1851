"""Pooling over windows and over all of a sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from gradscope.loading.onnx.budget import check_shape
from gradscope.loading.onnx.operators.convolution import padded, pads_of
from gradscope.loading.onnx.operators.shape import bounded
from gradscope.loading.onnx.registry import Call, ints, operator

Tensor = torch.Tensor
_MAX = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_MEAN = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}


@dataclass(frozen=True)
class _Windows:
    """Where windows lie: sizes a spatial axis; ``extra`` is what ceil_mode adds at the end."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    extra: tuple[int, ...]

    @property
    def plain(self) -> bool:
        """Whether torch's own pooling pads alike."""
        small = all(2 * p <= k for p, k in zip(self.before, self.kernel, strict=True))
        return self.before == self.after and not any(self.extra) and small


def _windows(call: Call, x: Tensor) -> _Windows:
    kernel = tuple(call.get("kernel_shape"))
    rank = len(kernel)
    strides = tuple(call.get("strides", (1,) * rank))
    dilations = tuple(call.get("dilations", (1,) * rank))
    before, after = pads_of(call, x.shape[2:], kernel)
    extra = [0] * rank
    for i, size in enumerate(x.shape[2:]):
        if not call.get("ceil_mode", 0):
            break
        room = size + before[i] + after[i] - dilations[i] * (kernel[i] - 1) - 1
        out = -(-room // strides[i]) + 1
        if (out - 1) * strides[i] >= size + before[i]:
            out -= 1  # a window that begins in the padding shows nothing
        extra[i] = max((out - 1) * strides[i] - room, 0)
    return _Windows(kernel, strides, dilations, tuple(before), tuple(after), tuple(extra))


def _sum(one: Sequence[int], two: Sequence[int]) -> list[int]:
    return [a + b for a, b in zip(one, two, strict=True)]


@operator("MaxPool")
def max_pool(call: Call, x: Tensor) -> Any:
    """Largest element of each window; also its place in the whole input, if wanted."""
    w = _windows(call, x)
    rank = len(w.kernel)
    if not call.wants(1):
        if not x.is_floating_point():
            return max_pool_parts(x.double(), w)[0].to(x.dtype)
        if w.plain and rank in _MAX:
            return _MAX[rank](x, w.kernel, w.strides, w.before, w.dilations)
        return max_pool_parts(x, w)[0]
    values, at = max_pool_parts(x if x.is_floating_point() else x.double(), w)
    return values.to(x.dtype), _global(x, w, at, bool(call.get("storage_order", 0)))


def max_pool_parts(x: Tensor, w: _Windows) -> tuple[Tensor, Tensor]:
    """Largest elements, and their place within each plane of the padded input."""
    held = padded(x, w.before, _sum(w.after, w.extra), float("-inf"))
    pool = _MAX[len(w.kernel)]
    values, at = pool(held, w.kernel, w.strides, 0, w.dilations, return_indices=True)
    return values, at


def _global(x: Tensor, w: _Windows, at: Tensor, column_major: bool) -> Tensor:
    """Places in the padded planes as places in the whole flattened input."""
    sizes = x.shape[2:]
    held = [s + b + a + e for s, b, a, e in zip(sizes, w.before, w.after, w.extra, strict=True)]
    coordinates = []
    for size, shift in zip(reversed(held), reversed(w.before), strict=True):
        coordinates.append(at % size - shift)
        at = at // size
    coordinates.reverse()
    order = range(len(sizes)) if not column_major else reversed(range(len(sizes)))
    flat = torch.zeros_like(at)
    for i in order:
        flat = flat * sizes[i] + coordinates[i]
    n, c = x.shape[:2]
    plane = torch.arange(n * c, device=x.device).reshape(n, c, *[1] * len(sizes))
    return flat + plane * math.prod(sizes)


def _unfolded(x: Tensor, w: _Windows) -> Tensor:
    """The windows of a padded x, flattened on a last axis."""
    for i, (k, stride, dilation) in enumerate(zip(w.kernel, w.strides, w.dilations, strict=True)):
        x = x.unfold(2 + i, dilation * (k - 1) + 1, stride)[..., ::dilation]
    check_shape(x.shape, (x.new_empty(0),))
    return x.flatten(2 + len(w.kernel))


@operator("AveragePool")
def average_pool(call: Call, x: Tensor) -> Tensor:
    """Mean of each window, with or without the padding."""
    w = _windows(call, x)
    counts_padding = bool(call.get("count_include_pad", 0))
    if w.plain and all(d == 1 for d in w.dilations) and len(w.kernel) in _MEAN:
        pool = _MEAN[len(w.kernel)]
        return pool(x, w.kernel, w.strides, w.before, count_include_pad=counts_padding)
    held = padded(x, w.before, _sum(w.after, w.extra))
    ones = torch.ones((1, 1, *x.shape[2:]), dtype=x.dtype, device=x.device)
    if counts_padding:
        inside = padded(padded(ones, w.before, w.after, 1.0), [0] * len(w.kernel), w.extra)
    else:
        inside = padded(ones, w.before, _sum(w.after, w.extra))
    return _unfolded(held, w).sum(-1) / _unfolded(inside, w).sum(-1)


@operator("LpPool")
def lp_pool(call: Call, x: Tensor) -> Tensor:
    """p-norm of each window."""
    w, p = _windows(call, x), call.get("p", 2)
    held = _unfolded(padded(x, w.before, _sum(w.after, w.extra)), w)
    norm: Tensor = torch.linalg.vector_norm(held, p, -1)
    return norm


def _spatial(x: Tensor) -> list[int]:
    return list(range(2, x.dim()))


@operator("GlobalAveragePool")
def global_average(call: Call, x: Tensor) -> Tensor:
    """Mean of each channel."""
    return x.mean(_spatial(x), keepdim=True)


@operator("GlobalMaxPool")
def global_max(call: Call, x: Tensor) -> Tensor:
    """Largest element of each channel."""
    return x.amax(_spatial(x), keepdim=True)


@operator("GlobalLpPool")
def global_lp(call: Call, x: Tensor) -> Tensor:
    """p-norm of each channel."""
    norm: Tensor = torch.linalg.vector_norm(x, call.get("p", 2), _spatial(x), keepdim=True)
    return norm


@operator("MaxUnpool", since=9)
def max_unpool(call: Call, x: Tensor, at: Tensor, shape: Tensor | None = None) -> Tensor:
    """Zero but for given elements at given places of the flattened output."""
    kernel = call.get("kernel_shape")
    rank = len(kernel)
    strides, pads = call.get("strides", (1,) * rank), call.get("pads", (0,) * 2 * rank)
    own = [
        (s - 1) * strides[i] + kernel[i] - pads[i] - pads[i + rank]
        for i, s in enumerate(x.shape[2:])
    ]
    small = [*x.shape[:2], *own]
    wanted = small if shape is None else ints(shape)
    # Places count within the output that the pads make; it stands in a corner of a larger one.
    flat = x.new_zeros(math.prod(bounded(small))).scatter(0, at.reshape(-1), x.reshape(-1))
    y = flat.reshape(small)
    return padded(y, [0] * rank, [w - s for w, s in zip(wanted[2:], own, strict=True)])

"""Statistics of activations from their pre-activations and outputs, several calls at a time.

All tensors here carry a leading axis of calls: one call of a large activation, or a few dozen of a
small one, which cost about as much as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from gradscope.probe.activations import Call
from gradscope.probe.layout import BatchLayout
from gradscope.probe.magnitudes import count_magnitudes
from gradscope.probe.stats import ForwardStats, Moments

MAX_MOMENTS = 2048
"""Between-sample variance uses at most so many elements of a site, evenly spread: memory."""

_EXACT_IN_FLOAT = 1 << 24
_PIECE = 1 << 18


@dataclass(frozen=True)
class InputStats:
    """What the pre-activations show; each tensor has one row a call."""

    calls: int
    numel: int
    per_unit: int
    saturated: torch.Tensor | None
    off: torch.Tensor | None
    relative: torch.Tensor | None
    square: torch.Tensor
    nonfinite: torch.Tensor
    magnitudes: torch.Tensor | None = None


class Scratch:
    """Memory to compute in, the same from call to call: fresh pages cost more than the arithmetic.

    On other devices than the CPU the allocator does that itself, and large tensors are not held.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[int, torch.dtype], torch.Tensor] = {}

    def like(self, tensor: torch.Tensor, slot: int) -> torch.Tensor:
        """Uninitialised, of the shape and type of ``tensor``; what ``slot`` held is lost."""
        n = tensor.numel()
        if tensor.device.type != "cpu" or n > _PIECE:
            return torch.empty_like(tensor, memory_format=torch.contiguous_format)
        key = (slot, tensor.dtype)
        held = self._held.get(key)
        if held is None or len(held) < n:
            held = self._held[key] = torch.empty(n, dtype=tensor.dtype)
        return held[:n].view(tensor.shape)


def of_inputs(
    call: Call, z: torch.Tensor, unit_axis: int, scratch: Scratch | None = None
) -> InputStats:
    """Saturation, relative derivative, scale.

    Args:
        call: kind and attributes, the same for all.
        z: pre-activations, (calls, ...).
        unit_axis: negative, counted from the end.
        scratch: kept by who calls this often.
    """
    z, scratch = _wide(z), scratch or Scratch()
    z = z.unsqueeze(1) if z.dim() == 1 else z
    square = _square(z)
    parts = [_Counts.of(call, piece, unit_axis, scratch) for piece in _pieces(z, unit_axis)]
    counts = parts[0]
    for part in parts[1:]:
        counts = counts.plus(part)
    numel = z[0].numel()
    relative = counts.relative
    if call.kind.name == "relu" and counts.off is not None:
        relative = (numel - counts.off.sum(dim=1)).double()
    per_unit = numel // max(z.shape[unit_axis], 1)
    nonfinite = _nonfinite(z, square)
    return InputStats(
        len(z), numel, per_unit, counts.saturated, counts.off, relative, square, nonfinite,
        counts.magnitudes,
    )  # fmt: skip


@dataclass(frozen=True)
class _Counts:
    """Sums over a piece of the pre-activations: additive."""

    saturated: torch.Tensor | None
    off: torch.Tensor | None
    relative: torch.Tensor | None
    magnitudes: torch.Tensor | None = None

    @classmethod
    def of(cls, call: Call, z: torch.Tensor, unit_axis: int, scratch: Scratch) -> _Counts:
        kind, attributes = call.kind, call.attributes
        saturated = off = relative = magnitudes = None
        ones = scratch.like(z, 0)  # 1 where true: sums of floats run on all lanes
        if kind.edge is not None:
            centred = z - kind.centre(attributes) if kind.centre is not None else z
            torch.abs(centred, out=ones)
            magnitudes = count_magnitudes(ones, kind.edge(attributes), scratch.like(z, 1))
            torch.ge(ones, kind.edge(attributes), out=ones)
            saturated = _per_unit(ones, unit_axis)
        if kind.zeroes:
            zero_from = attributes[0] if kind.name == "threshold" else 0.0
            off = _per_unit(torch.le(z, zero_from, out=ones), unit_axis)
        if kind.relative is not None and kind.name != "relu":
            into = kind.relative_into
            rho = into(z, ones) if into is not None else kind.relative(z, attributes)
            relative = rho.flatten(1).sum(dim=1, dtype=torch.float64)
        return cls(saturated, off, relative, magnitudes)

    def plus(self, other: _Counts) -> _Counts:
        return _Counts(
            _sum(self.saturated, other.saturated),
            _sum(self.off, other.off),
            _sum(self.relative, other.relative),
            _sum(self.magnitudes, other.magnitudes),
        )


def _sum(a: torch.Tensor | None, b: torch.Tensor | None) -> torch.Tensor | None:
    return None if a is None or b is None else a + b


def _pieces(z: torch.Tensor, unit_axis: int) -> tuple[torch.Tensor, ...]:
    """Parts that stay in cache, so that what is made of them needs no fresh memory."""
    whole = z.numel() <= _PIECE or len(z) > 1 or unit_axis % z.dim() == 1
    if whole or z.device.type != "cpu":
        return (z,)
    length = z.shape[1]
    return torch.split(z, max(1, length * _PIECE // z.numel()), dim=1)


def with_outputs(
    inputs: InputStats,
    output: torch.Tensor,
    layout: BatchLayout | None,
    samples: int,
    scratch: Scratch | None = None,
) -> list[ForwardStats]:
    """``inputs`` completed by what the outputs, (calls, ...), show; one entry a call."""
    output = _wide(output)
    squares = _square(output)
    moments = _moments(output, layout, samples, scratch or Scratch())
    rows = zip(
        _rows(inputs.saturated, inputs.calls), _rows(inputs.off, inputs.calls),
        _rows(inputs.relative, inputs.calls), inputs.square, squares, inputs.nonfinite,
        _rows(inputs.magnitudes, inputs.calls), strict=True,
    )  # fmt: skip
    return [
        ForwardStats(
            inputs.numel, inputs.per_unit, saturated, off, relative, square, out_square, nonfinite,
            () if moments is None else (moments[i],), magnitudes,
        )
        for i, (saturated, off, relative, square, out_square, nonfinite, magnitudes)
        in enumerate(rows)
    ]  # fmt: skip


def _rows(stack: torch.Tensor | None, calls: int) -> Sequence[torch.Tensor | None]:
    """One a call: unbinding once is cheaper than indexing each time."""
    return [None] * calls if stack is None else stack.unbind()


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def _square(stack: torch.Tensor) -> torch.Tensor:
    norms: torch.Tensor = torch.linalg.vector_norm(stack.flatten(1), dim=1)
    return norms.double().square_()


def _moments(
    output: torch.Tensor, layout: BatchLayout | None, samples: int, scratch: Scratch
) -> list[Moments] | None:
    if layout is None or not layout.fits(tuple(output.shape[1:]), samples):
        return None
    rows = torch.stack([layout.rows(call, samples) for call in output]) if len(output) > 1 else (
        layout.rows(output[0], samples).unsqueeze(0)
    )  # fmt: skip
    step = max(1, -(-rows.shape[2] // MAX_MOMENTS))
    rows = rows[:, :, ::step]
    mean = rows.mean(dim=1, keepdim=True)  # two passes: as exact as var_mean, five times as fast
    m2 = torch.sub(rows, mean, out=scratch.like(rows, 0)).square_().sum(dim=1).double()
    mean = mean.squeeze(1).double()
    return [Moments(samples, *row) for row in zip(mean.unbind(), m2.unbind(), strict=True)]


def _per_unit(ones: torch.Tensor, unit_axis: int) -> torch.Tensor:
    """Count of ones per call and unit, int64, shape (calls, units)."""
    axis = unit_axis % ones.dim()
    others = [d for d in range(1, ones.dim()) if d != axis]
    if not others:
        return ones.long()
    exact = ones.dtype is torch.float64 or ones.numel() < _EXACT_IN_FLOAT
    return ones.sum(dim=others, dtype=None if exact else torch.float64).long()


def _nonfinite(z: torch.Tensor, square: torch.Tensor) -> torch.Tensor:
    """Count of NaN and infinities, only looked for where the sum of squares is not finite."""
    if z.device.type == "cpu" and np.isfinite(square.numpy()).all():
        return torch.zeros(len(z), dtype=torch.int64)
    return (~torch.isfinite(z)).flatten(1).sum(dim=1)

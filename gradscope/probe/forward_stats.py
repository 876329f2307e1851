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
from gradscope.probe.hosted import is_here
from gradscope.probe.layout import BatchLayout, Plan
from gradscope.probe.magnitudes import count_magnitudes, may_saturate
from gradscope.probe.norms import norms_of
from gradscope.probe.scratch import MOST, Scratch
from gradscope.probe.stats import ForwardStats, Moments

MAX_MOMENTS = 2048
"""Between-sample variance uses at most so many elements of a site, evenly spread: memory."""

_EXACT_IN_FLOAT = 1 << 24
_TOLD_ABOVE = 0.25  # mean relative derivative that the outputs, in float32, tell to 1e-6


@dataclass(frozen=True)
class InputStats:
    """What the pre-activations show; each tensor has one row a call.

    ``z``: where the slopes have not been looked at, since the outputs may tell them.
    """

    call: Call
    calls: int
    numel: int
    per_unit: int
    saturated: torch.Tensor | None
    off: torch.Tensor | None
    relative: torch.Tensor | None
    square: torch.Tensor
    nonfinite: torch.Tensor
    magnitudes: torch.Tensor | None = None
    z: torch.Tensor | None = None


def of_inputs(
    call: Call,
    z: torch.Tensor,
    unit_axis: int,
    scratch: Scratch | None = None,
    *,
    stays: bool = False,
) -> InputStats:
    """Saturation, relative derivative, scale.

    Args:
        call: kind and attributes, the same for all.
        z: pre-activations, (calls, ...).
        unit_axis: negative, counted from the end.
        scratch: kept by who calls this often.
        stays: z is still the same when the outputs are there.
    """
    full = z.dtype in (torch.float32, torch.float64)
    later = stays and full and is_here(z) and call.kind.of_output is not None
    z, scratch = _wide(z), scratch or Scratch()
    z = z.unsqueeze(1) if z.dim() == 1 else z
    square = _square(z)
    parts = [_Counts.of(call, piece, unit_axis, scratch) for piece in _pieces(z, unit_axis)]
    counts = parts[0]
    for part in parts[1:]:
        counts = counts.plus(part)
    numel = z[0].numel()
    relative = None if later else _slopes(call, z, unit_axis, scratch)
    if call.kind.name == "relu" and counts.off is not None:
        relative = (numel - counts.off.sum(dim=1)).double()
    per_unit = numel // max(z.shape[unit_axis], 1)
    nonfinite = _nonfinite(z, square)
    return InputStats(
        call, len(z), numel, per_unit, counts.saturated, counts.off, relative, square, nonfinite,
        counts.magnitudes, z if later else None,
    )  # fmt: skip


@dataclass(frozen=True)
class _Counts:
    """Counts over a piece of the pre-activations: additive."""

    saturated: torch.Tensor | None
    off: torch.Tensor | None
    magnitudes: torch.Tensor | None = None

    @classmethod
    def of(cls, call: Call, z: torch.Tensor, unit_axis: int, scratch: Scratch) -> _Counts:
        kind, attributes = call.kind, call.attributes
        saturated = off = magnitudes = None
        if kind.edge is None and not kind.zeroes:
            return cls(None, None)
        ones = scratch.like(z, 0)  # 1 where true: sums of floats run on all lanes
        if kind.edge is not None:
            edge = kind.edge(attributes)
            centred = z - kind.centre(attributes) if kind.centre is not None else z
            torch.abs(centred, out=ones)
            magnitudes = count_magnitudes(ones, edge, scratch.like(z, 1))
            if is_here(z) and not may_saturate(magnitudes):
                saturated = torch.zeros(len(z), z.shape[unit_axis], dtype=torch.int64)
            else:
                saturated = _per_unit(torch.ge(ones, edge, out=ones), unit_axis)
        if kind.zeroes:
            zero_from = attributes[0] if kind.name == "threshold" else 0.0
            off = _per_unit(torch.le(z, zero_from, out=ones), unit_axis)
        return cls(saturated, off, magnitudes)

    def plus(self, other: _Counts) -> _Counts:
        return _Counts(
            _sum(self.saturated, other.saturated),
            _sum(self.off, other.off),
            _sum(self.magnitudes, other.magnitudes),
        )


def _slopes(call: Call, z: torch.Tensor, unit_axis: int, scratch: Scratch) -> torch.Tensor | None:
    """Sum of the relative derivatives of each call, from the pre-activations: exact far out, too;
    None where they are not defined, or counted (ReLU)."""
    kind = call.kind
    if kind.relative is None or kind.name == "relu":
        return None
    total: torch.Tensor | None = None
    for piece in _pieces(z, unit_axis):
        into = kind.relative_into
        rho = (
            into(piece, scratch.like(piece, 0))
            if into is not None
            else kind.relative(piece, call.attributes)
        )
        mine = rho.flatten(1).sum(dim=1, dtype=torch.float64)
        total = mine if total is None else total + mine
    return total


def _sum(a: torch.Tensor | None, b: torch.Tensor | None) -> torch.Tensor | None:
    return None if a is None or b is None else a + b


def _pieces(z: torch.Tensor, unit_axis: int) -> tuple[torch.Tensor, ...]:
    """Parts that stay in cache, so that what is made of them needs no fresh memory."""
    whole = z.numel() <= MOST or len(z) > 1 or unit_axis % z.dim() == 1
    if whole or z.device.type != "cpu":
        return (z,)
    length = z.shape[1]
    return torch.split(z, max(1, length * MOST // z.numel()), dim=1)


def with_outputs(
    inputs: InputStats,
    output: torch.Tensor,
    plan: Plan,
    samples: int,
    scratch: Scratch | None = None,
) -> list[ForwardStats]:
    """``inputs`` completed by what the outputs, (calls, ...), show; one entry a call."""
    output, scratch = _wide(output), scratch or Scratch()
    output = output.unsqueeze(1) if output.dim() == 1 else output
    spread = _spread(output, plan.layout, samples, scratch)
    squares = spread.squares() if spread is not None and spread.whole else _square(output)
    relative = inputs.relative
    if inputs.z is not None:
        relative = _slopes_by_output(inputs, output, squares)
        if relative is None:
            relative = _slopes(inputs.call, inputs.z, plan.unit_axis, scratch)
    moments = [()] * inputs.calls if spread is None else spread.moments()
    rows = zip(
        _rows(inputs.saturated, inputs.calls), _rows(inputs.off, inputs.calls),
        _rows(relative, inputs.calls), inputs.square, squares, inputs.nonfinite,
        moments, _rows(inputs.magnitudes, inputs.calls), strict=True,
    )  # fmt: skip
    return [ForwardStats(inputs.numel, inputs.per_unit, *row) for row in rows]


def _slopes_by_output(
    inputs: InputStats, output: torch.Tensor, squares: torch.Tensor
) -> torch.Tensor | None:
    """Sum of the relative derivatives of each call, from sums over the outputs; None where so
    little is left of it that the outputs' rounding would show."""
    assert inputs.call.kind.of_output is not None
    a, b, c = inputs.call.kind.of_output
    found = squares * c + a * inputs.numel
    if b:
        found += output.flatten(1).sum(dim=1).double() * b
    return found if bool((found.numpy() > _TOLD_ABOVE * inputs.numel).all()) else None


def _rows(stack: torch.Tensor | None, calls: int) -> Sequence[torch.Tensor | None]:
    """One a call: unbinding once is cheaper than indexing each time."""
    return [None] * calls if stack is None else stack.unbind()


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def _square(stack: torch.Tensor) -> torch.Tensor:
    return norms_of(stack).square_()


@dataclass(frozen=True)
class _Spread:
    """Mean and squared deviations over samples, float64, (calls, elements).

    ``whole``: of every element.
    """

    samples: int
    mean: torch.Tensor
    m2: torch.Tensor
    whole: bool

    def squares(self) -> torch.Tensor:
        """Sum of the squares of all elements of each call."""
        means: torch.Tensor = torch.linalg.vector_norm(self.mean, dim=1).square_()
        return means.mul_(self.samples).add_(self.m2.sum(dim=1))

    def moments(self) -> list[tuple[Moments, ...]]:
        rows = zip(self.mean.unbind(), self.m2.unbind(), strict=True)
        return [(Moments(self.samples, *row),) for row in rows]


def _spread(
    output: torch.Tensor, layout: BatchLayout | None, samples: int, scratch: Scratch
) -> _Spread | None:
    if layout is None or not layout.fits(tuple(output.shape[1:]), samples):
        return None
    rows = torch.stack([layout.rows(call, samples) for call in output]) if len(output) > 1 else (
        layout.rows(output[0], samples).unsqueeze(0)
    )  # fmt: skip
    step = max(1, -(-rows.shape[2] // MAX_MOMENTS))
    rows = rows[:, :, ::step] if step > 1 else rows
    mean = rows.mean(dim=1, keepdim=True)  # two passes: as exact as var_mean, five times as fast
    m2 = torch.sub(rows, mean, out=scratch.like(rows, 0)).square_().sum(dim=1).double()
    return _Spread(samples, mean.squeeze(1).double(), m2, step == 1)


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

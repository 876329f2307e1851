"""By how much an activation's inputs are too large, from a coarse histogram of them.

|z - centre| over the kind's edge (the magnitude from which it is saturated) is counted by the
exponent and the first three bits of its mantissa, within a window of octaves around the edge. What
the mean relative derivative would be if z were alpha times smaller can be read from that for any
alpha, to half a bin.
"""

from __future__ import annotations

import math
from functools import cache

import torch

from gradscope.probe.activations import Kind
from gradscope.probe.hosted import count

ENOUGH = 0.8
"""Mean relative derivative at which an activation works: a definition."""

_BITS = 3
_LOWEST, _OCTAVES = -6, 32  # from 1/64 of the edge, where rho is 1, to 7e7 edges
BINS = _OCTAVES << _BITS
_EDGE = -_LOWEST << _BITS  # the first bin from the edge on


def count_magnitudes(
    magnitudes: torch.Tensor, edge: float, out: torch.Tensor | None = None
) -> torch.Tensor:
    """Counts per call, int64, shape (calls, BINS).

    Args:
        magnitudes: |z - centre|, (calls, ...), float32 or float64.
        edge: of the kind; what is smaller or larger than the window stands in its last bins.
        out: memory of the same shape and type to compute in; None: fresh.
    """
    double = magnitudes.dtype is torch.float64
    kind, shift, bias = (torch.int64, 52, 1023) if double else (torch.int32, 23, 127)
    scaled = torch.mul(magnitudes, 1.0 / edge, out=out)  # of which only the bits are wanted
    lowest = (bias + _LOWEST) << _BITS
    bins = scaled.view(kind).bitwise_right_shift_(shift - _BITS)
    bins.clamp_(lowest, lowest + BINS - 1)
    calls = len(magnitudes)
    if calls == 1:  # its last eight bits, counted twice as fast, name the bin from where 0 stands
        return count(bins.to(torch.uint8), BINS).roll(-(lowest % BINS)).view(1, BINS)
    rows = torch.arange(calls, device=bins.device, dtype=kind).mul_(BINS).sub_(lowest)
    bins.add_(rows.view(-1, *[1] * (bins.dim() - 1)))
    return count(bins, calls * BINS).view(calls, BINS)


def may_saturate(counts: torch.Tensor) -> bool:
    """Whether an element may be at the edge or beyond: reads counts that are on the CPU."""
    return bool(
        counts.numpy()[:, _EDGE - 1 :].any()
    )  # one bin more, for the rounding of |z| / edge


def shrink(counts: torch.Tensor, kind: Kind, mean: float | None = None) -> float | None:
    """The least alpha >= 1 with mean rho(z / alpha) >= :data:`ENOUGH`, by bisection.

    None for kinds that do not saturate, or if nothing was counted. ``mean``: of rho(z), if known.
    """
    if kind.edge is None or kind.relative is None:
        return None
    total = int(counts.sum())
    if not total:
        return None
    if mean is not None and mean >= ENOUGH:
        return 1.0
    share = counts.double().cpu() / total

    def enough(alpha: float) -> bool:
        return float((share * _relative(kind, alpha)).sum()) >= ENOUGH

    if float((share * _as_it_is(kind)).sum()) >= ENOUGH:
        return 1.0
    low, high = 0.0, math.log(2.0) * _OCTAVES
    while high - low > 1e-6:
        mid = (low + high) / 2
        low, high = (low, mid) if enough(math.exp(mid)) else (mid, high)
    return math.exp(high)


_UNIT = (-1.0, 1.0)
"""Attributes under which a kind that takes bounds has its edge at 1, as the counts are scaled."""


def _relative(kind: Kind, alpha: float) -> torch.Tensor:
    """rho at the middle of every bin, of numbers ``alpha`` times smaller."""
    assert kind.edge is not None
    assert kind.relative is not None
    return kind.relative(_middles() * kind.edge(_UNIT) / alpha, _UNIT)


@cache
def _as_it_is(kind: Kind) -> torch.Tensor:
    return _relative(kind, 1.0)


@cache
def _middles() -> torch.Tensor:
    """Middle of every bin, in edges."""
    at = torch.arange(BINS, dtype=torch.float64)
    octave = torch.floor(at / (1 << _BITS)) + _LOWEST
    within = torch.remainder(at, 1 << _BITS)
    return torch.exp2(octave) * (1 + (within + 0.5) / (1 << _BITS))

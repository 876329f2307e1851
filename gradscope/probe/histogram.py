"""A histogram of magnitudes by the leading bits of their floating-point pattern.

The exponent and the first three bits of the mantissa name the bin: 8 bins to a factor of two, over
the whole range of the type, at the price of a shift and a count. A quantile read from it is off by
at most half a bin, :data:`QUANTILE_ERROR`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from gradscope.measurements import Octaves
from gradscope.probe.hosted import chunk_of, count
from gradscope.probe.scratch import Scratch

_MANTISSA_BITS = 3
QUANTILE_ERROR = 2.0 ** -(_MANTISSA_BITS + 1)
_PER_OCTAVE = 1 << _MANTISSA_BITS
_MAX_OCTAVES = 64
_QUANTILES = {
    "q01": 0.01,
    "q05": 0.05,
    "q25": 0.25,
    "q50": 0.5,
    "q75": 0.75,
    "q95": 0.95,
    "q99": 0.99,
}
_SHARES = np.array([*_QUANTILES.values()])


@dataclass(frozen=True)
class BitHistogram:
    """Counts by leading bits; mergeable.

    Attributes:
        counts: int64, one per bin; the last eight are infinities and NaN.
        zeros: elements that are exactly 0 (they also stand in bin 0).
        double: whether the bins are those of float64.
        per_octave: counts of every eight bins.
    """

    counts: np.ndarray
    zeros: int
    double: bool
    per_octave: np.ndarray

    @classmethod
    def of(cls, tensor: torch.Tensor) -> BitHistogram:
        """Of all elements of a real floating tensor; half types are widened to float32."""
        double = tensor.dtype is torch.float64
        flat = tensor.detach().reshape(1, -1)
        wide = flat if double else flat.float()
        counts = count_bits(wide).cpu().numpy()
        zeros = flat.numel() - int(torch.count_nonzero(flat))
        return cls.rows(counts, [zeros], double=double)[0]

    @classmethod
    def rows(cls, counts: np.ndarray, zeros: Sequence[int], *, double: bool) -> list[BitHistogram]:
        """One a row of ``counts``."""
        octaves = counts.reshape(len(counts), -1, _PER_OCTAVE).sum(axis=2)
        columns = zip(counts, zeros, octaves, strict=True)
        return [cls(row, zero, double, octave) for row, zero, octave in columns]

    def merge(self, other: BitHistogram) -> BitHistogram:
        """Both together; they must have the same bins."""
        (both,) = self.rows(
            (self.counts + other.counts)[None], [self.zeros + other.zeros], double=self.double
        )
        return both

    @property
    def numel(self) -> int:
        """Elements counted."""
        return int(self.counts.sum())

    @property
    def nonfinite(self) -> int:
        """Elements that are NaN or infinite."""
        return int(self.per_octave[-1])

    @property
    def subnormal(self) -> int:
        """Elements below the type's smallest normal number, without zeros."""
        return int(self.per_octave[0]) - self.zeros

    def edges(self) -> np.ndarray:
        """Lower edges of the bins, float64."""
        return _edges(self.double)

    def below(self, value: float) -> int:
        """Elements smaller than ``value``, a power of two within the type's normal range."""
        octave = math.frexp(value)[1] - 1 + (1023 if self.double else 127)
        return int(self.per_octave[:octave].sum()) - self.zeros

    def octaves(self) -> Octaves | None:
        """Finite non-zero elements by powers of two; subnormal ones stand below the normal ones."""
        per_octave = self.per_octave[:-1].copy()
        per_octave[0] -= self.zeros
        (filled,) = per_octave.nonzero()
        if not len(filled):
            return None
        first, last = int(filled[0]), int(filled[-1])
        start = max(first, last + 1 - _MAX_OCTAVES)
        counts = per_octave[start : last + 1].tolist()
        counts[0] += int(per_octave[first:start].sum())
        return Octaves(start - (1023 if self.double else 127), tuple(counts))

    def quantiles(self) -> Mapping[str, float]:
        """Quantiles of |g| over all elements, zeros included: the middle of the bin."""
        (found,) = quantiles_of([self])
        return found


def quantiles_of(histograms: Sequence[BitHistogram]) -> list[Mapping[str, float]]:
    """:meth:`BitHistogram.quantiles` of each; all must have the same bins."""
    if not histograms:
        return []
    edges = _edges(histograms[0].double)
    finite = len(edges) - _PER_OCTAVE
    cumulative = np.cumsum([h.counts[:finite] for h in histograms], axis=1)
    ranks = _SHARES * (cumulative[:, -1:] - 1)
    rows = zip(cumulative, ranks, strict=True)
    at = np.array([row.searchsorted(rank, side="right") for row, rank in rows])
    upper = np.where(at + 1 < finite, edges[at + 1], edges[at])
    zeros = np.array([[h.zeros] for h in histograms])
    middles = np.where(ranks < zeros, 0.0, (edges[at] + upper) / 2)
    return [dict(zip(_QUANTILES, row, strict=True)) for row in middles.tolist()]


def bins_of(*, double: bool) -> tuple[int, int]:
    """How many bins there are, and how many to an octave: the first so many are subnormal numbers,
    the last infinities and NaN."""
    return 1 << ((11 if double else 8) + _MANTISSA_BITS), _PER_OCTAVE


def count_bits(rows: torch.Tensor, scratch: Scratch | None = None) -> torch.Tensor:
    """Counts of each row by leading bits, int64, (rows, bins), on its device.

    Args:
        rows: (rows, elements), float32 or float64.
        scratch: kept by who calls this often.
    """
    scratch = scratch or Scratch()
    double = rows.dtype is torch.float64
    integer, shift = (torch.int64, 52) if double else (torch.int32, 23)
    bins, _ = bins_of(double=double)
    many = len(rows)
    chunk = max(1, chunk_of(rows) // many)
    counts = torch.zeros(many * bins, dtype=torch.int64, device=rows.device)
    for piece in torch.split(rows, chunk, dim=1):
        leading = scratch.like(piece, 0).view(integer)
        bits = piece.contiguous().view(integer)
        torch.bitwise_right_shift(bits, shift - _MANTISSA_BITS, out=leading)
        leading.bitwise_and_(bins - 1)
        if many > 1:
            offsets = torch.arange(many, dtype=integer, device=rows.device).mul_(bins)
            leading.add_(offsets.unsqueeze(1))
        counts += count(leading, many * bins)
    return counts.view(many, bins)


@cache
def _edges(double: bool) -> np.ndarray:
    bins, last = bins_of(double=double)
    kind = np.int64 if double else np.int32
    shift = (52 if double else 23) - _MANTISSA_BITS
    integer = np.left_shift(np.arange(bins - last, dtype=kind), kind(shift))
    lower = integer.view(np.float64 if double else np.float32).astype(np.float64)
    return np.concatenate((lower, np.full(last, np.inf)))

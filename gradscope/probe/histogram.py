"""A histogram of magnitudes by the leading bits of their floating-point pattern.

The exponent and the first three bits of the mantissa name the bin: 8 bins to a factor of two, over
the whole range of the type, at the price of a shift and a count. A quantile read from it is off by
at most half a bin, :data:`QUANTILE_ERROR`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from gradscope.measurements import Octaves
from gradscope.probe.hosted import chunk_of, count

_MANTISSA_BITS = 3
QUANTILE_ERROR = 2.0 ** -(_MANTISSA_BITS + 1)
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


@dataclass(frozen=True)
class BitHistogram:
    """Counts by leading bits; mergeable.

    Attributes:
        counts: int64, one per bin; the last eight are infinities and NaN.
        zeros: elements that are exactly 0 (they also stand in bin 0).
        double: whether the bins are those of float64.
    """

    counts: np.ndarray
    zeros: int
    double: bool

    @classmethod
    def of(cls, tensor: torch.Tensor) -> BitHistogram:
        """Of all elements of a real floating tensor; half types are widened to float32."""
        double = tensor.dtype is torch.float64
        integer, shift = (torch.int64, 52) if double else (torch.int32, 23)
        bins = 1 << ((11 if double else 8) + _MANTISSA_BITS)
        counts = torch.zeros(bins, dtype=torch.int64, device=tensor.device)
        zeros = 0
        flat = tensor.detach().reshape(-1)
        chunk = chunk_of(tensor)
        scratch = torch.empty(min(chunk, flat.numel()), dtype=integer, device=tensor.device)
        for piece in torch.split(flat, chunk):
            wide = piece if double else piece.float()
            bits, leading = wide.contiguous().view(integer), scratch[: piece.numel()]
            torch.bitwise_right_shift(bits, shift - _MANTISSA_BITS, out=leading)
            here = count(leading.bitwise_and_(bins - 1), bins)
            counts += here
            if int(here[0]):  # zeros stand in the first bin, which is empty more often than not
                zeros += piece.numel() - int(torch.count_nonzero(piece))
        return cls(counts.cpu().numpy(), zeros, double)

    def merge(self, other: BitHistogram) -> BitHistogram:
        """Both together; they must have the same bins."""
        return BitHistogram(self.counts + other.counts, self.zeros + other.zeros, self.double)

    @property
    def numel(self) -> int:
        """Elements counted."""
        return int(self.counts.sum())

    @property
    def nonfinite(self) -> int:
        """Elements that are NaN or infinite."""
        return int(self.counts[-(1 << _MANTISSA_BITS) :].sum())

    @property
    def subnormal(self) -> int:
        """Elements below the type's smallest normal number, without zeros."""
        return int(self.counts[: 1 << _MANTISSA_BITS].sum()) - self.zeros

    def edges(self) -> np.ndarray:
        """Lower edges of the bins, float64."""
        shift = (52 if self.double else 23) - _MANTISSA_BITS
        finite = len(self.counts) - (1 << _MANTISSA_BITS)
        integer = np.left_shift(
            np.arange(finite, dtype=np.int64 if self.double else np.int32), shift
        )
        lower = integer.view(np.float64 if self.double else np.float32).astype(np.float64)
        return np.concatenate((lower, np.full(1 << _MANTISSA_BITS, np.inf)))

    def below(self, value: float) -> int:
        """Elements smaller than ``value``, a power of two within the type's normal range."""
        return int(self.counts[self.edges() < value].sum()) - self.zeros

    def octaves(self) -> Octaves | None:
        """Finite non-zero elements by powers of two; subnormal ones stand below the normal ones."""
        per_octave = self.counts.reshape(-1, 1 << _MANTISSA_BITS).sum(axis=1)[:-1]
        per_octave[0] -= self.zeros
        filled = np.flatnonzero(per_octave)
        if not len(filled):
            return None
        first, last = int(filled[0]), int(filled[-1])
        start = max(first, last + 1 - _MAX_OCTAVES)
        counts = per_octave[start : last + 1].tolist()
        counts[0] += int(per_octave[first:start].sum())
        return Octaves(start - (1023 if self.double else 127), tuple(counts))

    def quantiles(self) -> Mapping[str, float]:
        """Quantiles of |g| over all elements, zeros included: the middle of the bin."""
        edges = self.edges()
        finite = len(self.counts) - (1 << _MANTISSA_BITS)
        cumulative = np.cumsum(self.counts[:finite])
        found = {}
        for name, share in _QUANTILES.items():
            rank = share * (cumulative[-1] - 1)
            if rank < self.zeros:
                found[name] = 0.0
                continue
            b = int(np.searchsorted(cumulative, rank, side="right"))
            upper = edges[b + 1] if b + 1 < finite else edges[b]
            found[name] = float((edges[b] + upper) / 2)
        return found

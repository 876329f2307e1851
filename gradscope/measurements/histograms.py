"""Histograms of bounded size: enough to draw a distribution, too coarse to read a quantile from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Histogram:
    """Finite values in bins of equal width.

    Attributes:
        low, high: the smallest and the largest value; the ends of the first and the last bin.
        counts: of each bin, its upper end excluded but for the last; at most 48. A single bin if
            all values are equal.
    """

    low: float
    high: float
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Octaves:
    """Finite non-zero magnitudes by powers of two.

    Attributes:
        lowest: the first bin is 2^lowest <= magnitude < 2^(lowest + 1).
        counts: of each bin, up to the one of the largest magnitude; at most 64, and then the first
            one holds everything smaller, too.
    """

    lowest: int
    counts: tuple[int, ...]

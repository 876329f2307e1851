"""What was measured of attention weights."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Attention:
    """The softmax weights of one attention, over all heads and queries.

    A row of weights p over n keys has the relative derivative (1 - sum p^2) / (1 - 1 / n): 1 where
    all keys count alike, 0 where one takes it all and no gradient comes through to queries and
    keys. A row is saturated where it is below 0.1. Rows with a single key do not count.

    Attributes:
        layer: that owns the parameter used last before it ("" if none was).
        rows: how many rows were looked at.
        keys: mean number of keys that a row may choose from.
        saturated_fraction: share of the rows.
        mean_relative_derivative: over the rows.
    """

    layer: str
    rows: int
    keys: float
    saturated_fraction: float
    mean_relative_derivative: float

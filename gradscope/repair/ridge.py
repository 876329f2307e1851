"""Ridge regression from sums that add up; the ridge chosen by two-fold cross-validation."""

from __future__ import annotations

from dataclasses import dataclass

import torch

RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Times the mean diagonal of the Gram matrix."""


@dataclass(frozen=True)
class Moments:
    """Sums over rows (x, z), with a 1 appended to x: all that a linear fit needs.

    Attributes:
        gram: sum of x x^T, (in + 1, in + 1), float64.
        cross: sum of x z^T, (in + 1, out).
        square: sum of |z|^2.
        rows: how many.
    """

    gram: torch.Tensor | None
    cross: torch.Tensor | None
    square: float
    rows: int

    @staticmethod
    def empty() -> Moments:
        """Of no rows."""
        return Moments(None, None, 0.0, 0)

    @staticmethod
    def of(x: torch.Tensor, z: torch.Tensor) -> Moments:
        """Of rows."""
        wide = torch.cat([x.double(), torch.ones(len(x), 1, dtype=torch.float64)], dim=1)
        target = z.double()
        return Moments(wide.T @ wide, wide.T @ target, float(target.square().sum()), len(x))

    def merge(self, other: Moments) -> Moments:
        """Of both."""
        if self.gram is None or self.cross is None:
            return other
        if other.gram is None or other.cross is None:
            return self
        return Moments(
            self.gram + other.gram,
            self.cross + other.cross,
            self.square + other.square,
            self.rows + other.rows,
        )

    def fit(self, ridge: float) -> torch.Tensor:
        """(in + 1, out): the solution with ``ridge`` times the mean diagonal added."""
        assert self.gram is not None
        assert self.cross is not None
        extent = ridge * float(self.gram.diagonal()[:-1].mean())
        penalty = torch.full((len(self.gram),), extent, dtype=torch.float64)
        penalty[-1] = 1e-9 * self.rows
        solution: torch.Tensor = torch.linalg.solve(self.gram + torch.diag(penalty), self.cross)
        return solution

    def error(self, solution: torch.Tensor) -> float:
        """Sum of squared residuals of a solution on these rows."""
        assert self.gram is not None
        assert self.cross is not None
        quadratic = (solution * (self.gram @ solution)).sum()
        return float(quadratic - 2 * (solution * self.cross).sum()) + self.square


def solve(one: Moments, other: Moments) -> tuple[torch.Tensor, torch.Tensor] | None:
    """(W of shape (out, in), b) fitted to both halves with the ridge that predicts best across."""
    whole = one.merge(other)
    if whole.gram is None:
        return None
    ridge = 1e-3
    if one.rows and other.rows:

        def across(r: float) -> float:
            return other.error(one.fit(r)) + one.error(other.fit(r))

        ridge = min(RIDGES, key=across)
    solution = whole.fit(ridge)
    return solution[:-1].T.contiguous(), solution[-1].contiguous()

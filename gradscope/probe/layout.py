"""Where the samples of a batch lie inside a tensor."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class BatchLayout:
    """One axis of a tensor holds ``outer * n * inner`` entries for n samples.

    ``outer = inner = 1`` is a plain batch axis; ``inner = T`` is (N*T) flattened batch first,
    ``outer = T`` is (T*N) flattened time first.
    """

    axis: int = 0
    outer: int = 1
    inner: int = 1

    def fits(self, shape: tuple[int, ...], n: int) -> bool:
        """Whether a tensor of this shape can hold n samples in this way."""
        return (
            self.axis < len(shape) and n > 0 and shape[self.axis] == self.outer * n * self.inner
        )

    def rows(self, tensor: torch.Tensor, n: int) -> torch.Tensor:
        """``tensor`` as (n, everything else); a view where strides allow."""
        if self.axis == 0 and self.outer == 1:
            return tensor.reshape(n, -1)
        split = tensor.unflatten(self.axis, (self.outer, n, self.inner))
        return split.movedim(self.axis + 1, 0).reshape(n, -1)

    def arrange(self, rows: torch.Tensor, shape: tuple[int, ...], n: int) -> torch.Tensor:
        """Inverse of :meth:`rows`: (n, everything else) brought into ``shape``."""
        if self.axis == 0 and self.outer == 1:
            return rows.reshape(shape)
        before, after = shape[: self.axis], shape[self.axis + 1 :]
        split = rows.reshape(n, *before, self.outer, self.inner, *after)
        return split.movedim(0, self.axis + 1).reshape(shape)

    def squares(self, tensor: torch.Tensor, n: int) -> torch.Tensor:
        """Sum of squares of each sample, float64, shape (n,)."""
        norms = torch.linalg.vector_norm(self.rows(tensor, n), dim=1)
        return norms.double().square_()

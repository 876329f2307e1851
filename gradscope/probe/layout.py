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
        return self.axis < len(shape) and n > 0 and shape[self.axis] == self.outer * n * self.inner

    def rows(self, tensor: torch.Tensor, n: int) -> torch.Tensor:
        """``tensor`` as (n, everything else); a view where strides allow."""
        if self.axis == 0 and self.outer == 1:
            return tensor.reshape(n, -1)
        shape = tuple(tensor.shape)
        before, after = shape[: self.axis], shape[self.axis + 1 :]
        split = tensor.reshape(*before, self.outer, n, self.inner, *after)
        rows: torch.Tensor = split.movedim(self.axis + 1, 0).reshape(n, -1)
        return rows

    def arrange(self, rows: torch.Tensor, shape: tuple[int, ...], n: int) -> torch.Tensor:
        """Inverse of :meth:`rows`: (n, everything else) brought into ``shape``."""
        if self.axis == 0 and self.outer == 1:
            return rows.reshape(shape)
        before, after = shape[: self.axis], shape[self.axis + 1 :]
        split = rows.reshape(n, *before, self.outer, self.inner, *after)
        arranged: torch.Tensor = split.movedim(0, self.axis + 1).reshape(shape)
        return arranged

    def refit(self, shape: tuple[int, ...], n: int) -> BatchLayout | None:
        """The same layout for another batch size or sequence length; None if it cannot be."""
        if self.axis >= len(shape) or n < 1 or shape[self.axis] % n:
            return None
        repeat = shape[self.axis] // n
        if self.outer > 1 and self.inner > 1:
            fixed = repeat == self.outer * self.inner
            return self if fixed else None
        if self.outer > 1:
            return BatchLayout(self.axis, outer=repeat)
        return BatchLayout(self.axis, inner=repeat)


@dataclass(frozen=True, slots=True)
class Plan:
    """How the axes of one site's tensors are to be read.

    Attributes:
        layout: where the samples are; None if they are coupled or unknown.
        unit_axis: counted from the end (-1: features of a linear layer, -3: channels of images).
    """

    layout: BatchLayout | None
    unit_axis: int = -1


def guess(shape: tuple[int, ...], n: int) -> BatchLayout | None:
    """The usual layout, where nothing was found out: samples first."""
    if n == 1:
        return BatchLayout(0, inner=shape[0]) if shape else None
    for axis, size in enumerate(shape):
        if size == n:
            return BatchLayout(axis)
    if shape and shape[0] % n == 0 and shape[0] > 0:
        return BatchLayout(0, inner=shape[0] // n)
    return None


def from_support(gradient: torch.Tensor, n: int, sample: int) -> tuple[BatchLayout | None, bool]:
    """The batch axis, found by the cotangent test.

    A cotangent that is zero but for one sample makes a gradient that is zero but for that sample's
    share of the batch axis.

    Args:
        gradient: under a cotangent on ``sample`` alone.
        n: samples in the batch.
        sample: the one.

    Returns:
        (layout, known). Layout None and known: samples are coupled. Not known: no gradient
        arrived at all, or NaN, which is everywhere: nothing can be told.
    """
    support = gradient != 0
    if not bool(support.any()) or bool(torch.isnan(gradient).any()):
        return None, False
    for axis, size in enumerate(gradient.shape):
        if size % n or size == 0:
            continue
        others = [d for d in range(gradient.dim()) if d != axis]
        line = support.any(dim=others) if others else support
        repeat = size // n
        for outer in (d for d in range(1, repeat + 1) if repeat % d == 0):
            inner = repeat // outer
            mine = line.reshape(outer, n, inner)
            if not bool(mine[:, :sample].any()) and not bool(mine[:, sample + 1 :].any()):
                return BatchLayout(axis, outer, inner), True
    return None, True

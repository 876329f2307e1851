"""What is shuffled together: all of an ordinary sample, a part of a large one at a time.

A file may be sorted by class, so a part is made of many small blocks from all over the file, drawn
anew in every epoch. Only the blocks of one part are read and held at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_leaves, tree_map

from gradscope.model import Batch, Sample

POOL_BYTES = 256 << 20
"""Held at a time; what an optimiser sees is shuffled within it."""

BLOCKS = 64
"""Places of a file that one pool comes from, at least: with ten classes one after the other, each
has six of them, give or take two. More cost more seeking."""

Rows = Callable[[Batch], np.ndarray]
"""Which rows of a batch are trained on."""


class Mixed:
    """Pools of blocks from all over a sample.

    Args:
        sample: whose rows can be read anywhere.
        first: its first batch; the others have as many rows, but for the last.
        seed: of the order.
        rows: of a batch that are trained on, by its ``start`` and its ``size``.

    Attributes:
        count: of pools in an epoch.
    """

    def __init__(self, sample: Sample, first: Batch, seed: int, rows: Rows) -> None:
        self._sample, self._first, self._seed, self._rows = sample, first, seed, rows
        fit = max(1, POOL_BYTES * first.size // max(1, _bytes(first)))
        self._block = min(first.size, max(1, fit // BLOCKS))
        self._blocks = -(-sample.samples // self._block)
        self._together = max(1, fit // self._block)
        self.count = -(-self._blocks // self._together)

    def pools(self, epoch: int, first: int) -> Iterator[tuple[int, Batch]]:
        """The pools of an epoch from one on, each with its number."""
        order = np.random.default_rng((self._seed, epoch)).permutation(self._blocks)
        assert self._sample.rows is not None
        for i in range(first, self.count):
            mine = np.sort(order[i * self._together : (i + 1) * self._together])
            rows = self._trained_on(mine)
            if len(rows):
                yield i, _joined(list(self._sample.rows(rows)))

    def _trained_on(self, blocks: np.ndarray) -> np.ndarray:
        """Rows of these blocks, ascending. What is held out is told by the batches of a sweep."""
        n, size, block = self._sample.samples, self._first.size, self._block
        found = []
        known: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))
        for low in blocks * block:
            high = min(low + block, n)
            for start in range(low - low % size, high, size):
                if known[0] != start:
                    batch = replace(self._first, start=start, size=min(size, n - start))
                    known = start, start + self._rows(batch)
                rows = known[1]
                found.append(rows[(rows >= low) & (rows < high)])
        return np.concatenate(found)


def take(batch: Batch, rows: np.ndarray) -> Batch:
    """Some samples of a batch."""
    index = torch.from_numpy(rows)

    def pick(value: Any) -> Any:
        is_batch = isinstance(value, torch.Tensor) and value.dim() and value.shape[0] == batch.size
        return value[index] if is_batch else value

    return replace(
        batch,
        args=tree_map(pick, batch.args),
        kwargs=tree_map(pick, dict(batch.kwargs)),
        labels=batch.labels[index] if batch.labels is not None else None,
        size=len(rows),
    )


def in_order(batches: Iterator[Batch], rows: Rows) -> Iterator[Batch]:
    """Pools of what follows one another, for what can be read in its order only."""
    held: list[Batch] = []
    taken = 0
    for batch in batches:
        kept = take(batch, rows(batch))
        if kept.size:
            held.append(kept)
            taken += _bytes(kept)
        if taken > POOL_BYTES:
            yield _joined(held)
            held, taken = [], 0
    if held:
        yield _joined(held)


def _bytes(batch: Batch) -> int:
    leaves = tree_leaves((batch.args, dict(batch.kwargs), batch.labels))
    return sum(t.nbytes for t in leaves if isinstance(t, torch.Tensor))


def _joined(batches: list[Batch]) -> Batch:
    first = batches[0]
    if len(batches) == 1:
        return first

    def join(*values: Any) -> Any:
        sizes = [b.size for b in batches]
        is_batch = all(
            isinstance(v, torch.Tensor) and v.dim() and v.shape[0] == n
            for v, n in zip(values, sizes, strict=True)
        )
        return torch.cat(values) if is_batch else values[0]

    return Batch(
        tree_map(join, *[b.args for b in batches]),
        tree_map(join, *[dict(b.kwargs) for b in batches]),
        torch.cat([b.labels for b in batches if b.labels is not None]),
        sum(b.size for b in batches),
        first.start,
    )

"""Small shuffled batches out of a sample, and what is kept from training to score on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_leaves, tree_map

from gradscope.model import Batch, Sample

POOL_BYTES = 256 << 20
"""What is shuffled together: all of an ordinary sample, a part of a large one at a time."""

HELD_OUT_SHARE = 0.25

SOME = 2048
"""Samples by which the scale of a layer is measured and a layer is fitted anew: a choice for speed;
the most that was measured for the fit are 512 images."""


@dataclass(frozen=True)
class Place:
    """What has been handed out: whole epochs, then whole pools of this one, then rows of this."""

    epoch: int = 0
    pool: int = 0
    row: int = 0


class Stream:
    """Training batches, and where one is among them.

    Args:
        batches: from a place on, each with the place after it.
        start: the first place.

    Attributes:
        place: after the batch that was handed out last.
    """

    def __init__(
        self, batches: Callable[[Place], Iterator[tuple[Batch, Place]]], start: Place
    ) -> None:
        self.place = start
        self._batches = batches(start)

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Batch:
        batch, self.place = next(self._batches)
        return batch


class Minibatches:
    """Training batches without end, and held-out ones.

    Args:
        sample: labelled; a quarter of it is held out where ``validation`` is None.
        validation: labelled held-out data.
        size: samples in a training batch.
        seed: of the split and of the order.
        exact: whether every batch must have exactly ``size`` samples.
    """

    def __init__(
        self, sample: Sample, validation: Sample | None, *, size: int, seed: int, exact: bool
    ) -> None:
        self._sample, self._validation = sample, validation
        self._size, self._seed, self._exact = size, seed, exact
        self.split = validation is None

    def training(self, start: Place | None = None) -> Stream:
        """Epoch after epoch, each in an order of its own; ends only if there is nothing to train
        on.

        Args:
            start: where another stream had come to; None: the beginning.
        """
        return Stream(self._shuffled, start or Place())

    def _shuffled(self, start: Place) -> Iterator[tuple[Batch, Place]]:
        at, found = start, start != Place()
        while True:
            for i, pool in enumerate(_pools(self._sample.batches(), self._training_rows)):
                if i < at.pool:
                    continue
                order = np.random.default_rng((self._seed, at.epoch, i)).permutation(pool.size)
                for batch, row in self._cut(pool, order, self._size, at.row):
                    found = True
                    at = Place(at.epoch, i, row)
                    yield batch, at
                at = Place(at.epoch, i + 1, 0)
            if not found:
                return
            at = Place(at.epoch + 1)

    def once(self) -> Iterator[Batch]:
        """All samples that are trained on, once, in the order of the file."""
        yield from self._every(1)

    def some(self) -> Iterator[Batch]:
        """About :data:`SOME` of them, spread over the file: what a remedy looks at."""
        yield from self._every(1 if self._exact else max(1, self._sample.samples // SOME))

    def _every(self, step: int) -> Iterator[Batch]:
        for batch in self._sample.batches():
            rows = self._training_rows(batch)[::step]
            for cut, _ in self._cut(batch, rows, self._scored_at_once):
                yield cut

    def held_out(self) -> Iterator[Batch]:
        """What is scored on, in the order of the file."""
        source = self._validation or self._sample
        for batch in source.batches():
            rows = self._held_rows(batch) if self.split else np.arange(batch.size)
            for cut, _ in self._cut(batch, rows, self._scored_at_once):
                yield cut

    @property
    def _scored_at_once(self) -> int:
        return self._size if self._exact else max(self._size, 256)

    def _training_rows(self, batch: Batch) -> np.ndarray:
        return np.flatnonzero(~self._is_held(batch)) if self.split else np.arange(batch.size)

    def _held_rows(self, batch: Batch) -> np.ndarray:
        return np.flatnonzero(self._is_held(batch))

    def _is_held(self, batch: Batch) -> np.ndarray:
        random = np.random.default_rng((self._seed, batch.start))
        return random.random(batch.size) < HELD_OUT_SHARE

    def _cut(
        self, pool: Batch, rows: np.ndarray, size: int, first: int = 0
    ) -> Iterator[tuple[Batch, int]]:
        """Batches of the chosen rows from the ``first`` on, each with where the next one begins."""
        for start in range(first, len(rows), size):
            some = rows[start : start + size]
            if len(some) == size or not (self._exact or len(some) < 2):
                yield take(pool, some), start + size


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


def _pools(batches: Iterator[Batch], rows: Callable[[Batch], np.ndarray]) -> Iterator[Batch]:
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

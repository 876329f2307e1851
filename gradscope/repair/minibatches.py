"""Small shuffled batches out of a sample, and what is kept from training to score on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gradscope.model import Batch, Sample
from gradscope.repair.pools import Mixed, in_order, take

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
            for i, pool in self._pools(at):
                order = np.random.default_rng((self._seed, at.epoch, i)).permutation(pool.size)
                for batch, row in self._cut(pool, order, self._size, at.row):
                    found = True
                    at = Place(at.epoch, i, row)
                    yield batch, at
                at = Place(at.epoch, i + 1, 0)
            if not found:
                return
            at = Place(at.epoch + 1)

    def _pools(self, at: Place) -> Iterator[tuple[int, Batch]]:
        """What is shuffled together in an epoch, from a pool on, with its number."""
        mixed = self._mixed
        if mixed is not None:
            yield from mixed.pools(at.epoch, at.pool)
            return
        for i, pool in enumerate(in_order(self._sample.batches(), self._training_rows)):
            if i >= at.pool:
                yield i, pool

    @cached_property
    def _mixed(self) -> Mixed | None:
        """Of a sample that is too large to be shuffled at once and can be read anywhere."""
        first = next(self._sample.batches(), None)
        if first is None or self._sample.rows is None:
            return None
        found = Mixed(self._sample, first, self._seed, self._training_rows)
        return found if found.count > 1 else None

    def once(self) -> Iterator[Batch]:
        """All samples that are trained on, once, in the order of the file."""
        yield from self._cut_up(self._sample.batches(), self._training_rows)

    def few(self, most: int) -> Batch | None:
        """The first samples that are trained on, a batch at most; None if there are none."""
        first = next(self.once(), None)
        if first is None or self._exact or first.size <= most:
            return first
        return take(first, np.arange(most))

    def some(self) -> Iterator[Batch]:
        """About :data:`SOME` of them, spread over the file: what a remedy looks at."""
        step = self._sample.samples // SOME
        if self._exact or step < 2:
            return self.once()
        return self._cut_up(in_order(self._sample.batches(), self._every(step)), _all)

    def _every(self, step: int) -> Callable[[Batch], np.ndarray]:
        """Each ``step``-th of the rows that are trained on, across batches: some are smaller."""
        seen = 0

        def rows(batch: Batch) -> np.ndarray:
            nonlocal seen
            every = self._training_rows(batch)
            chosen = every[-seen % step :: step]
            seen += len(every)
            return chosen

        return rows

    def _cut_up(
        self, batches: Iterator[Batch], rows_of: Callable[[Batch], np.ndarray]
    ) -> Iterator[Batch]:
        for batch in batches:
            rows = rows_of(batch)
            for cut, _ in self._cut(batch, rows, self._scored_at_once):
                yield cut

    def held_out(self) -> Iterator[Batch]:
        """What is scored on, in the order of the file."""
        source = self._validation or self._sample
        yield from self._cut_up(source.batches(), self._held_rows if self.split else _all)

    @property
    def _scored_at_once(self) -> int:
        return self._size if self._exact else max(self._size, 256)

    def _training_rows(self, batch: Batch) -> np.ndarray:
        return np.flatnonzero(~self._is_held(batch)) if self.split else _all(batch)

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


def _all(batch: Batch) -> np.ndarray:
    return np.arange(batch.size)

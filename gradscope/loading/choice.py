"""Which samples are run: all, or a seeded cut that keeps the labels' proportions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np

from gradscope.config import DataSettings
from gradscope.errors import OptionError
from gradscope.loading.rows import Rows

LARGE = 1 << 20
"""Rows from which the cut is drawn without an array of all of them: 100 million rows would take
2.4 GB only to be shuffled. Below, the whole is shuffled, as in every report so far."""

_CLASSES = 10_000
"""More different labels than that are no classes; what counts them would grow with the file."""

Labels = Callable[[], Iterator[np.ndarray]]
"""Integer labels from the first sample on, a piece at a time, as often as wanted."""


def choose(available: int, settings: DataSettings, labels: Labels | None) -> tuple[Rows, str]:
    """The rows to run, ascending, and how they were found."""
    count = settings.samples
    if count is None or count >= available:
        return range(available), "all"
    if count < 1:
        raise OptionError("at least one sample is needed", where="--samples")
    random = np.random.default_rng(settings.seed)
    if available > LARGE:
        return _from_many(available, count, random, labels)
    if labels is None:
        return np.sort(random.permutation(available)[:count]), "at random"
    # Ordered by class, shuffled within: every (available / count)-th one keeps the proportions.
    order = np.lexsort((random.random(available), np.concatenate(list(labels()))))
    return np.sort(order[_every(available, count, random)]), "stratified by label"


def _every(available: int, count: int, random: np.random.Generator) -> np.ndarray:
    """``count`` positions out of ``available``, evenly spread, from a random first one."""
    places = np.floor((np.arange(count) + random.random()) * available / count).astype(np.int64)
    return np.minimum(places, available - 1)


def _from_many(
    available: int, count: int, random: np.random.Generator, labels: Labels | None
) -> tuple[Rows, str]:
    """The same law with memory for the chosen ones only: classes are counted, then drawn from."""
    sizes = _class_sizes(labels) if labels is not None else None
    if labels is None or sizes is None:
        return np.sort(random.choice(available, count, replace=False)), "at random"
    classes = np.array(sorted(sizes))
    ends = np.cumsum([sizes[int(c)] for c in classes])
    shares = np.diff(np.searchsorted(_every(available, count, random), ends), prepend=0)
    wanted = [
        np.sort(random.choice(sizes[int(c)], share, replace=False))
        for c, share in zip(classes, shares, strict=True)
    ]
    return _rows_of(labels, classes, wanted), "stratified by label"


def _class_sizes(labels: Labels) -> Counter[int] | None:
    """How often each class occurs; None if these are no classes."""
    sizes: Counter[int] = Counter()
    for piece in labels():
        values, counts = np.unique(piece, return_counts=True)
        for value, times in zip(values.tolist(), counts.tolist(), strict=True):
            sizes[value] += times
        if len(sizes) > _CLASSES:
            return None
    return sizes


def _rows_of(labels: Labels, classes: np.ndarray, wanted: list[np.ndarray]) -> np.ndarray:
    """Rows of the wanted members of each class: the 0th, 5th, 7th of class 3, say."""
    found, start = [], 0
    before = [0] * len(classes)
    for piece in labels():
        order = np.argsort(piece, kind="stable")
        ends = np.searchsorted(piece[order], classes, side="right")
        firsts = np.searchsorted(piece[order], classes, side="left")
        for i in np.flatnonzero(ends > firsts):
            members = order[firsts[i] : ends[i]]
            low, high = np.searchsorted(wanted[i], (before[i], before[i] + len(members)))
            found.append(members[wanted[i][low:high] - before[i]] + start)
            before[i] += len(members)
        start += len(piece)
    return np.sort(np.concatenate(found))

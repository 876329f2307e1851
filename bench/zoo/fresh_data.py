"""Data sets of the third part: from scikit-learn's generators, or drawn here. Shapes as in
``data.py``; targets of a regression have one column an output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from bench.zoo.data import Array, Dataset, _digits, _split, _standard


def _regression(data: Dataset) -> Dataset:
    """Targets with mean 0 and variance 1."""
    mean, sd = data.y.mean(), data.y.std()
    return replace(data, y=(data.y - mean) / sd, y_val=(data.y_val - mean) / sd)


def _friedman(rng: np.random.Generator) -> Dataset:
    from sklearn.datasets import make_friedman1

    x, y = make_friedman1(1800, 10, noise=0.7, random_state=int(rng.integers(1 << 30)))
    return _regression(_standard(_split(x, y[:, None], rng, 450, 0)))


def _checker(rng: np.random.Generator) -> Dataset:
    """Fields of a board of four by four, labels of 4 % drawn anew."""
    x = rng.uniform(-2, 2, (2400, 2))
    y = (np.floor(x).sum(1) % 2).astype(np.int64)
    y = np.where(rng.random(len(y)) < 0.04, rng.integers(0, 2, len(y)), y)
    return _standard(_split(x, y, rng, 500, 2))


def _circles(rng: np.random.Generator) -> Dataset:
    from sklearn.datasets import make_circles

    x, y = make_circles(1500, noise=0.1, factor=0.5, random_state=int(rng.integers(1 << 30)))
    return _standard(_split(x, y, rng, 400, 2))


def _blobs(rng: np.random.Generator) -> Dataset:
    from sklearn.datasets import make_classification

    x, y = make_classification(
        2600, 20, n_informative=10, n_redundant=4, n_classes=5, n_clusters_per_class=1,
        class_sep=1.3, random_state=int(rng.integers(1 << 30)),
    )  # fmt: skip
    return _standard(_split(x, y, rng, 600, 5))


def _bars(rng: np.random.Generator) -> Dataset:
    """Gratings of six directions with random phase and width in noise, 10 x 10."""
    n = 2400
    y = rng.integers(0, 6, n)
    rows, columns = np.mgrid[:10, :10]
    angle, wide = y * np.pi / 6, rng.uniform(0.9, 1.5, n)
    at = (
        np.cos(angle)[:, None, None] * columns + np.sin(angle)[:, None, None] * rows
    ) * wide[:, None, None]  # fmt: skip
    x = np.sin(at + rng.uniform(0, 6.28, n)[:, None, None])
    x = x * rng.uniform(0.6, 1.4, n)[:, None, None] + 0.7 * rng.normal(size=x.shape)
    return _split(x[:, None], y, rng, 500, 6)


def _waves(rng: np.random.Generator) -> Dataset:
    """Sine, square, sawtooth, triangle, chirp and burst, of random period and phase; 48 points."""
    n, grid = 2600, np.arange(48)
    y = rng.integers(0, 6, n)
    turns = grid / rng.uniform(8, 16, n)[:, None] + rng.random(n)[:, None]
    phase = turns % 1
    forms = np.stack([
        np.sin(2 * np.pi * turns), np.sign(phase - 0.5), 2 * phase - 1, 4 * abs(phase - 0.5) - 1,
        np.sin(2 * np.pi * turns * (1 + grid / 30)),
        np.sin(2 * np.pi * turns) * (abs(grid - 24) < 8) * 2,
    ])  # fmt: skip
    x = forms[y, np.arange(n)] + 0.35 * rng.normal(size=(n, 48))
    return _split(x[:, None], y, rng, 600, 6)


def _denoise(rng: np.random.Generator) -> Dataset:
    """Three sines and a step in 32 points; the targets are without the noise."""
    n, grid = 2000, np.arange(32)
    clean = np.zeros((n, 32))
    for _ in range(3):
        turn = rng.uniform(0.05, 0.6, (n, 1)) * grid + rng.uniform(0, 6.28, (n, 1))
        clean += rng.uniform(0.2, 0.8, (n, 1)) * np.sin(turn)
    clean += 1.5 * (grid > rng.integers(4, 28, (n, 1)))
    clean = (clean - clean.mean()) / clean.std()
    noise = 0.6 * rng.normal(size=clean.shape)
    return _split((clean + noise)[:, None], clean, rng, 400, 0)


def _running(rng: np.random.Generator) -> Dataset:
    """Sixteen numbers; at each step the target is the mean of the last five, of variance 1."""
    x = rng.normal(size=(2400, 16))
    sums = np.cumsum(x, 1)
    y = (sums - np.pad(sums, ((0, 0), (5, 0)))[:, :16]) / np.sqrt(5)
    return _split(x[:, :, None], y, rng, 400, 0)


def _tones(rng: np.random.Generator) -> Dataset:
    """Which of five frequencies, 24 steps."""
    n = 2400
    y = rng.integers(0, 5, n)
    turn = (0.25 + 0.22 * y)[:, None] * np.arange(24) + rng.uniform(0, 6.28, (n, 1))
    x = np.sin(turn) * rng.uniform(0.8, 1.6, (n, 1)) + 0.3 * rng.normal(size=turn.shape)
    return _split(x[:, :, None], y, rng, 500, 5)


def _flag(rng: np.random.Generator) -> Dataset:
    """Six symbols in 24 steps; one of the first five is flagged, and is the answer."""
    n = 2600
    symbols, at = rng.integers(0, 6, (n, 24)), rng.integers(0, 5, n)
    flags = np.zeros((n, 24, 1))
    flags[np.arange(n), at] = 1
    x = np.concatenate([np.eye(6)[symbols], flags], 2)
    return _split(x, symbols[np.arange(n), at], rng, 500, 6)


def _bag(rng: np.random.Generator) -> Dataset:
    """Twelve tokens of six; the answer is the commonest (the least of them in a tie)."""
    tokens = rng.integers(0, 6, (4000, 12))
    y = np.stack([(tokens == k).sum(1) for k in range(6)], 1).argmax(1)
    data = _split(tokens, y, rng, 500, 6)
    return replace(data, x=data.x.astype(np.int64), x_val=data.x_val.astype(np.int64))


def _itself(make: Callable[[np.random.Generator], Dataset]) -> Callable[..., Dataset]:
    def taught(rng: np.random.Generator) -> Dataset:
        data = make(rng)

        def same(x: Array) -> Array:
            return x.astype(np.float32)

        return Dataset(data.x, same(data.x), data.x_val, same(data.x_val), 0)

    return taught


MAKERS: dict[str, Callable[[np.random.Generator], Dataset]] = {
    "friedman": _friedman,
    "checker": _checker,
    "circles": _circles,
    "blobs": _blobs,
    "bars": _bars,
    "waves": _waves,
    "denoise": _denoise,
    "running": _running,
    "tones": _tones,
    "flag": _flag,
    "bag": _bag,
    "itself": _itself(_digits),
}

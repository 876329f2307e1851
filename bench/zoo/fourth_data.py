"""Data sets of the fourth part: from scikit-learn, or drawn here. Shapes as in ``data.py``; targets
of a regression have one column an output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from bench.zoo.data import Array, Dataset, _split, _standard


def _regression(data: Dataset) -> Dataset:
    """Each target with mean 0 and variance 1."""
    mean, sd = data.y.mean(0), data.y.std(0)
    scaled = [((y - mean) / sd).astype(np.float32) for y in (data.y, data.y_val)]
    return replace(data, y=scaled[0], y_val=scaled[1])


def _state(rng: np.random.Generator) -> int:
    """A seed for scikit-learn."""
    return int(rng.integers(1 << 30))


def _iris(rng: np.random.Generator) -> Dataset:
    from sklearn.datasets import load_iris

    x, y = load_iris(return_X_y=True)
    return _standard(_split(x, y, rng, 60, 3))


def _cancer_worst(rng: np.random.Generator) -> Dataset:
    """The worst radius, texture, smoothness and concavity from all means and errors."""
    from sklearn.datasets import load_breast_cancer

    x, _ = load_breast_cancer(return_X_y=True)
    return _regression(_standard(_split(x[:, :20], x[:, [20, 21, 24, 26]], rng, 170, 0)))


def _hastie(rng: np.random.Generator) -> Dataset:
    from sklearn.datasets import make_hastie_10_2

    x, y = make_hastie_10_2(2600, random_state=_state(rng))
    return _standard(_split(x, y > 0, rng, 600, 2))


def _quantiles(rng: np.random.Generator) -> Dataset:
    from sklearn.datasets import make_gaussian_quantiles

    x, y = make_gaussian_quantiles(
        n_samples=2400, n_features=3, n_classes=3, random_state=_state(rng)
    )
    return _standard(_split(x, y, rng, 600, 3))


def _moons(rng: np.random.Generator) -> Dataset:
    from sklearn.datasets import make_moons

    x, y = make_moons(1800, noise=0.2, random_state=_state(rng))
    return _standard(_split(x, y, rng, 500, 2))


def _swiss_roll(rng: np.random.Generator) -> Dataset:
    """How far along the roll."""
    from sklearn.datasets import make_swiss_roll

    x, y = make_swiss_roll(2200, noise=0.3, random_state=_state(rng))
    return _regression(_standard(_split(x, y[:, None], rng, 500, 0)))


def _friedman3(rng: np.random.Generator) -> Dataset:
    from sklearn.datasets import make_friedman3

    x, y = make_friedman3(2200, noise=0.1, random_state=_state(rng))
    return _regression(_standard(_split(x, y[:, None], rng, 500, 0)))


def _parity(rng: np.random.Generator) -> Dataset:
    """Of the first three of ten bits."""
    bits = rng.integers(0, 2, (2400, 10))
    return _split(2 * bits - 1, bits[:, :3].sum(1) % 2, rng, 500, 2)


def _cover(rng: np.random.Generator) -> Dataset:
    """A table like that of forest cover: ten measures of a place, four areas and seven soils as
    indicators; six kinds of wood from what suits each."""
    taught = np.random.default_rng(11)
    n = 3200
    mixed = rng.normal(size=(n, 10)) @ (np.eye(10) + 0.4 * taught.normal(size=(10, 10)))
    area = (rng.random(n) ** 1.5 * 4).astype(int)
    soil = ((mixed[:, 0] / 2 + rng.normal(size=n)).clip(-2.5, 2.5) * 1.39 + 3.5).astype(int)
    x = np.concatenate([mixed, np.eye(4)[area], np.eye(7)[soil.clip(0, 6)]], 1)
    scaled = (x - x.mean(0)) / x.std(0)
    suits = np.tanh(scaled @ taught.normal(size=(21, 24)) / 3) @ taught.normal(size=(24, 6))
    suits += np.log([0.3, 0.3, 0.15, 0.1, 0.08, 0.07]) + 0.3 * rng.gumbel(size=(n, 6))
    return _standard(_split(x, suits.argmax(1), rng, 700, 6))


def _shapes(rng: np.random.Generator) -> Dataset:
    """Disk, ring, square, cross, triangle of random place, size and contrast in noise, 12 x 12."""
    n, half = 2400, 12 / 2
    y = rng.integers(0, 5, n)
    rows, columns = np.mgrid[:12, :12] + 0.5
    at, size = rng.uniform(-1.5, 1.5, (2, n, 1, 1)) + half, rng.uniform(3.0, 4.5, (n, 1, 1))
    v, u = (rows - at[0]) / size, (columns - at[1]) / size
    radius, square = np.hypot(u, v), np.maximum(abs(u), abs(v))
    forms = np.stack([
        radius < 0.9, (radius < 1) & (radius > 0.6), square < 0.8,
        (square < 1) & (np.minimum(abs(u), abs(v)) < 0.25), (v < 0.8) & (abs(u) < (v + 1) / 2),
    ])  # fmt: skip
    x = forms[y, np.arange(n)] * rng.uniform(1.2, 2.2, (n, 1, 1)) + 0.3 * rng.normal(size=u.shape)
    return _split((x - x.mean())[:, None] / x.std(), y, rng, 500, 5)


def _textures(rng: np.random.Generator) -> Dataset:
    """Noise in three colours, 9 x 9: smooth along rows, along columns, along both, along none; or
    rough and grey."""
    n = 2400
    y = rng.integers(0, 5, n)
    rough = rng.normal(size=(n, 3, 11, 11))
    rows = rough[..., :-2] + rough[..., 1:-1] + rough[..., 2:]
    along = rows[:, :, 1:-1]
    down = (rough[..., :-2, :] + rough[..., 1:-1, :] + rough[..., 2:, :])[..., 1:-1]
    both = rows[..., :-2, :] + rows[..., 1:-1, :] + rows[..., 2:, :]
    plain = rough[..., 1:-1, 1:-1]
    grey = np.repeat(plain[:, :1], 3, 1)
    x = np.stack([along, down, both, plain, grey])[y, np.arange(n)]
    x = x / x.std((1, 2, 3), keepdims=True) + 0.4 * rng.normal(size=(n, 3, 9, 9))
    return _split(x + 0.5 * rng.normal(size=(n, 3, 1, 1)), y, rng, 500, 5)


def _pulses(rng: np.random.Generator) -> Dataset:
    """Beats of five forms (narrow, wide, double, inverted, with a late wave) of random period over
    a drifting line, 48 points."""
    n, grid = 2600, np.arange(48)
    y = rng.integers(0, 5, n)
    period, first = rng.uniform(12, 18, (n, 1)), rng.uniform(0, 12, (n, 1))
    t = (grid - first) % period

    def bump(at: float, wide: float) -> Array:
        return np.exp(-(((t - at) / wide) ** 2))

    forms = np.stack([
        bump(4, 0.9), bump(4, 2.2), bump(3, 0.9) + bump(6, 0.9), -bump(4, 0.9),
        bump(4, 0.9) + 0.5 * bump(9, 1.6),
    ])  # fmt: skip
    drift = 0.4 * np.sin(grid / rng.uniform(10, 20, (n, 1)) + rng.uniform(0, 6.28, (n, 1)))
    x = forms[y, np.arange(n)] * rng.uniform(1.5, 2.5, (n, 1)) + drift
    x += 0.25 * rng.normal(size=x.shape)
    return _split((x - x.mean())[:, None] / x.std(), y, rng, 600, 5)


def _order(rng: np.random.Generator) -> Dataset:
    """Two events of two kinds, one in each half of 18 noisy steps: which, in which order."""
    n = 2600
    x = 0.3 * rng.normal(size=(n, 18, 3))
    kinds = rng.integers(0, 2, (n, 2))
    for half in range(2):
        x[np.arange(n), rng.integers(1, 8, n) + 8 * half, kinds[:, half]] += 2.5
    return _split(x, kinds[:, 0] * 2 + kinds[:, 1], rng, 500, 4)


def _forecast(rng: np.random.Generator) -> Dataset:
    """The next value of two oscillations of unknown period, after 20 noisy ones."""
    n, grid = 2600, np.arange(21)
    clean = np.zeros((n, 21))
    for low, high in ((0.2, 0.5), (0.6, 1.2)):
        turn = rng.uniform(low, high, (n, 1)) * grid + rng.uniform(0, 6.28, (n, 1))
        clean += rng.uniform(0.5, 1.2, (n, 1)) * np.sin(turn)
    x = clean[:, :20] + 0.15 * rng.normal(size=(n, 20))
    return _regression(_split(x[:, :, None], clean[:, 20:], rng, 500, 0))


def _trend(rng: np.random.Generator) -> Dataset:
    """Noise about a line of 24 points that falls, stays, or rises after a turn somewhere."""
    n, grid = 2400, np.arange(24)
    y = rng.integers(0, 3, n)
    slope = (y - 1)[:, None] * rng.uniform(0.1, 0.25, (n, 1))
    turn = rng.uniform(4, 14, (n, 1))
    x = slope * np.maximum(grid - turn, 0) + 0.5 * rng.normal(size=(n, 24))
    return _split(x[:, :, None] / x.std(), y, rng, 500, 3)


def _brackets(rng: np.random.Generator) -> Dataset:
    """Ten brackets of two kinds (tokens 0 to 3): nested well, or with one of them replaced."""
    n = 4000
    x = np.stack([_nested(rng) for _ in range(n)])
    y = rng.integers(0, 2, n)
    for row in np.flatnonzero(y):
        at = rng.integers(0, 10)
        x[row, at] = (x[row, at] + rng.integers(1, 4)) % 4
    data = _split(x, 1 - y, rng, 500, 2)
    return replace(data, x=data.x.astype(np.int64), x_val=data.x_val.astype(np.int64))


def _nested(rng: np.random.Generator) -> Array:
    """``0 1`` and ``2 3`` open and close."""
    found: list[int] = []
    still: list[int] = []
    for left in range(10, 0, -1):
        if len(still) == left or (still and rng.random() < 0.5):
            found.append(still.pop() + 1)
        else:
            still.append(2 * int(rng.integers(0, 2)))
            found.append(still[-1])
    return np.array(found)


MAKERS: dict[str, Callable[[np.random.Generator], Dataset]] = {
    "iris": _iris,
    "cancerworst": _cancer_worst,
    "hastie": _hastie,
    "quantiles": _quantiles,
    "moons": _moons,
    "swissroll": _swiss_roll,
    "friedman3": _friedman3,
    "parity": _parity,
    "cover": _cover,
    "shapes": _shapes,
    "textures": _textures,
    "pulses": _pulses,
    "order": _order,
    "forecast": _forecast,
    "trend": _trend,
    "brackets": _brackets,
}

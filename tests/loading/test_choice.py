"""Which samples are run: as many as asked for, seeded, in the labels' proportions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradscope.config import DataSettings
from gradscope.errors import OptionError
from gradscope.loading import choice
from gradscope.loading.choice import choose


def pieces(labels: np.ndarray, size: int = 7):
    """As a source gives them."""
    return lambda: (labels[i : i + size] for i in range(0, len(labels), size))


def chosen(available: int, labels: np.ndarray | None, samples: int | None, seed: int = 0):
    given_labels = None if labels is None else pieces(labels)
    return choose(available, DataSettings(samples=samples, seed=seed), given_labels)


@pytest.fixture(params=["shuffled", "counted"])
def law(request, monkeypatch) -> str:
    """Both ways to draw: of a few rows, and of too many to shuffle."""
    if request.param == "counted":
        monkeypatch.setattr(choice, "LARGE", 0)
    return request.param


@pytest.mark.parametrize("samples", [None, 20, 21, 10**9])
def test_all(samples, law):
    assert chosen(20, None, samples) == (range(20), "all")


def test_none_is_refused():
    with pytest.raises(OptionError, match="at least one"):
        chosen(20, None, 0)


@given(n=st.integers(2, 300), classes=st.integers(1, 6), seed=st.integers(0, 9), data=st.data())
@settings(deadline=None, max_examples=60)
@pytest.mark.parametrize("large", [choice.LARGE, 0])
def test_a_cut_in_the_labels_proportions(large, n, classes, seed, data):
    """Each class has its share, rounded up or down; rows ascend and none comes twice."""
    count = data.draw(st.integers(1, n - 1))
    labels = np.random.default_rng(seed).integers(-1, classes - 1, n)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choice, "LARGE", large)
        rows, how = chosen(n, labels, count, seed)
        again, _ = chosen(n, labels, count, seed)
    assert how == "stratified by label"
    assert len(rows) == count
    assert np.all(np.diff(rows) > 0)
    assert 0 <= rows[0] <= rows[-1] < n
    assert np.array_equal(rows, again)
    for value in np.unique(labels):
        share = np.mean(labels == value) * count
        assert abs(np.sum(labels[rows] == value) - share) < 1 + 1e-9


def test_without_labels_at_random(law):
    rows, how = chosen(1000, None, 100)
    assert how == "at random"
    assert len(set(rows.tolist())) == 100
    assert np.all(np.diff(rows) > 0)
    assert not np.array_equal(rows, chosen(1000, None, 100, seed=1)[0])


def test_every_row_is_as_likely_as_any_other(law):
    """Of 40 rows in two classes, 10 are drawn: each in about a quarter of 400 draws."""
    labels = np.repeat([0, 1], [10, 30])
    counts = np.zeros(40)
    for seed in range(400):
        counts[chosen(40, labels, 10, seed)[0]] += 1
    # 400 draws of probability 1/4: standard deviation 8.7
    assert np.all(np.abs(counts - 100) < 40)


def test_labels_that_are_no_classes_are_not_counted_without_end(monkeypatch):
    monkeypatch.setattr(choice, "LARGE", 0)
    monkeypatch.setattr(choice, "_CLASSES", 50)
    assert chosen(1000, np.arange(1000), 10)[1] == "at random"

"""Which samples an epoch shows, and which are held out."""

from __future__ import annotations

import itertools

import pytest
import torch

from gradscope.repair.minibatches import Minibatches
from tests.repair.test_trial import DATA, X, Y
from tests.support import sample_of


@pytest.mark.parametrize("size", [32, 7])
@pytest.mark.parametrize("exact", [False, True])
def test_an_epoch_shows_every_sample_once_and_no_held_out_one(size, exact):
    x = torch.arange(300.0)[:, None]
    sample = sample_of(x, torch.zeros(300, dtype=torch.long), 100)
    data = Minibatches(sample, None, size=size, seed=3, exact=exact)
    every = Minibatches(sample, None, size=size, seed=3, exact=False)
    held = [int(v) for b in every.held_out() for v in b.args[0]]
    left = 300 - len(held)
    per_epoch = left // size if exact else -(-left // size) - (left % size == 1)
    batches = list(itertools.islice(data.training(), per_epoch))
    seen = [int(v) for b in batches for v in b.args[0]]
    kept = left // size * size if exact else left - (left % size == 1)  # one alone is left out
    assert len(seen) == len(set(seen)) == kept
    assert not set(seen) & set(held)
    assert 40 < len(held) < 110
    assert {b.size for b in batches[:-1]} == {size}
    assert seen != sorted(seen)


def test_held_out_data_are_all_scored():
    sample = sample_of(X, Y, 500)
    data = Minibatches(sample, sample_of(*DATA.val), size=32, seed=0, exact=False)
    assert sum(b.size for b in data.held_out()) == 450
    assert not data.split

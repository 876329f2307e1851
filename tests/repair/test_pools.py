"""Data too large to be shuffled at once, and sorted by class: what an optimiser sees is mixed."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from gradscope.config import DataSettings
from gradscope.loading import load_sample, picked
from gradscope.model import LoadedModel, Sample
from gradscope.progress import Silent
from gradscope.repair import minibatches, pools
from gradscope.repair.loop import train
from gradscope.repair.minibatches import Minibatches
from gradscope.repair.recipe import Recipe
from tests.repair.test_training import trainee
from tests.support import sample_of

CLASSES, EACH, WIDTH = 5, 300, 4
N = CLASSES * EACH
Y = np.repeat(np.arange(CLASSES), EACH)
X = np.random.default_rng(0).normal(size=(N, WIDTH)).astype(np.float32) + 3 * np.eye(5, 4)[Y]
X[:, 0] = np.arange(N) / N  # which row it is
MODEL = LoadedModel("m", "PyTorch module", nn.Linear(WIDTH, CLASSES))


def npz(path):
    np.savez(path, x=X.astype(np.float32), y=Y)


def packed(path):
    np.savez_compressed(path, x=X.astype(np.float32), y=Y)


def csv(path):
    rows = [",".join([*(repr(float(v)) for v in x), f"c{y}"]) for x, y in zip(X, Y, strict=True)]
    path.write_text("\n".join(["a,b,c,d,label", *rows]) + "\n")


def parquet(path):
    columns = {name: X[:, i].astype(np.float32) for i, name in enumerate("abcd")}
    pq.write_table(pa.table({**columns, "label": Y}), path, row_group_size=200)


FORMS = {"npz": npz, "packed.npz": packed, "csv": csv, "parquet": parquet}


@pytest.fixture(scope="module", params=FORMS)
def path(request, tmp_path_factory):
    made = tmp_path_factory.mktemp("data") / f"sorted.{request.param}"
    FORMS[request.param](made)
    return made


@pytest.fixture(scope="module", params=[0, 1 << 25], ids=["read anew", "kept in memory"])
def sample(request, path) -> Sample:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(picked, "KEPT", request.param)
        return load_sample(MODEL, DataSettings(data=str(path), samples=None, batch_size=128))


@pytest.fixture
def bound(monkeypatch):
    """A pool of a quarter of the file."""
    monkeypatch.setattr(pools, "POOL_BYTES", N * (4 * WIDTH + 8) // 4)


def rows_of(batch) -> list[int]:
    return (batch.args[0][:, 0] * N).round().long().tolist()


def epoch(data: Minibatches, start=None) -> list[list]:
    """Batches of the epoch that a stream is in, pool by pool."""
    stream, found = data.training(start), {}
    first = stream.place.epoch
    while True:
        batch = next(stream)
        if stream.place.epoch != first:
            return list(found.values())
        found.setdefault(stream.place.pool, []).append(batch)


def test_every_pool_has_every_class(sample: Sample, bound):
    data = Minibatches(sample, None, size=16, seed=0, exact=False)
    parts = epoch(data)
    assert 4 <= len(parts) <= 5
    for part in parts[:4]:
        labels = torch.cat([b.labels for b in part])
        share = torch.bincount(labels, minlength=CLASSES) / len(labels)
        assert float((share - 1 / CLASSES).abs().max()) < 0.12
    assert max(len(set(b.labels.tolist())) for b in parts[0]) == CLASSES


def test_an_epoch_is_every_row_once_and_none_that_is_held_out(sample: Sample, bound):
    data = Minibatches(sample, None, size=1 << 10, seed=0, exact=False)
    held = [row for batch in data.held_out() for row in rows_of(batch)]
    seen = [row for part in epoch(data) for batch in part for row in rows_of(batch)]
    assert sorted(seen + held) == list(range(N))
    labels = torch.cat([b.labels for part in epoch(data) for b in part])
    assert torch.equal(labels, torch.from_numpy(Y)[torch.tensor(seen)])
    assert np.bincount(Y[held], minlength=CLASSES).min() > EACH / 8


def test_an_order_is_another_in_every_epoch_and_the_same_again(sample: Sample, bound):
    data = Minibatches(sample, None, size=64, seed=0, exact=False)
    stream = data.training()
    first = [rows_of(next(stream)) for _ in range(40)]
    assert stream.place.epoch == 1
    again = Minibatches(sample, None, size=64, seed=0, exact=False).training()
    assert [rows_of(next(again)) for _ in range(40)] == first
    pool = {row for part in epoch(data)[:1] for batch in part for row in rows_of(batch)}
    later = data.training(minibatches.Place(1))
    assert {row for _ in range(len(pool) // 64) for row in rows_of(next(later))} != pool


@pytest.mark.parametrize("taken", [1, 3, 11, 30])
def test_it_goes_on_where_it_was(sample: Sample, bound, taken: int):
    data = Minibatches(sample, None, size=64, seed=0, exact=False)
    whole = data.training()
    for _ in range(taken):
        next(whole)
    part = data.training(whole.place)
    for _ in range(25):
        assert rows_of(next(whole)) == rows_of(next(part))


def test_what_fits_is_shuffled_as_a_whole(sample: Sample):
    data = Minibatches(sample, None, size=64, seed=0, exact=False)
    assert len(epoch(data)) == 1


@pytest.mark.parametrize("size", [100, 7])
def test_what_a_remedy_looks_at_is_spread_over_the_file(monkeypatch, size: int):
    """Also where a step is longer than a batch."""
    monkeypatch.setattr(minibatches, "SOME", 100)
    sample = sample_of(torch.from_numpy(X).float(), torch.from_numpy(Y), size)
    data = Minibatches(sample, sample, size=4, seed=0, exact=False)
    seen = [row for batch in data.some() for row in rows_of(batch)]
    assert seen == list(range(0, N, N // 100))


def test_a_net_learns_from_a_sorted_file(tmp_path, monkeypatch):
    """Pools of one class after the other were learned one after the other, and forgotten."""
    monkeypatch.setattr(pools, "POOL_BYTES", N * (4 * WIDTH + 8) // 5)
    npz(tmp_path / "sorted.npz")
    settings = DataSettings(data=str(tmp_path / "sorted.npz"), samples=None, batch_size=128)
    sample = load_sample(MODEL, settings)
    scores = {}
    for name in ("mixed", "in order"):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(WIDTH, 16), nn.Tanh(), nn.Linear(16, CLASSES))
        data = Minibatches(sample, None, size=16, seed=0, exact=False)
        if name == "in order":
            monkeypatch.setattr(Minibatches, "_mixed", None)
        recipe = Recipe(70, 2e-2, 16, None, every=70)
        scores[name] = train(trainee(module), data, recipe, Silent()).moments[-1][1].mean
    assert scores["mixed"] > 0.9
    assert scores["mixed"] > scores["in order"] + 0.2

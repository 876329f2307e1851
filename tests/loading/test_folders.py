"""Folders of shards are one long file, in the order people count."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import nn

from gradscope.config import DataSettings
from gradscope.errors import DataError
from gradscope.loading import load_sample
from gradscope.loading.folders import natural
from gradscope.loading.rows import Source
from gradscope.loading.sources import open_source
from gradscope.model import LoadedModel

SIZES = (3, 1, 5, 0, 2, 4, 1, 1, 1, 1, 2)
X = np.arange(2.0 * sum(SIZES), dtype=np.float32).reshape(-1, 2)
Y = np.arange(sum(SIZES)) % 3
ENDS = np.cumsum(SIZES)


def parts(array: np.ndarray) -> list[np.ndarray]:
    return np.split(array, ENDS[:-1])


def shards(folder: Path, kind: str) -> Path:
    """``part-0`` to ``part-10``; hidden and other files are no shards."""
    (folder / "README.md").write_text("ours")
    (folder / ".hidden.npz").write_text("nothing")
    for i, (x, y) in enumerate(zip(parts(X), parts(Y), strict=True)):
        if kind == "npz":
            np.savez(folder / f"part-{i}.npz", x=x, y=y)
        elif kind == "deflated":
            np.savez_compressed(folder / f"part-{i}.npz", x=x, y=y)
        elif kind == "safetensors":
            save_file({"x": x, "y": y}, folder / f"part-{i}.safetensors")
        else:
            np.save(folder / f"x_{i}.npy", x)
            np.save(folder / f"y_{i}.npy", y)
    return folder


def opened(folder: Path) -> Source:
    return open_source(str(folder), DataSettings())


def taken(source: Source, names, *rows):
    with contextlib.closing(source.open(names)) as reader:
        found = [reader.take(r) for r in rows]
    return {n: torch.cat([f[n] for f in found]).numpy() for n in names}


@pytest.mark.parametrize("kind", ["npz", "deflated", "safetensors", "npy"])
def test_shards_are_one_file(kind, tmp_path):
    source = opened(shards(tmp_path, kind))
    assert source.columns["x"].shape == X.shape
    assert any("11 shards" in n for n in source.notes)
    assert any("left out" in n for n in source.notes)
    n = len(X)
    found = taken(source, ["x", "y"], range(4), range(4, 10), range(10, n))
    assert np.array_equal(found["x"], X)
    assert np.array_equal(found["y"], Y)
    rows = np.array([0, 3, 8, 9, 10, n - 1])
    found = taken(source, ["y", "x"], rows[:2], rows[2:5], rows[5:])
    assert np.array_equal(found["x"], X[rows])
    assert np.array_equal(found["y"], Y[rows])


def test_through_a_model(tmp_path):
    model = LoadedModel("m", "f", nn.Linear(2, 3))
    settings = DataSettings(data=str(shards(tmp_path, "npz")), samples=9, batch_size=4)
    sample = load_sample(model, settings)
    assert (sample.samples, sample.available) == (9, 21)
    assert torch.cat([b.labels for b in sample.batches()]).bincount().tolist() == [3, 3, 3]


def test_files_of_single_arrays_side_by_side(tmp_path):
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y)
    source = opened(tmp_path)
    assert list(source.columns) == ["x", "y"]
    assert np.array_equal(taken(source, ["x", "y"], range(len(X)))["y"], Y)


@pytest.mark.parametrize("names", [("0", "1"), ("a_1", "a_2"), ("part-1-of-2", "part-2-of-2")])
def test_numbered_files_of_one_array_are_x(names, tmp_path):
    for name in names:
        np.save(tmp_path / f"{name}.npy", X)
    assert opened(tmp_path).columns["x"].shape == (2 * len(X), 2)


def test_names_are_sorted_as_people_count():
    names = ["s10", "s2", "s1", "a", "s2b", "10", "9"]
    assert sorted(names, key=natural) == ["9", "10", "a", "s1", "s2", "s2b", "s10"]


def write(folder: Path, **files: dict[str, object]) -> Path:
    for name, arrays in files.items():
        np.savez(folder / f"{name}.npz", **arrays)
    return folder


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a": {"x": X}, "b": {"x": X[:, :1]}},
         r"'x' is \(21, 2\) float32 in a.npz, but \(21, 1\) float32 in b.npz"),
        ({"a": {"x": X}, "b": {"x": X.astype(float)}}, r"float32 in a.npz, .* float64 in b.npz"),
        ({"a": {"x": X, "y": Y}, "b": {"x": X}},
         r"a.npz holds x \(21, 2\) float32, y \(21,\) int64, but b.npz holds x"),
        ({"a": {"x": X, "y": Y[1:]}, "b": {"x": X, "y": np.append(Y, 0)}},
         r"a.npz: has different numbers of samples: 'x' 21 and 'y' 20"),
        ({"a": {"x": X[:0]}, "b": {"x": X[:0]}}, "no samples"),
        ({}, "folder without shards"),
    ],
)  # fmt: skip
def test_shards_that_differ_are_told_with_both_shapes(files, message, tmp_path):
    model = LoadedModel("m", "f", nn.Linear(2, 3))
    with pytest.raises(DataError, match=message) as error:
        load_sample(model, DataSettings(data=str(write(tmp_path, **files))))
    assert "\n" not in str(error.value)


def test_a_broken_shard_is_not_passed_over(tmp_path):
    write(tmp_path, a={"x": X}, b={"x": X})
    (tmp_path / "b.npz").write_bytes((tmp_path / "b.npz").read_bytes()[:100])
    with pytest.raises(DataError, match=r"b\.npz"):
        opened(tmp_path)
    (tmp_path / "b.npz").write_bytes(b"")
    with pytest.raises(DataError, match=r"b\.npz: is empty"):
        opened(tmp_path)


def test_two_kinds_are_refused(tmp_path):
    write(tmp_path, a={"x": X})
    np.save(tmp_path / "b.npy", X)
    with pytest.raises(DataError, match="1 npz files and 1 npy files"):
        opened(tmp_path)

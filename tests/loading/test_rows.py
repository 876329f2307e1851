"""Whatever the file is, row i is what numpy would have read there, in any number of pieces."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from gradscope.config import DataSettings
from gradscope.errors import DataError
from gradscope.loading import numpy_rows, tensor_files
from gradscope.loading.rows import PieceReader, Source
from gradscope.loading.sources import open_source

RANDOM = np.random.default_rng(0)
ARRAYS = {
    "flat": RANDOM.normal(size=(37,)),
    "rows": RANDOM.normal(size=(37, 4)).astype(np.float32),
    "images": RANDOM.integers(0, 255, (37, 3, 5, 2)).astype(np.uint8),
    "half": RANDOM.normal(size=(37, 2)).astype(np.float16),
    "big": np.arange(37 * 2).reshape(37, 2).astype(np.uint32),
    "flags": RANDOM.integers(0, 2, (37, 3)).astype(bool),
}


def turned(arrays):
    return {n: np.asfortranarray(a) for n, a in arrays.items()}


def swapped(arrays):
    return {n: a.astype(a.dtype.newbyteorder(">")) for n, a in arrays.items()}


def save_torch(path: Path, **arrays: np.ndarray) -> None:
    tensors = {n: torch.from_numpy(a) for n, a in arrays.items() if n != "big"}
    with path.open("wb") as stream:
        torch.save(tensors | {"big": torch.from_numpy(arrays["big"].astype(np.int64))}, stream)


WRITERS: dict[str, Callable[[Path], object]] = {
    "npz": lambda p: np.savez(p, **ARRAYS),
    "npz in Fortran order": lambda p: np.savez(p, **turned(ARRAYS)),
    "npz with bytes swapped": lambda p: np.savez(p, **swapped(ARRAYS)),
    "deflated": lambda p: np.savez_compressed(p, **ARRAYS),
    "deflated in Fortran order": lambda p: np.savez_compressed(p, **turned(ARRAYS)),
    "safetensors": lambda p: save_file(ARRAYS, p, {"made": "here"}),
    "torch": lambda p: save_torch(p, **ARRAYS),
    "torch, mapped": lambda p: save_torch(p, **ARRAYS),
}


@pytest.fixture(params=list(WRITERS))
def source(request, tmp_path, monkeypatch) -> Source:
    path = tmp_path / "data.npz"
    WRITERS[request.param](path)
    monkeypatch.setattr(numpy_rows, "PIECE", 24)  # pieces of few rows
    if request.param == "torch, mapped":
        monkeypatch.setattr(tensor_files, "MAPPED", 0)
    return open_source(str(path), DataSettings())


def taken(source: Source, names, *rows) -> list[dict[str, torch.Tensor]]:
    with contextlib.closing(source.open(names)) as reader:
        return [reader.take(r) for r in rows]


def same(got: torch.Tensor, array: np.ndarray) -> bool:
    return got.shape == array.shape and np.array_equal(got.numpy(), array)


def test_what_is_there_is_known_before_it_is_read(source):
    assert {n: c.shape for n, c in source.columns.items()} == {
        n: a.shape for n, a in ARRAYS.items()
    }
    [found] = taken(source, list(ARRAYS), range(3))
    for name, tensor in found.items():
        assert tensor.dtype is source.columns[name].dtype
        assert source.columns[name].row_bytes == tensor[0].numel() * tensor.element_size()
    assert source.columns["big"].dtype is torch.int64


@pytest.mark.parametrize("cuts", [(37,), (1, 1, 35), (10, 20, 7)])
def test_consecutive_rows(source, cuts):
    ends = np.cumsum(cuts).tolist()
    parts = [range(end - count, end) for end, count in zip(ends, cuts, strict=True)]
    for part, found in zip(parts, taken(source, list(ARRAYS), *parts), strict=True):
        for name, tensor in found.items():
            assert same(tensor, ARRAYS[name][part.start : part.stop]), name


@pytest.mark.parametrize("seed", range(4))
def test_some_rows(source, seed):
    random = np.random.default_rng(seed)
    rows = np.sort(random.permutation(37)[: random.integers(2, 37)])
    parts = np.array_split(rows, 2)
    found = taken(source, ["rows", "images", "flat"], *parts)
    for part, tensors in zip(parts, found, strict=True):
        for name, tensor in tensors.items():
            assert same(tensor, ARRAYS[name][part]), name


def test_one_array_is_x(tmp_path):
    np.save(tmp_path / "one.npy", ARRAYS["rows"])
    source = open_source(str(tmp_path / "one.npy"), DataSettings())
    assert same(taken(source, ["x"], range(37))[0]["x"], ARRAYS["rows"])


@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=6),
    data=st.data(),
)
@settings(deadline=None)
def test_rows_out_of_pieces(sizes, data):
    """However the pieces are cut and however often one asks."""
    total = sum(sizes)
    whole = torch.arange(total * 2).reshape(total, 2)
    rows = sorted(data.draw(st.sets(st.integers(0, total - 1), min_size=1)))
    cut = data.draw(st.integers(0, len(rows)))
    reader = PieceReader({"x": piece} for piece in whole.split(sizes))
    parts = [np.array(part) for part in (rows[:cut], rows[cut:]) if part]
    got = torch.cat([reader.take(part)["x"] for part in parts])
    assert torch.equal(got, whole[rows])


def test_pieces_that_end_too_early():
    reader = PieceReader(iter([{"x": torch.zeros(3)}]))
    with pytest.raises(DataError, match="fewer samples"):
        reader.take(range(4))


def refused(arrays: dict[str, object], folder: Path, name: str) -> str:
    path = folder / "refused.npz"
    np.savez(path, **arrays)
    return str(open_source(str(path), DataSettings()).refused[name])


@pytest.mark.parametrize(
    ("array", "why"),
    [
        (np.array([{}], dtype=object), "Python objects"),
        (np.array(["a", "b"]), "type <U1"),
        (np.zeros(3, np.complex64), "type complex64"),
        (np.zeros(3, np.longdouble), "type float128"),
        (np.zeros(3, "datetime64[D]"), "type datetime64"),
        (np.zeros(3, [("a", "f4"), ("b", "i4")]), "type"),
        (np.float32(1), "single number"),
    ],
)
def test_an_array_that_cannot_be_run_is_refused_only_where_it_is_needed(array, why, tmp_path):
    fine = {"x": ARRAYS["rows"]}
    assert why in refused(fine | {"odd": array}, tmp_path, "odd")


def test_integers_beyond_64_bits_are_not_wrapped(tmp_path):
    array = np.full((3, 2), 2**63, np.uint64)
    np.savez(tmp_path / "a.npz", x=array)
    save_file({"x": array}, tmp_path / "a.safetensors")
    for path in (tmp_path / "a.npz", tmp_path / "a.safetensors"):
        source = open_source(str(path), DataSettings())
        with pytest.raises(DataError, match="beyond 64 bits"):
            taken(source, ["x"], range(3))


def test_a_boolean_that_is_none_is_true(tmp_path):
    array = np.array([[0, 1, 2, 255]], np.uint8)
    np.savez(tmp_path / "a.npz", x=array.view(bool))
    source = open_source(str(tmp_path / "a.npz"), DataSettings())
    [found] = taken(source, ["x"], range(1))
    assert found["x"].view(torch.uint8).tolist() == [[0, 1, 1, 1]]


def test_torch_files_of_one_tensor_a_pair_and_more(tmp_path):
    path = tmp_path / "a.pt"
    x, y = torch.randn(5, 2), torch.arange(5)
    for value, columns in (
        (x, ["x"]),
        ((x, y), ["x", "y"]),
        ([x], ["x"]),
        ({"x": x, "names": ["a", "b"], "count": 5}, ["x"]),
    ):
        torch.save(value, path)
        source = open_source(str(path), DataSettings())
        assert list(source.columns) == columns
        assert torch.equal(taken(source, ["x"], range(5))[0]["x"], x)
    assert set(source.refused) == {"names", "count"}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_sample_of_many_numbers_in_fortran_order_is_not_read_number_by_number(
    save, tmp_path, monkeypatch
):
    wide = np.asfortranarray(RANDOM.integers(0, 99, (3, 400_000)).astype(np.int16))
    save(tmp_path / "x.npz", x=wide)
    source = open_source(str(tmp_path / "x.npz"), DataSettings())
    reads = []
    columns = numpy_rows._columns

    def counted(read, *rest):
        columns(lambda count: reads.append(count) or read(count), *rest)

    monkeypatch.setattr(numpy_rows, "_columns", counted)
    reader = source.open(["x"])
    with contextlib.closing(reader):
        found = reader.take(np.array([0, 2]))["x"]
    assert np.array_equal(found.numpy(), wide[[0, 2]])
    assert sum(reads) == wide.nbytes
    assert len(reads) <= 4


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_many_samples_in_fortran_order_are_read_column_by_column(save, tmp_path, monkeypatch):
    monkeypatch.setattr(numpy_rows, "_SHORT", 8)
    tall = np.asfortranarray(RANDOM.normal(size=(50, 3, 2)))
    save(tmp_path / "x.npz", x=tall)
    reader = open_source(str(tmp_path / "x.npz"), DataSettings()).open(["x"])
    with contextlib.closing(reader):
        found = reader.take(np.array([1, 7, 8, 49]))["x"]
    assert np.array_equal(found.numpy(), tall[[1, 7, 8, 49]])

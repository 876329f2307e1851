"""Parquet: columns of numbers, vectors and texts; what cannot be run is named; bounded memory."""

from __future__ import annotations

import contextlib
import decimal
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from gradscope.config import DataSettings
from gradscope.errors import DataError, GradscopeError
from gradscope.loading import load_sample, load_validation
from gradscope.loading.sources import open_source
from gradscope.model import LoadedModel, Sample
from tests.loading.mutations import mutated


def write(folder: Path, columns: dict[str, object], name: str = "data.parquet", **options) -> Path:
    path = folder / name
    pq.write_table(pa.table(columns), path, **options)
    return path


def read(path: Path, **settings) -> dict[str, torch.Tensor]:
    source = open_source(str(path), DataSettings(**settings))
    count = next(iter(source.columns.values())).shape[0]
    reader = source.open(list(source.columns))
    found = reader.take(range(count))
    reader.close()
    for name, column in source.columns.items():
        assert (tuple(found[name].shape), found[name].dtype) == (column.shape, column.dtype)
    return found


def opened(module: nn.Module, data: Path, **settings) -> Sample:
    return load_sample(LoadedModel("m", "", module), DataSettings(data=str(data), **settings))


NUMBERS = {
    "int8": (pa.array([1, -2], pa.int8()), torch.int64),
    "uint64": (pa.array([1, 2], pa.uint64()), torch.int64),
    "half": (pa.array(np.array([1, 2], np.float16)), torch.float64),
    "double": (pa.array([1.5, 2.5]), torch.float64),
    "bool": (pa.array([True, False]), torch.int64),
    "decimal": (pa.array([decimal.Decimal("1.50"), decimal.Decimal("2.25")]), torch.float64),
    "dictionary": (pa.array([3, 4]).dictionary_encode(), torch.int64),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_of_every_type_lie_side_by_side(name, tmp_path):
    array, dtype = NUMBERS[name]
    found = read(write(tmp_path, {"a": array, "b": array, "y": [0, 1]}))
    expected = torch.tensor([[float(v)] * 2 for v in array.to_pylist()])
    assert found["x"].dtype is dtype
    assert torch.equal(found["x"].float(), expected)
    assert found["y"].tolist() == [0, 1]


VECTORS = {
    "fixed": pa.FixedSizeListArray.from_arrays(pa.array(np.arange(6.0)), 3),
    "lists": pa.array([[0.0, 1, 2], [3.0, 4, 5]]),
    "large lists": pa.array([[0.0, 1, 2], [3.0, 4, 5]], pa.large_list(pa.float64())),
    "nested": pa.array([[[0.0], [1], [2]], [[3.0], [4], [5]]]),
}


@pytest.mark.parametrize("name", VECTORS)
def test_lists_of_one_length_are_vectors(name, tmp_path):
    found = read(write(tmp_path, {"features": VECTORS[name], "label": ["b", "a"]}))
    assert torch.equal(found["features"].flatten(), torch.arange(6.0).double())
    assert found["features"].shape == ((2, 3, 1) if name == "nested" else (2, 3))
    assert found["label"].tolist() == [1, 0]


def test_vectors_and_numbers_go_to_inputs_by_name_and_texts_are_left_out(tmp_path):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.out = nn.Embedding(9, 4), nn.Linear(4, 2)

        def forward(self, input_ids, attention_mask=None, labels=None):
            return self.out((self.table(input_ids) * attention_mask[..., None]).sum(1))

    columns = {"input_ids": [[1, 2], [3, 4]], "attention_mask": [[1, 1], [1, 0]],
               "text": ["a", "b"], "label": [0, 1]}  # fmt: skip
    sample = opened(Net(), write(tmp_path, columns))
    [batch] = sample.batches()
    assert batch.kwargs["input_ids"].tolist() == [[1, 2], [3, 4]]
    assert batch.kwargs["attention_mask"].tolist() == [[1, 1], [1, 0]]
    assert batch.labels is not None
    assert any("'text' fits no input" in n for n in sample.notes)


def test_wanted_rows_over_row_groups(tmp_path):
    table = np.random.default_rng(0).normal(size=(1000, 5))
    columns = {f"c{i}": table[:, i] for i in range(5)}
    path = write(tmp_path, columns, row_group_size=64)
    source = open_source(str(path), DataSettings())
    rows = np.sort(np.random.default_rng(1).permutation(1000)[:77])
    for chosen in (rows, np.array([999]), range(60, 200)):
        reader = source.open(["x"])
        parts = [reader.take(chosen[i : i + 10])["x"] for i in range(0, len(chosen), 10)]
        reader.close()
        assert np.array_equal(torch.cat(parts).numpy(), table[chosen])


def test_the_same_numbers_as_from_csv(tmp_path):
    rng = np.random.default_rng(0)
    table, kinds = rng.normal(size=(60, 3)) * 9, [f"kind {i % 3}" for i in range(60)]
    names = ["a", "b", "c"]
    parquet = write(tmp_path, {**dict(zip(names, table.T, strict=True)), "kind": kinds})
    lines = [",".join([*map(repr, r), k]) for r, k in zip(table.tolist(), kinds, strict=True)]
    csv = tmp_path / "data.csv"
    csv.write_text("\n".join([",".join([*names, "kind"]), *lines]))
    settings = {"label_column": "kind", "standardise": True, "samples": 30}
    for one, two in zip(
        opened(nn.Linear(3, 3), parquet, **settings).batches(),
        opened(nn.Linear(3, 3), csv, **settings).batches(),
        strict=True,
    ):
        assert torch.equal(one.args[0], two.args[0])
        assert torch.equal(one.labels, two.labels)


def test_held_out_classes_are_those_of_the_data(tmp_path):
    data = write(tmp_path, {"a": [1.0, 2, 3], "y": ["u", "v", "w"]})
    val = write(tmp_path, {"a": [1.0, 2], "y": ["w", "v"]}, "val.parquet")
    settings = DataSettings(data=str(data), val=str(val))
    model = LoadedModel("m", "", nn.Linear(1, 3))
    held_out = load_validation(model, settings, load_sample(model, settings))
    assert held_out is not None
    assert next(iter(held_out.batches())).labels.tolist() == [2, 1]


def test_the_index_of_pandas_is_no_feature(tmp_path):
    path = write(tmp_path, {"a": [1.0, 2], "__index_level_0__": [7, 8]})
    assert read(path)["x"].tolist() == [[1], [2]]
    assert any("index of a pandas" in n for n in open_source(str(path), DataSettings()).notes)


IMAGE = pa.array(
    [{"bytes": b"\x89PNG", "path": "a.png"}] * 2,
    pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
)
REFUSED = {
    "null": ({"a": [1.0, None], "b": [1, 2]}, "'a' has no value in row 1"),
    "null in a list": ({"a": [[1, 2], [3, None]]}, "'a' has no value in row 1"),
    "null list": ({"a": [[1, 2], None]}, "'a' has no value in row 1"),
    "null list first": ({"a": [None, [1, 2]]}, "'a' has no value in row 0"),
    "ragged": ({"a": [[1, 2], [3]]}, "'a' has 1 values in row 1, 2 before"),
    "ragged inside": ({"a": [[[1], [2]], [[3], [4, 5]]]}, "'a' has 2 values in row 1, 1 before"),
    "text": ({"a": [1, 2], "b": ["u", "v"]}, "'b' holds texts"),
    "dates": ({"a": pa.array([1, 2], pa.date32())}, "'a' holds date32"),
    "images": ({"image": IMAGE, "label": [0, 1]}, "encoded images or sounds. Decode the images"),
    "bytes": ({"a": [b"\x89PNG", b"\x89PNG"]}, "'a' holds bytes"),
    "lists of texts": ({"a": [["u"], ["v"]]}, "lists of texts"),
    "label null": ({"a": [1.0, 2], "y": ["u", None]}, "'y' has no label in row 1"),
    "only labels": ({"y": [1, 2]}, "no features"),
    "no rows": ({"a": pa.array([], pa.int64())}, "has no rows"),
    "empty lists": ({"a": pa.array([[], []], pa.list_(pa.float64()))}, "empty array"),
    "nothing": ({"a": [[], []]}, "'a' holds null"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_line(name, tmp_path):
    columns, message = REFUSED[name]
    path = write(tmp_path, columns)
    with pytest.raises(GradscopeError) as caught:
        opened(nn.Sequential(nn.Linear(2, 2)), path)
    assert message in str(caught.value)
    assert "data.parquet" in str(caught.value)


def test_two_columns_of_one_name(tmp_path):
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"])
    pq.write_table(table, tmp_path / "data.parquet")
    with pytest.raises(DataError, match="two columns 'a'"):
        opened(nn.Linear(2, 2), tmp_path / "data.parquet")


def test_without_pyarrow_one_line_says_how_to_get_it(tmp_path, monkeypatch):
    path = write(tmp_path, {"a": [1.0, 2]})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"pip install 'gradscope-cli\[parquet\]'"):
        opened(nn.Linear(1, 2), path)


@pytest.mark.parametrize("compression", ["zstd", "gzip", "snappy"])
def test_a_bomb_takes_no_memory(compression, tmp_path):
    rows = 10_000_000
    path = write(tmp_path, {"a": np.zeros(rows)}, compression=compression, use_dictionary=False,
                 row_group_size=rows)  # fmt: skip
    usual, pool = pa.default_memory_pool(), pa.system_memory_pool()
    pa.set_memory_pool(pool)
    try:
        source = open_source(str(path), DataSettings())
        source.open(["x"]).take(np.array([5, rows - 1]))
    finally:
        pa.set_memory_pool(usual)
    assert 0 < pool.max_memory() < 30e6  # of 80


def test_a_claim_beyond_all_measure(tmp_path, monkeypatch):
    from gradscope.loading import parquet_files

    monkeypatch.setattr(parquet_files, "_BOMB", 1 << 20)
    path = write(tmp_path, {"a": np.zeros(1 << 20)}, compression="zstd", use_dictionary=False)
    with pytest.raises(DataError, match="row group 0 claims 8"):
        opened(nn.Linear(1, 2), path)


SEEDS = 300


def test_mutations_are_read_or_refused(tmp_path):
    lists = {"a": [[1.0, 2.0]] * 40, "y": ["u", "v"] * 20}
    plain = {"a": np.arange(40.0), "b": np.arange(40), "y": np.arange(40) % 2}
    forms = [write(tmp_path, c, f"{i}.parquet").read_bytes() for i, c in enumerate((lists, plain))]
    path = tmp_path / "data.parquet"
    for seed in range(SEEDS):
        path.write_bytes(mutated(forms[seed % 2], seed))
        with contextlib.suppress(GradscopeError):  # anything else is a bug
            opened(nn.Linear(2, 2), path)


def test_every_byte_of_the_footer_may_be_wrong(tmp_path):
    """Some such files end the process if their columns are looked at from Python."""
    whole = write(tmp_path, {"a": [[1.0, 2.0]] * 9}, store_schema=False).read_bytes()
    footer = int.from_bytes(whole[-8:-4], "little")
    path = tmp_path / "data.parquet"
    for at in range(len(whole) - 8 - footer, len(whole)):
        for value in (0, 2, 255):
            path.write_bytes(whole[:at] + bytes([value]) + whole[at + 1 :])
            with contextlib.suppress(GradscopeError):  # anything else is a bug
                opened(nn.Linear(2, 2), path)

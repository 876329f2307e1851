"""CSV: how it is written is found out and said, and what cannot be run is named."""

from __future__ import annotations

import contextlib
import gzip
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gradscope.config import DataSettings
from gradscope.errors import DataError, GradscopeError
from gradscope.loading import csv_files, load_sample, load_validation
from gradscope.loading.csv_files import open_csv
from gradscope.loading.csv_text import Bound, _has_header
from gradscope.loading.sources import open_source
from gradscope.loading.table import TableSource
from gradscope.model import LoadedModel, Sample
from tests.loading.mutations import mutated


def write(folder: Path, text: str | bytes, name: str = "data.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def source(path: Path, **settings) -> TableSource:
    opened = open_source(str(path), DataSettings(**settings))
    assert isinstance(opened, TableSource)
    return opened


def values(path: Path, **settings) -> dict[str, list]:
    opened = source(path, **settings)
    count = next(iter(opened.columns.values())).shape[0]
    reader = opened.open(list(opened.columns))
    return {n: t.tolist() for n, t in reader.take(range(count)).items()}


TWO = {"x": [[1.0, 2.5], [3.0, 4.0]], "y": [0, 1]}

WRITTEN = {
    "plain": "a,b,y\n1,2.5,0\n3,4,1\n",
    "semicolons": "a;b;y\n1;2.5;0\n3;4;1\n",
    "tabs": "a\tb\ty\n1\t2.5\t0\n3\t4\t1\n",
    "bars": "a|b|y\n1|2.5|0\n3|4|1\n",
    "CRLF": "a,b,y\r\n1,2.5,0\r\n3,4,1\r\n",
    "CR": "a,b,y\r1,2.5,0\r3,4,1\r",
    "no end of line": "a,b,y\n1,2.5,0\n3,4,1",
    "empty lines": "\na,b,y\n\n1,2.5,0\n  \n3,4,1\n\n,,\n",
    "spaces": "a, b, y\n1, 2.5, 0\n 3 , 4, 1\n",
    "quotes": '"a","b","y"\n"1","2.5","0"\n"3","4",1\n',
    "mark": "\ufeffa,b,y\n1,2.5,0\n3,4,1\n",
    "label first": "y,a,b\n0,1,2.5\n1,3,4\n",
    "label in capitals": "a,b,Y\n1,2.5,0\n3,4,1\n",
    "exponents": "a,b,y\n1e0,25E-1,0\n+3,4.,1\n",
    "index of pandas": ",a,b,y\n0,1,2.5,0\n1,3,4,1\n",
    "delimiter at the end": "a,b,y,\n1,2.5,0,\n3,4,1,\n",
}


@pytest.mark.parametrize("name", WRITTEN)
def test_written_in_many_ways_it_is_the_same_table(name, tmp_path):
    found = values(write(tmp_path, WRITTEN[name]))
    assert {n.lower(): v for n, v in found.items()} == TWO


def test_utf_16_and_gzip(tmp_path):
    plain = WRITTEN["plain"]
    assert values(write(tmp_path, plain.encode("utf-16"))) == TWO
    assert values(write(tmp_path, gzip.compress(plain.encode()), "a.csv.gz")) == TWO


HEADERS = {
    # text: names of the columns
    "a,b\n1,2\n": ("a", "b"),
    "1,2\n3,4\n": ("0", "1"),
    "0,1,2\n3,4,5\n": ("0", "1", "2"),  # as pandas numbers columns without a name
    "5.1,3.5,setosa\n4.9,3,virginica\n": ("0", "1", "2"),
    "length,width,kind\n5.1,3.5,setosa\n": ("length", "width", "kind"),
    "150,2,setosa,virginica\n1,2,3,4\n5,6,7,8\n": ("150", "2", "setosa", "virginica"),
    "a,a,b\n1,2,3\n": ("a", "a.1", "b"),
    "1,x,3\n4,5,6\n7,8,9\n": ("0", "1", "2"),  # one slip of the pen makes no header
    "a,b\n,2\n3,4\n": ("a", "b"),
}


@pytest.mark.parametrize("text", HEADERS)
def test_header_or_none(text, tmp_path):
    from gradscope.loading.csv_text import find_layout

    assert find_layout(write(tmp_path, text)).names == HEADERS[text]


def test_what_was_found_is_said(tmp_path):
    notes = source(write(tmp_path, WRITTEN["semicolons"])).notes
    assert "semicolon between cells, names in the first row" in notes[0]
    assert "labels are column 'y'" in notes[1]
    notes = source(write(tmp_path, "1,2\n3,4\n")).notes
    assert "no header" in notes[0]
    assert "--label-column" in notes[1]
    notes = source(write(tmp_path, WRITTEN["index of pandas"])).notes
    assert any("column 0 has no name and counts the rows: left out" in n for n in notes)


@pytest.mark.parametrize("wanted", ["2", "-1", "kind"])
def test_label_column_by_name_or_number(wanted, tmp_path):
    path = write(tmp_path, "a,y,kind\n1,5,0\n3,4,1\n")
    assert values(path, label_column=wanted) == {"x": [[1, 5], [3, 4]], "kind": [0, 1]}


def test_texts_become_classes_in_sorted_order_and_that_is_said(tmp_path):
    path = write(tmp_path, "a,label\n1,pear\n2,NA\n3,\u00e4pfel\n4,pear\n")
    assert values(path)["label"] == [1, 0, 2, 1]
    assert any("0 = NA, 1 = pear, 2 = äpfel" in n for n in source(path).notes)


def test_truth_values_are_numbers_as_features_and_classes_as_labels(tmp_path):
    path = write(tmp_path, "a,b,y\n1,True,False\n2,false,True\n")
    assert values(path) == {"x": [[1, 1], [2, 0]], "y": [0, 1]}


def test_whole_numbers_stay_whole(tmp_path):
    assert source(write(tmp_path, "a,b\n1,2\n")).columns["x"].dtype is torch.int64
    assert source(write(tmp_path, "a,b\n1,2.0\n")).columns["x"].dtype is torch.float64
    huge = write(tmp_path, f"a,b\n1,{2**70}\n")
    assert values(huge)["x"] == [[1.0, 2.0**70]]


REFUSED = {
    # text or bytes, and what the one line says
    "gap": ("a,b\n1,2\n3,\n5,6\n", "'b' has no value in 1 of 3 rows, first in line 3"),
    "NaN": ("a,b\n1,2\nNaN,3\n", "'a' has no value in 1 of 2 rows, first in line 3"),
    "text": ("a,b\n1,2\n3,four\n", "'b' holds texts, first 'four' in line 3"),
    "decimal comma": ("a;b\n1;2,5\n3;4,5\n", "decimals with a point"),
    "1_000": ("a,b\n1,2\n3,1_000\n", "holds texts"),
    "more cells": ("a,b\n1,2\n3,4,5\n", "line 3 has 3 cells, the first row has 2"),
    "fewer cells": ("a,b\n1,2\n3\n", "line 3 has 1 cells"),
    "label without value": ("a,y\n1,2\n3,\n", "'y' has no value"),
    "text label without value": ("a,y\n1,b\n3,\n", "'y' has rows without a label"),
    "only labels": ("y\n1\n2\n", "no features"),
    "only a header": ("a,b,c\n", "names of columns but no rows"),
    "empty lines only": ("\n\n\n", "has no rows"),
    "open quote": ('a,b\n1,"2\n3,4\n', "line 3: unexpected end of data"),
    "latin-1": ("a,b\n1,\xe9\n".encode("latin-1"), "UTF-8"),
    "NUL": (b"a,b\n" + b"1,2\n" * 2000 + b"1,\0\n", "line 2002 has a NUL byte"),
    "noise": (bytes(range(256)) * 50, "no data file"),
    "JSON": ('{"a": [1, 2]}\n', "no data file"),
    "cut gzip": (gzip.compress(b"a,b\n" + b"1,2\n" * 9)[:-9], "broken"),
    "gzip of noise": (gzip.compress(bytes(range(256))), "no data file"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_line(name, tmp_path):
    text, message = REFUSED[name]
    path = write(tmp_path, text)
    with pytest.raises(GradscopeError) as caught:
        opened(nn.Linear(2, 2), path)
    assert message in str(caught.value)
    assert "data.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_label_column_that_is_not_there(tmp_path):
    with pytest.raises(
        GradscopeError, match="--label-column: there is no column 'z' among 3: a, b"
    ):
        source(write(tmp_path, WRITTEN["plain"]), label_column="z")
    with pytest.raises(GradscopeError, match="--label-column"):
        source(write(tmp_path, WRITTEN["plain"]), label_column="3")


def test_rows_are_read_where_they_are_wanted(tmp_path):
    rng = np.random.default_rng(0)
    table = rng.normal(size=(3000, 7))
    text = "\n".join(",".join(map(repr, row)) for row in table.tolist())
    opened = source(write(tmp_path, text))
    rows = np.sort(rng.permutation(3000)[:500])
    reader = opened.open(["x"])
    parts = [reader.take(rows[i : i + 64])["x"] for i in range(0, 500, 64)]
    reader.close()
    assert np.array_equal(torch.cat(parts).numpy(), table[rows])


# --- Through a model -------------------------------------------------------------------------


def opened(module: nn.Module, data: Path, **settings) -> Sample:
    return load_sample(LoadedModel("m", "", module), DataSettings(data=str(data), **settings))


def inputs(sample: Sample) -> torch.Tensor:
    return torch.cat([b.args[0] for b in sample.batches()])


def labels(sample: Sample) -> list[int]:
    return torch.cat([b.labels for b in sample.batches() if b.labels is not None]).tolist()


def numbers(folder: Path, table: np.ndarray, name: str = "data.csv") -> Path:
    return write(folder, "\n".join(",".join(map(repr, r)) for r in table.tolist()), name)


@pytest.mark.parametrize("batch", [7, 512])
def test_standardised_by_the_columns_of_the_chosen_rows(batch, tmp_path):
    rng = np.random.default_rng(0)
    table = rng.normal(size=(100, 3)) * [1, 50, 0] + [1e4, 3, 7]
    sample = opened(
        nn.Linear(3, 2), numbers(tmp_path, table), standardise=True, batch_size=batch, samples=40
    )
    plain = opened(nn.Linear(3, 2).double(), numbers(tmp_path, table), samples=40)
    raw = inputs(plain).numpy()
    sd = raw.std(0)
    sd[2] = 1
    expected = (raw - raw.mean(0)) / sd
    assert np.allclose(inputs(sample).numpy(), expected, atol=1e-6)
    assert any("standardised" in n and "1 constant" in n for n in sample.notes)


def test_held_out_rows_by_the_same_mean_sd_and_classes(tmp_path):
    data = write(tmp_path, "a,y\n0,cat\n2,dog\n4,eel\n", "data.csv")
    val = write(tmp_path, "a,y\n10,eel\n12,dog\n", "val.csv")
    settings = DataSettings(data=str(data), val=str(val), standardise=True)
    model = LoadedModel("m", "", nn.Linear(1, 3))
    sample = load_sample(model, settings)
    held_out = load_validation(model, settings, sample)
    assert held_out is not None
    assert labels(held_out) == [2, 1]
    sd = np.std([0, 2, 4])
    assert torch.allclose(inputs(held_out), torch.tensor([[8 / sd], [10 / sd]]).float())
    write(tmp_path, "a,y\n10,fox\n12,dog\n", "val.csv")
    with pytest.raises(DataError, match="'fox'"):
        load_validation(model, settings, sample)


def test_unscaled_features_are_named(tmp_path):
    table = np.random.default_rng(0).normal(size=(50, 3)) * [1, 1, 200]
    text = "a,b,size\n" + "\n".join(",".join(map(repr, r)) for r in table.tolist())
    sample = opened(nn.Linear(3, 2), write(tmp_path, text))
    assert any("1 of 3 features" in n and "'size'" in n for n in sample.notes)
    assert np.allclose(inputs(sample), table, atol=1e-4)
    fine = opened(nn.Linear(3, 2), numbers(tmp_path, table / [1, 1, 200]))
    assert not any("scale" in n for n in fine.notes)


def images() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2))


def test_columns_laid_out_as_images_on_request_only(tmp_path):
    table = np.arange(48.0).reshape(3, 16)
    path = numbers(tmp_path, table)
    sample = opened(images(), path, input_shape={"": (1, 4, 4)})
    assert np.array_equal(inputs(sample), table.reshape(3, 1, 4, 4))
    assert any("laid out as 1x4x4" in n for n in sample.notes)
    with pytest.raises(DataError, match="--input-shape 1x4x4 makes images of the 16 columns"):
        opened(images(), path)
    with pytest.raises(GradscopeError, match="1x5x5 has 25 elements, a sample of 'x' is 16"):
        opened(images(), path, input_shape={"": (1, 5, 5)})
    with pytest.raises(GradscopeError, match="'z' is no input"):
        opened(images(), path, input_shape={"z": (1, 4, 4)})


@pytest.mark.parametrize("channels", [0, -1, "a", None])
def test_no_images_are_suggested_of_channels_that_are_none(channels, tmp_path):
    """A file may say anything of its layers."""
    model = images()
    next(m for m in model.modules() if isinstance(m, nn.Conv2d)).in_channels = channels
    with pytest.raises(DataError, match="does not run on it"):
        opened(model, numbers(tmp_path, np.arange(48.0).reshape(3, 16)))


def test_images_are_standardised_channel_by_channel(tmp_path):
    table = np.random.default_rng(0).normal(size=(9, 16)) * 40 + 90
    sample = opened(images(), numbers(tmp_path, table), input_shape={"": (1, 4, 4)},
                    standardise=True)  # fmt: skip
    expected = (table - table.mean()) / table.std()
    assert np.allclose(inputs(sample).flatten(1), expected, atol=1e-6)


def test_a_label_among_the_features_is_hinted_at(tmp_path):
    with pytest.raises(DataError, match="--label-column"):
        opened(nn.Sequential(nn.Linear(2, 2)), write(tmp_path, "a,b,kind\n1,2,0\n3,4,1\n"))


class Rated(nn.Module):
    """Two inputs by name."""

    def __init__(self) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(9, 4), nn.Embedding(9, 4)

    def forward(self, user, item):
        return (self.users(user) * self.items(item)).sum(1)


def test_columns_go_to_inputs_of_their_names(tmp_path):
    sample = opened(Rated(), write(tmp_path, "item,user,day,y\n1,2,3,0.5\n4,5,6,1.5\n"))
    [batch] = sample.batches()
    assert {n: t.tolist() for n, t in batch.kwargs.items()} == {"user": [2, 5], "item": [1, 4]}
    assert any("'day' fits no input" in n for n in sample.notes)


def test_standardise_where_there_is_nothing_to(tmp_path):
    with pytest.raises(GradscopeError, match="--standardise"):
        opened(Rated(), write(tmp_path, "item,user,y\n1,2,0\n"), standardise=True)
    with pytest.raises(GradscopeError, match="--standardise"):
        load_sample(
            LoadedModel("m", "", nn.Linear(2, 2)),
            DataSettings(data="no_such:thing", standardise=True),
        )


# --- Hostile ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: b"1," * 150_000 + b"1\n", "columns"),
        (lambda: b"7" * 100_000_000, "characters"),
        (lambda: gzip.compress(b"7" * 100_000_000, 1), "characters"),
        (lambda: b'a,b\n1,"' + b"7\n" * 10_000_000, "field"),
        (lambda: b"a,b\n1," + b"7" * 1_000_000 + b"\n", "field"),
    ],
    ids=["columns", "line", "line, deflated", "quoted", "field"],
)
def test_rows_beyond_all_measure_take_no_memory(make, message, tmp_path):
    path = write(tmp_path, make())
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=message):
            source(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 150e6


def test_a_bomb_takes_no_memory(tmp_path):
    row = ",".join("0" * 100) + "\n"  # 6 MB of them
    path = write(tmp_path, gzip.compress((row * 30_000).encode(), 1), "bomb.csv.gz")
    assert path.stat().st_size < 100_000
    tracemalloc.start()
    try:
        assert source(path).columns["x"].shape == (30_000, 100)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 60e6


SEEDS = 300


def test_mutations_are_read_or_refused(tmp_path):
    whole = ("a,b,y\n" + "".join(f"{i},{i / 7},{'ab'[i % 2]}\n" for i in range(30))).encode()
    forms = [whole, gzip.compress(whole), whole.decode().encode("utf-16")]
    for seed in range(SEEDS):
        path = write(tmp_path, mutated(forms[seed % len(forms)], seed))
        began = time.monotonic()
        with contextlib.suppress(GradscopeError):  # anything else is a bug
            opened(nn.Linear(2, 2), path)
        assert time.monotonic() - began < 5


def test_a_file_that_shrinks_while_it_is_read(tmp_path):
    path = write(tmp_path, "a,b\n1,2\n3,4\n")
    found = open_csv(path, DataSettings())
    write(tmp_path, "a,b\n1,2\n")
    with pytest.raises(DataError, match="fewer rows"):
        found.open(["x"]).take(range(2))


def _repeated(path: Path, block: str, times: int) -> Path:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("a,b,c,d,y\n1,2,3,4,0\n1,2,3,5,1\n")
        for _ in range(times):
            file.write(block)
    return path


MORE = {
    "rows": "9,9,9,9,2\n" * 100,
    "empty lines": "\n" * 100,
    "long rows": f"9,9,9,9,{'2' * 3000}\n",
    "rows of other lengths": "9,9\n" * 100,
}


@pytest.mark.parametrize("name", MORE)
def test_of_a_long_file_the_beginning_is_looked_at(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few bytes that are gzipped unpack to hours of reading."""
    monkeypatch.setattr(csv_files, "LOOKED_AT", Bound(rows=2, characters=40))
    path = _repeated(tmp_path / "d.csv", MORE[name], 100)
    table = open_csv(path, DataSettings(samples=2))
    assert table.columns["x"].shape == (2, 4)
    assert "samples are of its first 2 rows; --samples all reads all of it" in table.notes


def test_as_many_rows_as_are_wanted_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_files, "LOOKED_AT", Bound(rows=2))
    path = _repeated(tmp_path / "d.csv", MORE["rows"], 1)
    for samples, rows in ((2, 2), (5, 5), (102, 102), (103, 102), (None, 102)):
        table = open_csv(path, DataSettings(samples=samples))
        assert table.columns["x"].shape == (rows, 4)
        assert any("first" in n for n in table.notes[1:]) == (rows < 102)


@pytest.mark.parametrize(
    ("first", "named"), [(["a"], False), (["a", "b"], True), (["a", "1"], False)]
)
def test_a_row_that_stands_alone_names_columns_if_it_is_of_several_words(first, named):
    assert _has_header(first, []) is named

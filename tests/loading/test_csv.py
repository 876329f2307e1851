"""CSV: how it is written is found out and said, and what cannot be run is named."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gradscope.config import DataSettings
from gradscope.errors import GradscopeError
from gradscope.loading import load_sample
from gradscope.loading.csv_text import _has_header
from gradscope.loading.sources import open_source
from gradscope.loading.table import TableSource
from gradscope.model import LoadedModel, Sample


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


def opened(module: nn.Module, data: Path, **settings) -> Sample:
    return load_sample(LoadedModel("m", "", module), DataSettings(data=str(data), **settings))


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


@pytest.mark.parametrize(
    ("first", "named"), [(["a"], False), (["a", "b"], True), (["a", "1"], False)]
)
def test_a_row_that_stands_alone_names_columns_if_it_is_of_several_words(first, named):
    assert _has_header(first, []) is named

"""Hostile CSV: no memory, no time beyond a bound, and one line."""

from __future__ import annotations

import contextlib
import gzip
import time
import tracemalloc
from pathlib import Path

import pytest
from torch import nn

from gradscope.config import DataSettings
from gradscope.errors import DataError, GradscopeError
from gradscope.loading import csv_files
from gradscope.loading.csv_files import open_csv
from gradscope.loading.csv_text import Bound
from tests.loading.mutations import mutated
from tests.loading.test_csv import opened, source, write


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

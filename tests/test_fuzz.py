"""A few damaged files of every format; ``bench/fuzz.py`` opens them by the thousand."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gradscope.errors import DataError
from tests.fuzzing import jail
from tests.fuzzing.corpus import FORMATS

SEEDS = 10  # of each format: 160 files


@pytest.mark.filterwarnings("ignore")
def test_damaged_files_open_or_are_refused_in_one_line():
    cases = [form.case(kind, seed) for kind, form in FORMATS.items() for seed in range(SEEDS)]
    outcomes = list(jail.run(cases))
    assert [o for o in outcomes if o.wrong] == []
    refused = {o.kind for o in outcomes if o.status}
    assert refused == set(FORMATS)


@pytest.mark.filterwarnings("ignore")
def test_the_good_files_open():
    def case(kind: str, i: int) -> jail.Case:
        form = FORMATS[kind]

        def write(folder: Path) -> Path:
            files = form.good()[i]
            for name, content in files.items():
                (folder / name).write_bytes(content)
            return folder / next(iter(files))

        return jail.Case(kind, i, write, form.open)

    cases = [case(kind, i) for kind, form in FORMATS.items() for i in range(len(form.good()))]
    assert [o for o in jail.run(cases) if o.wrong or o.status] == []


def _hang(path: Path) -> None:
    os.kill(os.getpid(), 27)  # what the clock of processor time sends


def _two_lines(path: Path) -> None:
    error = DataError("x")
    error.__class__ = type("Odd", (DataError,), {"__str__": lambda self: "a\nb"})
    raise error


def _raise(path: Path) -> None:
    raise ValueError("no error of ours")


MISDEEDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "raises": (_raise, "ends with 70"),
    "dies": (lambda path: os.abort(), "ends with 134"),
    "takes long": (_hang, "ends with 155"),
    "writes": (lambda path: path.with_name("new").write_text("x"), "writing"),
    "changes its file": (lambda path: os.truncate(path, 0), "os.truncate"),
    "writes unheard": (lambda path: os.utime(path, (1, 1)), "a change in its folder"),
    "starts a process": (lambda path: subprocess.run(["true"], check=True), "subprocess.Popen"),
    "takes memory": (lambda path: len(b"x" * (700 << 20)), "MB"),
    "asks for too much": (lambda path: bytearray(4 << 30), "ends with 70"),
    "speaks long": (_two_lines, "more than one short line"),
}


@pytest.mark.parametrize("name", MISDEEDS)
def test_what_the_watch_sees(name: str):
    def write(folder: Path) -> Path:
        (folder / "f").write_text("x")
        return folder / "f"

    misdeed, words = MISDEEDS[name]
    wrong, fine = jail.run(
        [jail.Case("k", 0, write, misdeed), jail.Case("k", 1, write, lambda path: None)]
    )
    assert words in wrong.wrong, wrong
    assert fine.wrong == ""


def test_endless_names_are_cut_in_messages():
    error = DataError(
        f"no column {'x' * 5000}", where="/" + "d" * 500, hint="--label-column " + "y" * 900
    )
    assert "x" * 60 + "..." + "x" * 60 in str(error)
    assert len(str(error)) < 900
    assert "d" * 500 in str(error), "a path is the user's own, and is told whole"

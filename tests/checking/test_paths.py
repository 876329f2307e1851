"""Which files are meant."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gradscope.checking import local, matches, model_files
from gradscope.errors import OptionError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Some models, among them one whose name is a pattern."""
    for name in ("b.pt", "a.pt", "c.onnx", "[a].pt", "deep/er/d.pt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("patterns", "found"),
    [
        (["*.pt"], ["[a].pt", "a.pt", "b.pt"]),
        (["b.pt", "*.pt"], ["b.pt", "[a].pt", "a.pt"]),
        (["./a.pt", "a.pt"], ["a.pt"]),
        (["[a].pt"], ["[a].pt"]),
        (["**/*.pt"], ["[a].pt", "a.pt", "b.pt", "deep/er/d.pt"]),
        (["gone.pt", "c.*"], ["gone.pt", "c.onnx"]),
    ],
)
def test_globs_are_expanded_and_each_file_counts_once(patterns, found):
    assert list(model_files(patterns)) == found


@pytest.mark.parametrize("pattern", ["*.bin", "deep/*", "deep/[xy]/*.pt"])
def test_a_glob_that_matches_no_file_is_an_error(pattern):
    with pytest.raises(OptionError, match="no file matches"):
        model_files(["a.pt", pattern])


def test_a_path_below_the_working_directory_names_no_machine(folder: Path):
    assert local(str(folder / "deep" / "x.pt")) == "deep/x.pt"
    assert local(str(folder.parent / "x.pt")) == str(folder.parent / "x.pt")
    assert local("./a.pt") == "a.pt"
    # Where `link` is a link, `link/../a.pt` is no neighbour of it.
    assert local("link/../a.pt") == "link/../a.pt"
    assert local(str(folder / "link" / ".." / "a.pt")) == str(folder / "link" / ".." / "a.pt")
    assert matches("deep/er/d.pt", str(folder / "**" / "*.pt"))
    assert matches("gone.pt", "gone.pt")
    assert not matches("a.pt", "deep/*.pt")


def test_a_working_directory_that_is_gone_names_nothing(folder: Path):
    inner = folder / "gone"
    inner.mkdir()
    os.chdir(inner)
    inner.rmdir()
    assert local(str(folder / "a.pt")) == str(folder / "a.pt")

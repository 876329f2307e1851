"""Broken and hostile ONNX files, and data that do not fit: one line and status 2 (3 where the model
loads and nothing can be measured); never a traceback, never the end of the process, never more
memory or time than a small machine has."""

from __future__ import annotations

import contextlib
import io
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from gradscope.cli.main import main
from gradscope.config import LoadSettings
from gradscope.errors import GradscopeError
from gradscope.loading import load_model
from tests.loading.onnx.broken import GOOD, NODE, Told, beside, damaged, forged, in_a_child, plain
from tests.loading.onnx.graphs import model, saved
from tests.loading.onnx.hostile_models import BOMBS, EXTERNAL, GRAPHS

SEEDS = 70  # of each kind of damage, for each of three models: 210 cut or with flipped bits
REFUSED, UNMEASURED = 2, 3


def command(*arguments: str) -> tuple[int, str]:
    """Status, and what is written to stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(list(arguments))
    return status, err.getvalue()


def opened(path: Path) -> tuple[int, str]:
    """The same of the loader alone."""
    try:
        load_model(str(path), LoadSettings())
    except GradscopeError as error:
        return error.exit_status, str(error)
    return 0, ""


def both(path: Path) -> list[Callable[[], tuple[int, str]]]:
    return [lambda: opened(path), lambda: command("inspect", str(path))]


def told(path: Path, *arguments: str) -> Told:
    (only,) = in_a_child([lambda: command("inspect", str(path), *arguments)])
    return only


def check(said: Told, statuses: Sequence[int], name: str) -> None:
    assert said.status in statuses, (name, said)
    if said.status:
        assert len(said.text.strip().splitlines()) == 1, (name, said)
        assert "internal error" not in said.text, (name, said)
        assert "Traceback" not in said.text, (name, said)


@pytest.mark.parametrize("kind", GOOD)
@pytest.mark.parametrize("damage", [damaged, forged], ids=["bits", "fields"])
def test_damaged_files(tmp_path: Path, kind: str, damage: Callable[[bytes, int], bytes]) -> None:
    jobs, names = [], []
    for seed in range(SEEDS):
        folder = tmp_path / str(seed)
        folder.mkdir()
        path = GOOD[kind](folder)
        target = (
            folder / "weights.bin"
            if damage is damaged and kind == "beside" and seed % 3 == 0
            else path
        )
        target.write_bytes(damage(target.read_bytes(), seed))
        jobs += both(path)
        names += [f"{kind} {seed}"] * 2
    statuses = Counter[int]()
    for name, said in zip(names, in_a_child(jobs), strict=True):
        check(said, (0, REFUSED, UNMEASURED), name)
        statuses[said.status] += 1
    assert statuses[REFUSED] > SEEDS / 2


@pytest.mark.parametrize("name", EXTERNAL)
def test_external_data(tmp_path: Path, name: str) -> None:
    build, words = EXTERNAL[name]
    path = build(tmp_path)
    for said in in_a_child(both(path)):
        check(said, (REFUSED,), name)
        assert re.search(words, said.text), said
        assert len(said.text) < 400


def test_external_data_in_a_file_whose_name_is_not_utf_8(tmp_path: Path) -> None:
    path = beside(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"weights.bin", b"weights.b\xffn"))
    for said in in_a_child(both(path)):
        check(said, (REFUSED,), "not UTF-8")
        assert "'w' lies in a file whose name is not UTF-8" in said.text, said


def test_external_data_in_a_folder_below(tmp_path: Path) -> None:
    path = beside(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "weights.bin").rename(tmp_path / "sub" / "w")
    (tmp_path / "weights.bin").symlink_to(tmp_path / "sub" / "w")
    assert opened(path) == (0, "")


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs(tmp_path: Path, name: str) -> None:
    proto, words = GRAPHS[name]
    said = told(Path(saved(proto, tmp_path)))
    check(said, (REFUSED,), name)
    assert re.search(words, said.text), said


MADE_UP = ("ConstantOfShape, 12 GB", "MatMul of two long vectors", "Loop, 10^15 times")
GROWING = [(name, True) for name in BOMBS] + [(name, False) for name in MADE_UP]


_SAID = r"asks for a tensor|allocate memory|more than \d\S* (times|nodes|operations)|goes through"


@pytest.mark.parametrize(("name", "data"), GROWING)
def test_sizes_that_only_show_when_it_runs(tmp_path: Path, name: str, data: bool) -> None:
    proto = BOMBS[name]
    path = saved(proto, tmp_path)
    sizes = [d.dim_value or 2 for d in proto.graph.input[0].type.tensor_type.shape.dim]
    np.save(tmp_path / "x.npy", np.ones(sizes, np.float32))
    said = told(Path(path), *(["--data", str(tmp_path / "x.npy")] if data else []))
    check(said, (REFUSED,), name)
    assert re.search(_SAID, said.text), said


DATA: dict[str, tuple[dict[str, np.ndarray], str]] = {
    "another name": ({"wrong": np.ones((3, 4, 2), np.float32), "z": np.ones(3)}, "wrong"),
    "one input missing": ({"a": np.ones((3, 4), np.float32)}, "'b'"),
    "another size": (
        {"a": np.ones((3, 5), np.float32), "b": np.ones((3, 4), np.float32)}, "'a'"
    ),
    "another rank": (
        {"a": np.ones((3, 4, 1), np.float32), "b": np.ones((3, 4), np.float32)}, "'a'"
    ),
    "text": ({"a": np.array([["u"] * 4] * 3), "b": np.ones((3, 4), np.float32)}, "a"),
    "complex numbers": (
        {"a": np.ones((3, 4), np.complex64), "b": np.ones((3, 4), np.float32)}, "a"
    ),
    "different numbers of samples": (
        {"a": np.ones((3, 4), np.float32), "b": np.ones((2, 4), np.float32)}, "samples"
    ),
    "no samples": ({"a": np.ones((0, 4), np.float32), "b": np.ones((0, 4), np.float32)}, "0|no "),
}  # fmt: skip


@pytest.mark.parametrize("name", DATA)
def test_data_that_does_not_fit(tmp_path: Path, name: str) -> None:
    nodes = [NODE("Add", ["a", "b"], ["s"]), NODE("MatMul", ["s", "w"], ["y"])]
    weights = {"w": np.ones((4, 2), np.float32)}
    proto = model(nodes, {"a": ["n", 4], "b": ["n", 4]}, {"y": ["n", 2]}, weights)
    arrays, words = DATA[name]
    np.savez(tmp_path / "x.npz", **arrays)
    said = told(Path(saved(proto, tmp_path)), "--data", str(tmp_path / "x.npz"))
    check(said, (REFUSED,), name)
    assert re.search(words, said.text), said


def test_nothing_to_measure(tmp_path: Path) -> None:
    nodes = [NODE("MatMul", ["x", "w"], ["h"]), NODE("ArgMax", ["h"], ["y"], axis=1, keepdims=0)]
    weights = {"w": np.ones((4, 2), np.float32)}
    proto = model(nodes, {"x": ["n", 4]}, {"y": ["n"]}, weights, types={"y": 7})
    said = told(Path(saved(proto, tmp_path)))
    check(said, (UNMEASURED,), "integers alone")
    assert "no output of the model can receive a gradient" in said.text


def test_the_good_ones_are_good(tmp_path: Path) -> None:
    for name, build in GOOD.items():
        folder = tmp_path / name
        folder.mkdir()
        assert told(build(folder)).status == 0


def test_no_file_is_changed(tmp_path: Path) -> None:
    path = plain(tmp_path)
    before = path.read_bytes()
    told(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]

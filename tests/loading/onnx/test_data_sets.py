"""``--data FOLDER`` with ``test_data_set_N/input_K.pb`` in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper

from gradscope.config import DataSettings, Settings
from gradscope.errors import DataError
from gradscope.pipeline import inspect
from tests.loading.onnx.graphs import model, saved

W = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)


def graph(tmp_path: Path) -> str:
    nodes = [
        helper.make_node("Mul", ["x", "gain"], ["s"]),
        helper.make_node("MatMul", ["s", "w"], ["h"]),
        helper.make_node("Tanh", ["h"], ["y"]),
    ]
    inputs = {"x": ["n", 4], "gain": []}
    return saved(model(nodes, inputs, {"y": ["n", 4]}, {"w": W}), tmp_path)


def data_set(folder: Path, *arrays: np.ndarray, names: tuple[str, ...] = ("x", "gain")) -> None:
    folder.mkdir(parents=True)
    for k, (array, name) in enumerate(zip(arrays, names, strict=True)):
        proto = numpy_helper.from_array(array, name)
        (folder / f"input_{k}.pb").write_bytes(proto.SerializeToString())
    (folder / "output_0.pb").write_bytes(numpy_helper.from_array(arrays[0]).SerializeToString())


def x(n: int) -> np.ndarray:
    return np.random.default_rng(n).normal(size=(n, 4)).astype(np.float32)


def run(tmp_path: Path, data: str):  # type: ignore[no-untyped-def]
    return inspect(Settings(graph(tmp_path), data=DataSettings(data=str(tmp_path / data))))


def test_one_folder(tmp_path: Path) -> None:
    data_set(tmp_path / "test_data_set_0", x(5), np.float32(2))
    found = run(tmp_path, "test_data_set_0").measurements
    assert found.sample.samples == 5
    wanted = np.sqrt(np.mean((2 * x(5) @ W) ** 2))
    assert found.sites[0].pre_activation_rms == pytest.approx(wanted, rel=1e-5)
    assert any("expected outputs were left out" in note for note in found.sample.notes)


def test_all_folders_are_joined(tmp_path: Path) -> None:
    for i, n in enumerate((3, 4)):
        data_set(tmp_path / f"sets/test_data_set_{i}", x(n), np.float32(2))
    assert run(tmp_path, "sets").measurements.sample.samples == 7


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ([(x(3), np.float32(2)), (x(3), np.float32(3))], "differ in the number 'gain'"),
        ([(x(3), np.float32(2)), (np.ones((2, 5), "f4"), np.float32(2))], "cannot be joined"),
    ],
)
def test_sets_that_do_not_join(tmp_path: Path, arrays: list, message: str) -> None:  # type: ignore[type-arg]
    for i, pair in enumerate(arrays):
        data_set(tmp_path / f"sets/test_data_set_{i}", *pair)
    with pytest.raises(DataError, match=message):
        run(tmp_path, "sets")


def test_broken_file(tmp_path: Path) -> None:
    data_set(tmp_path / "test_data_set_0", x(3), np.float32(2))
    (tmp_path / "test_data_set_0/input_0.pb").write_bytes(b"\x08\xff no tensor")
    with pytest.raises(DataError, match=r"input_0.pb"):
        run(tmp_path, "test_data_set_0")

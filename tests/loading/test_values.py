"""Arguments of forward that are no tensors: asked for by name, given by an option."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from gradscope.cli.main import main
from gradscope.cli.options import parse_input_values
from gradscope.errors import OptionError

CODE = """
import torch
from torch import Tensor, nn


class Voice(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.out = nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(5, 1)

    def forward(self, x: Tensor, sr: int, gain: float = 1.0):
        if sr != 16000 and sr != 8000:
            raise ValueError("8000 or 16000, please")
        h = torch.tanh(self.two(torch.tanh(self.one(x * gain))))
        return self.out(h)


class Between(Voice):
    def forward(self, rate, x, more):
        return super().forward(x + more, rate)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "voice.py").write_text(CODE)
    space: dict[str, type[nn.Module]] = {"__name__": "voice_code"}
    exec(CODE, space)
    torch.manual_seed(0)
    voice = space["Voice"]()
    torch.save(voice.state_dict(), tmp_path / "voice.pt")
    x = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    np.savez(tmp_path / "two.npz", x=x, more=x)
    return tmp_path


def _said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main(["inspect", *words])
    out, err = capsys.readouterr()
    return status, out, err


def _arguments(folder: Path, name: str, data: str | None) -> list[str]:
    more = [] if data is None else ["--data", str(folder / data)]
    return [str(folder / "voice.pt"), "--arch", f"{folder}/voice.py:{name}", *more]


@pytest.mark.parametrize("data", ["x.npz", None])
def test_the_refusal_prints_the_option(folder: Path, data, capsys) -> None:
    status, _, err = _said(capsys, *_arguments(folder, "Voice", data))
    assert status == 2
    assert len(err.splitlines()) == 1
    assert err.strip().endswith("is given as --input-value sr=VALUE.")


@pytest.mark.parametrize(
    ("name", "data", "values"),
    [
        ("Voice", "x.npz", ["sr=16000"]),
        ("Voice", None, ["sr=8000", "gain=0.5"]),
        ("Between", "two.npz", ["rate=16000"]),
    ],
)
def test_what_is_given_runs(folder: Path, name: str, data, values, capsys) -> None:
    options = [w for v in values for w in ("--input-value", v)]
    status, out, err = _said(capsys, *_arguments(folder, name, data), *options)
    assert (status, err) == (0, "")
    assert "gradients of 2 of 2 activations, 6 of 6 parameters" in out
    assert all(f"--input-value {v}" in out for v in values)  # in the commands that it prints


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_script(folder: Path, capsys) -> None:
    class Scripted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(6, 2)

        def forward(self, sr: int, x: Tensor) -> Tensor:
            return torch.tanh(self.one(x)) if sr == 16000 else x

    path = folder / "voice.jit"
    torch.jit.save(torch.jit.script(Scripted()), path)
    words = [str(path), "--data", str(folder / "x.npz")]
    assert _said(capsys, *words)[2].strip().endswith("--input-value sr=VALUE.")
    status, out, _ = _said(capsys, *words, "--input-value", "sr=16000")
    assert status == 0
    assert "2 of 2 parameters" in out


def test_a_graph(tmp_path: Path, capsys) -> None:
    """Its numbers are tensors without axes."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Tanh", ["m"], ["t"]),
             helper.make_node("Mul", ["t", "g"], ["y"])]  # fmt: skip
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [info("x", TensorProto.FLOAT, ["n", 6]), info("g", TensorProto.FLOAT, [])],
        [info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(np.ones((6, 3), np.float32), "w")],
    )  # fmt: skip
    path = str(tmp_path / "m.onnx")
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    np.savez(tmp_path / "x.npz", x=np.ones((4, 6), np.float32) * 0.1)
    words = [path, "--data", str(tmp_path / "x.npz")]
    assert "--input-value g=NUMBER" in _said(capsys, *words)[2]
    assert _said(capsys, *words, "--input-value", "g=2.5")[0] == 0
    assert "no single number" in _said(capsys, *words, "--input-value", "x=1")[2]


@pytest.mark.parametrize(
    ("option", "words"),
    [("rate=1", "the model takes no 'rate'. It takes: x, sr, gain"), ("sr=7", "8000 or 16000")],
)
def test_what_does_not_fit(folder: Path, option: str, words: str, capsys) -> None:
    arguments = _arguments(folder, "Voice", "x.npz")
    status, _, err = _said(capsys, *arguments, "--input-value", option)
    assert status == 2
    assert words in err


def test_weights_alone_take_nothing(folder: Path, capsys) -> None:
    status, _, err = _said(capsys, str(folder / "voice.pt"), "--input-value", "sr=1")
    assert (status, "--arch" in err) == (2, True)


def test_values_are_read_as_json_or_as_words() -> None:
    texts = ["a=1", "b=0.5", "c=true", "d=null", "e=mean", "f=[1]", "g="]
    assert parse_input_values(texts) == {
        "a": 1, "b": 0.5, "c": True, "d": None, "e": "mean", "f": "[1]", "g": "",
    }  # fmt: skip


@pytest.mark.parametrize("texts", [["16000"], ["=1"], ["a b=1"], ["a=1", "a=2"]])
def test_values_that_make_no_sense(texts: list[str]) -> None:
    with pytest.raises(OptionError):
        parse_input_values(texts)

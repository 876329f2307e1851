"""Logistic units to tanh: the same function, in the file's own form, or a reason why not."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from gradscope.cli.main import main

SAMPLES = Path(__file__).parent.parent.parent / "sample_models"
sys.path.insert(0, str(SAMPLES))
import build  # noqa: E402

DATA = build.digits()
X, Y = DATA.val
DIGITS = ["--data", str(SAMPLES / "digits.npz"), "--val", str(SAMPLES / "digits_val.npz")]


def deep() -> nn.Module:
    torch.manual_seed(0)
    module = build.xavier(build.mlp(4, 24, nn.Sigmoid)).eval()
    return build.each(module, lambda p: p.add_(0.01 * torch.randn(p.shape)))


def convolutions(padding: int) -> nn.Module:
    torch.manual_seed(0)
    side = 8 if padding else 4
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 8, 3, padding=padding), nn.Sigmoid(),
        nn.Conv2d(8, 8, 3, padding=padding), nn.Sigmoid(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(8 * (side // 2) ** 2, 10),
    )  # fmt: skip


def fix(capsys, model: Path, out: Path, *more: str) -> tuple[int, dict, str]:
    arguments = ["fix", str(model), *DIGITS, "--out", str(out), "--format", "json", *more]
    status = main(arguments)
    said = capsys.readouterr()
    return status, json.loads(said.out) if said.out else {}, said.err


def saved(module: nn.Module, form: str, folder: Path) -> Path:
    path = folder / f"model.{form}"
    if form == "pt":
        torch.save(module, path)
    elif form == "pt2":
        batch = torch.export.Dim("batch", min=1, max=4096)
        torch.export.save(torch.export.export(module, (X[:4],), dynamic_shapes=({0: batch},)), path)
    elif form == "onnx":
        torch.onnx.export(
            module, (X[:2],), str(path), dynamo=False, input_names=["x"],
            dynamic_axes={"x": {0: "n"}},
        )  # fmt: skip
    else:
        torch.jit.script(module).save(path)
    return path


def plainly(path: Path) -> np.ndarray:
    """Scores by the runtime that the file is for, without gradscope."""
    if path.suffix == ".onnx":
        onnx.checker.check_model(str(path), full_check=True)
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return session.run(None, {"x": X.numpy()})[0]
    if path.suffix == ".pt2":
        module = torch.export.load(path).module()
    else:
        module = torch.load(path, weights_only=False)
    with torch.no_grad():
        return module(X).numpy()


def operators(path: Path) -> str:
    if path.suffix == ".onnx":
        return " ".join(n.op_type for n in onnx.load(path).graph.node)
    if path.suffix == ".pt2":
        nodes = torch.export.load(path).graph_module.graph.nodes
        return " ".join(str(n.target) for n in nodes)
    return str(torch.load(path, weights_only=False))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["pt", "pt2", "onnx"])
def test_exact_and_exchanged_in_the_file(tmp_path, capsys, form):
    path, out = saved(deep(), form, tmp_path), tmp_path / f"fixed.{form}"
    status, report, _ = fix(capsys, path, out, "--method", "tanh", "--epochs", "12")
    assert status == 0
    before, converted, tuned = report["stages"]
    assert converted["score"] == before["score"]
    assert converted["drift"] < 1e-5
    assert "4 logistic activations to tanh" in converted["said"][0]
    found = (plainly(out).argmax(axis=1) == Y.numpy()).mean()
    assert found == pytest.approx(tuned["score"])
    assert "igmoid" in operators(path)
    assert "igmoid" not in operators(out)


@pytest.mark.parametrize("padding", [0, 1])
def test_padding_would_see_another_offset(tmp_path, capsys, padding):
    path, out = saved(convolutions(padding), "pt", tmp_path), tmp_path / "fixed.pt"
    status, report, error = fix(capsys, path, out, "--method", "tanh", "--epochs", "1")
    if padding:
        assert status == 2
        assert "the outputs would change" in error
    else:
        assert report["stages"][1]["drift"] < 1e-5


class Functional(nn.Sequential):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self[1](torch.sigmoid(self[0](x)))


def functional() -> nn.Module:
    return Functional(nn.Linear(64, 8), nn.Linear(8, 10))


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize(
    ("make", "form", "more", "said"),
    [
        (deep, "ts", [], "a script's code is not rewritten"),
        (functional, "pt", ["--trust-model"], "called by the code of the architecture"),
        (
            lambda: nn.Sequential(nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 10), nn.Sigmoid()),
            "pt",
            [],
            "is not hidden but output",
        ),
        (
            lambda: nn.Sequential(nn.Linear(64, 8), nn.Sigmoid(), nn.Linear(8, 10, bias=False)),
            "pt",
            [],
            "has no bias to take",
        ),
        (lambda: build.mlp(1, 8, nn.Tanh), "pt", [], "there is no logistic activation"),
    ],
)
def test_what_cannot_be_exchanged_is_named(tmp_path, capsys, make, form, more, said):
    path = saved(make(), form, tmp_path)
    status, _, error = fix(capsys, path, tmp_path / "out", "--method", "tanh", *more)
    assert (status, error.count("\n")) == (2, 1)
    assert said in error
    assert not (tmp_path / "out").exists()


def test_a_state_dict_holds_no_activations(tmp_path, capsys):
    path, code = tmp_path / "state.pt", tmp_path / "net.py"
    torch.save(deep().state_dict(), path)
    code.write_text(
        "from torch import nn\n"
        "def net():\n"
        "    layers = []\n"
        "    for i in range(4):\n"
        "        layers += [nn.Linear(24 if i else 64, 24), nn.Sigmoid()]\n"
        "    return nn.Sequential(*layers, nn.Linear(24, 10))\n"
    )
    more = ["--arch", f"{code}:net"]
    status, _, error = fix(capsys, path, tmp_path / "out", *more, "--method", "tanh")
    assert status == 2
    assert "activations stand in the architecture's code" in error
    status, report, _ = fix(capsys, path, tmp_path / "out", *more, "--epochs", "15")
    if "tanh" in [p["remedy"] for p in report["plan"]]:
        assert "logistic activations stay" in " ".join(report["stages"][1]["said"])


def test_the_default_converts_first(tmp_path, capsys):
    """Reference: converted + polar or a restart, at least .95."""
    out = tmp_path / "fixed.pt"
    status, report, _ = fix(capsys, SAMPLES / "logistic.pt", out, "--epochs", "20")
    assert (status, report["plan"][0]["remedy"]) == (0, "tanh")
    assert "Sigmoid" not in operators(out)
    assert (plainly(out).argmax(axis=1) == Y.numpy()).mean() >= 0.95

"""``gradscope fix`` on recurrent networks: one repair, also in ONNX, which names no gates."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from gradscope.cli.main import main
from gradscope.config import LoadSettings
from gradscope.loading import load_model
from gradscope.repair.recurrent import find_parts
from gradscope.repair.restarting import Restart
from tests.repair.test_forms import case_of
from tests.repair.test_more_remedies import DATA


class Net(nn.Module):
    """A recurrent layer and a readout of its last output."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.rnn = kind(8, 32, batch_first=True)
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0][:, -1])


def saturated(kind: type[nn.RNNBase]) -> nn.Module:
    """All weights large, so that every gate is shut or open."""
    torch.manual_seed(0)
    module = Net(kind).eval()
    with torch.no_grad():
        for p in module.parameters():
            p.mul_(8)  # beyond 15 rounding decides, and parity with onnxruntime is lost
    return module


def rows(x: torch.Tensor) -> torch.Tensor:
    """Digits as sequences of their eight rows."""
    return x.reshape(-1, 8, 8)


def exported(module: nn.Module, path: Path) -> Path:
    torch.onnx.export(
        module, (rows(DATA.val[0][:2]),), str(path), dynamo=False, input_names=["x"],
        output_names=["scores"], dynamic_axes={"x": {0: "n"}, "scores": {0: "n"}},
    )  # fmt: skip
    return path


def scripted(module: nn.Module, path: Path) -> Path:
    torch.jit.script(module).save(path)
    return path


def scored(path: Path) -> float:
    """Accuracy by a plain reader of the format."""
    x, y = rows(DATA.val[0]), DATA.val[1]
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        scores = torch.from_numpy(session.run(["scores"], {"x": x.numpy()})[0])
    else:
        with torch.no_grad():
            scores = torch.jit.load(path)(x)
    return float((scores.argmax(dim=1) == y).double().mean())


@pytest.mark.filterwarnings("ignore")  # torch's, as it scripts and exports
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_remedies_do_in_onnx_what_they_do_in_torch(tmp_path, capsys, kind):
    sets = {"train": DATA.train, "val": DATA.val}
    for name, (x, y) in sets.items():
        np.savez(tmp_path / f"{name}.npz", X=rows(x).numpy(), y=y.numpy())
    module = saturated(kind)
    files = [scripted(module, tmp_path / "model.ts"), exported(module, tmp_path / "model.onnx")]
    races, ends = [], []
    for path in files:
        out = path.with_stem("fixed")
        status = main(["fix", str(path), "--data", str(tmp_path / "train.npz"), "--val",
                       str(tmp_path / "val.npz"), "--out", str(out), "--epochs", "10",
                       "--format", "json"])  # fmt: skip
        report = json.loads(capsys.readouterr().out)
        assert status == 0
        races.append({c["remedy"]: c for c in report["race"]})
        ends.append(scored(out))
        assert ends[-1] == pytest.approx(report["stages"][-1]["score"])
    one, other = races
    assert list(one) == list(other)
    assert one["kappa-gates"]["reason"] is None
    for name, contestant in one.items():
        for key in ("right_after", "best"):
            assert other[name][key] == pytest.approx(contestant[key], abs=0.03)
    assert ends[1] == pytest.approx(ends[0], abs=0.05)
    assert min(ends) > 0.85


CELLS = (nn.LSTM, nn.GRU, nn.RNN)


@pytest.mark.filterwarnings("ignore")  # torch's, as it exports
@pytest.mark.parametrize("kind", CELLS)
def test_sizes_of_weights_are_those_of_torch_in_onnx(tmp_path, capsys, kind):
    """Input and state are added up, so the input's weights are held against the wider of both."""
    module, ratios = saturated(kind), []
    x = rows(DATA.val[0][:32]).numpy()
    np.savez(tmp_path / "x.npz", x=x)
    for path in (scripted(module, tmp_path / "m.ts"), exported(module, tmp_path / "m.onnx")):
        words = ["inspect", str(path), "--data", str(tmp_path / "x.npz"), "--format", "json"]
        assert main(words) == 0
        report = json.loads(capsys.readouterr().out)
        ratios.append([p["weight"]["init_ratio"] for p in report["parameters"]
                       if len(p["shape"]) == 2])  # fmt: skip
    assert ratios[0] == pytest.approx(ratios[1], rel=1e-4)


class Flat(Net):
    """Takes whole digits."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.reshape(-1, 8, 8))


@pytest.mark.filterwarnings("ignore")  # torch's, as it exports
@pytest.mark.parametrize("kind", CELLS)
def test_a_layer_of_onnx_starts_again_as_one_of_torch(tmp_path, kind):
    torch.onnx.export(
        Flat(kind).eval(), (DATA.val[0][:2],), str(tmp_path / "m.onnx"), dynamo=False,
        input_names=["x"], dynamic_axes={"x": {0: "n"}},
    )  # fmt: skip
    case = case_of(load_model(str(tmp_path / "m.onnx"), LoadSettings()))
    changed = Restart().apply(case).changed
    (part,) = find_parts(case)
    w_ih, w_hh, b_ih, b_hh = part.read(lambda name: changed[name])
    assert part.onnx
    assert float(w_ih.square().mean()) == pytest.approx(1 / 8, rel=1e-4)
    for block in w_hh.split(32):
        assert torch.allclose(block @ block.T, torch.eye(32), atol=1e-5)
    if kind is nn.RNN:
        assert torch.equal(w_hh, torch.eye(32))
    forget = b_ih[32:64].clone() if kind is nn.LSTM else torch.ones(32)
    b_ih[32:64] = 0.0
    assert torch.equal(forget, torch.ones(32))
    assert not b_ih.any()
    assert not b_hh.any()


class Turned(nn.Module):
    """Products with matrices that hold a unit's weights in a column, a norm whose numbers have no
    names, and a slope that is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.randn(64, 16))
        self.norm, self.act = nn.LayerNorm(16), nn.PReLU()
        self.b = nn.Parameter(torch.randn(16, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.norm(x @ self.a)) @ self.b


@pytest.mark.filterwarnings("ignore")  # torch's, as it exports
def test_what_onnx_turns_or_does_not_name_starts_sanely(tmp_path):
    path = str(tmp_path / "m.onnx")
    torch.onnx.export(Turned().eval(), (DATA.val[0][:2],), path, dynamo=False, opset_version=17,
                      input_names=["x"], dynamic_axes={"x": {0: "n"}})  # fmt: skip
    graph = onnx.load(path)
    new = {n: f"v{i}" for i, n in enumerate(t.name for t in graph.graph.initializer)}
    for tensor in graph.graph.initializer:
        tensor.name = new[tensor.name]
    for node in graph.graph.node:
        node.input[:] = [new.get(n, n) for n in node.input]
    onnx.save(graph, path)
    case = case_of(load_model(path, LoadSettings()))
    changed = Restart().apply(case).changed
    sizes = {tuple(t.shape): float(t.square().mean().sqrt()) for t in changed.values()}
    assert sizes[64, 16] == pytest.approx(64**-0.5, rel=1e-4)
    assert sizes[16, 10] == pytest.approx(16**-0.5, rel=1e-4)
    vectors = [t for t in changed.values() if t.shape == (16,)]
    assert [float(t.mean()) for t in vectors] == [1.0, 0.0]

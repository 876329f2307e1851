"""A repaired model is written in the form in which it came, with all the rest of its file."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.test_fix import DATA, DIGITS, SAMPLES, accuracy, run

ARCH = """
import torch
from torch import nn
def net():
    layers = []
    for i in range(3):
        layers += [nn.Linear(64 if i == 0 else 32, 32), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(32, 10))
"""


def saturated_state() -> dict[str, torch.Tensor]:
    module = torch.load(SAMPLES / "saturated_tanh.pt", weights_only=False)
    return module.state_dict()


def net(folder: Path) -> str:
    path = folder / "net.py"
    path.write_text(ARCH)
    return f"{path}:net"


@pytest.mark.parametrize("legacy", [False, True])
def test_a_nested_checkpoint_keeps_all_the_rest(tmp_path, capsys, legacy):
    state = saturated_state()
    whole = {
        "epoch": 7,
        "model": {f"module.{k}": v for k, v in state.items()},
        "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]},
        "args": {"name": "run-1"},
    }
    path, out = tmp_path / "last.pt", tmp_path / "fixed.pt"
    torch.save(whole, path, _use_new_zipfile_serialization=not legacy)
    arch = ["--arch", net(tmp_path)]
    status, _ = run(capsys, str(path), *DIGITS, *arch, "--out", str(out), "--epochs", "4")
    assert status == 0
    found = torch.load(out)
    assert list(found) == list(whole)
    assert (found["epoch"], found["args"]) == (7, {"name": "run-1"})
    assert torch.equal(found["optimizer"]["state"][0]["exp_avg"], torch.ones(3))
    assert list(found["model"]) == list(whole["model"])
    module = torch.load(SAMPLES / "saturated_tanh.pt", weights_only=False)
    module.load_state_dict({k.removeprefix("module."): v for k, v in found["model"].items()})
    assert accuracy(module) > 0.9


def test_safetensors_keep_their_metadata(tmp_path, capsys):
    path, out = tmp_path / "model.safetensors", tmp_path / "fixed.safetensors"
    save_file(saturated_state(), path, metadata={"made": "by hand"})
    arch = ["--arch", net(tmp_path)]
    status, _ = run(capsys, str(path), *DIGITS, *arch, "--out", str(out), "--epochs", "4")
    assert status == 0
    with safe_open(out, framework="pt") as archive:
        assert archive.metadata() == {"made": "by hand"}
    module = torch.load(SAMPLES / "saturated_tanh.pt", weights_only=False)
    module.load_state_dict(load_file(out))
    assert accuracy(module) > 0.9


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("trace", [False, True])
def test_scripts(tmp_path, capsys, trace):
    path, out = tmp_path / "model.ts", tmp_path / "fixed.ts"
    module = torch.load(SAMPLES / "saturated_tanh.pt", weights_only=False)
    made = torch.jit.trace(module, DATA.val[0][:8]) if trace else torch.jit.script(module)
    made.save(path)
    status, report = run(capsys, str(path), *DIGITS, "--out", str(out), "--epochs", "4")
    assert status == 0
    found = accuracy(torch.jit.load(out))
    assert found == pytest.approx(report["stages"][-1]["score"])
    assert found > 0.9


@pytest.mark.filterwarnings("ignore")
def test_onnx_run_by_onnxruntime(tmp_path, capsys):
    path, out = tmp_path / "model.onnx", tmp_path / "fixed.onnx"
    module = torch.load(SAMPLES / "saturated_tanh.pt", weights_only=False)
    torch.onnx.export(
        module, (DATA.val[0][:2],), str(path), dynamo=False, input_names=["x"],
        dynamic_axes={"x": {0: "n"}},
    )  # fmt: skip
    status, report = run(capsys, str(path), *DIGITS, "--out", str(out), "--epochs", "4")
    assert status == 0
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {"x": DATA.val[0].numpy()})
    found = (scores.argmax(axis=1) == DATA.val[1].numpy()).mean()
    assert found == pytest.approx(report["stages"][-1]["score"])
    assert found > 0.9


def test_exported_programs(tmp_path, capsys):
    path, out = tmp_path / "model.pt2", tmp_path / "fixed.pt2"
    module = torch.load(SAMPLES / "saturated_tanh.pt", weights_only=False).eval()
    batch = torch.export.Dim("batch", min=1, max=4096)
    program = torch.export.export(module, (DATA.val[0][:4],), dynamic_shapes=({0: batch},))
    torch.export.save(program, path)
    status, report = run(capsys, str(path), *DIGITS, "--out", str(out), "--epochs", "4")
    assert status == 0
    found = accuracy(torch.export.load(out).module())
    assert found == pytest.approx(report["stages"][-1]["score"])
    assert found > 0.9

"""What surrounds a run and is broken: code that exits, pipes, full devices, inputs as outputs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gradscope.cli.main import main
from gradscope.settings_file import FileSettings, find_settings

CODE = """
import sys, torch
from torch import nn
def net():
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
def leaves():
    sys.exit(0)
def loss(output, labels):
    sys.exit("bye")
class Exits(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 3)
    def forward(self, x):
        raise GeneratorExit
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    torch.save(module, tmp_path / "m.pt")
    torch.save(module.state_dict(), tmp_path / "s.pt")
    (tmp_path / "code.py").write_text(CODE)
    (tmp_path / "gradscope.toml").write_text("[rules]\n")
    x, y = np.random.randn(32, 4).astype("f4"), np.arange(32) % 3
    np.savez(tmp_path / "d.npz", x=x, y=y)
    (tmp_path / "shards").mkdir()
    np.savez(tmp_path / "shards" / "s0.npz", x=x, y=y)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(capsys, *arguments: str) -> str:
    status = main(list(arguments))
    said = capsys.readouterr()
    assert status == 2, said
    assert said.err.count("\n") == 1
    return said.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("s.pt", "--arch", "code.py:net", "--data", "d.npz", "--out", "code.py"),
        ("m.pt", "--data", "d.npz", "--loss", "code.py:loss", "--out", "code.py"),
        ("m.pt", "--allow", "__main__.Exits=code.py:Exits", "--data", "d.npz", "--out", "code.py"),
        ("m.pt", "--data", "shards", "--out", "shards/s0.npz"),
        ("m.pt", "--data", "shards", "--out", "shards/new.json"),
        ("m.pt", "--data", "d.npz", "--out", "gradscope.toml"),
        ("m.pt", "--data", "d.npz", "--save-gradients", "gradscope.toml"),
        ("m.pt", "--data", "d.npz", "--out", "same", "--save-gradients", "same"),
    ],
)
def test_no_input_is_written_to(folder, capsys, arguments):
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert "inputs are never modified" in refused(capsys, "inspect", *arguments)
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def test_what_is_no_file_is_not_replaced(folder, capsys):
    os.mkfifo(folder / "pipe")
    assert "no ordinary file" in refused(capsys, "inspect", "m.pt", "--out", "pipe")
    assert (folder / "pipe").is_fifo()
    assert "is a pipe" in refused(capsys, "inspect", "pipe")
    assert "is a pipe" in refused(capsys, "inspect", "m.pt", "--data", "pipe")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("s.pt", "--arch", "code.py:leaves", "--data", "d.npz"), "sys.exit(0)"),
        (("m.pt", "--loss", "code.py:loss", "--data", "d.npz"), "sys.exit('bye')"),
    ],
)
def test_code_that_exits_is_no_clean_run(folder, capsys, arguments, said):
    assert said in refused(capsys, "inspect", *arguments)


def test_code_that_raises_what_nobody_catches(folder, capsys):
    state = {"a.weight": torch.zeros(3, 4), "a.bias": torch.zeros(3)}
    torch.save(state, folder / "e.pt")
    told = refused(capsys, "inspect", "e.pt", "--arch", "code.py:Exits", "--data", "d.npz")
    assert "GeneratorExit" in told


@pytest.mark.parametrize("labels", [np.full(32, -1), np.full(32, 9), np.zeros((32, 2), int)])
@pytest.mark.parametrize("command", ["inspect", "fix"])
def test_labels_of_held_out_data_are_checked_as_well(folder, capsys, labels, command):
    np.savez(folder / "v.npz", x=np.random.randn(32, 4).astype("f4"), y=labels)
    more = ("--out", "o.pt", "--epochs", "1") if command == "fix" else ()
    refused(capsys, command, "m.pt", "--data", "d.npz", "--val", "v.npz", *more)


def test_nan_is_no_answer(folder, capsys):
    """argmax names class 0 among NaN; a third of the labels are 0."""
    module = torch.load("m.pt", weights_only=False)
    with torch.no_grad():
        module[2].weight.fill_(float("nan"))
    torch.save(module, "nan.pt")
    assert main(["inspect", "nan.pt", "--data", "d.npz", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["skill"]["accuracy"] == 0.0


def test_a_batch_norm_cannot_be_trained_on_one_sample(folder, capsys):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))
    module(torch.randn(20, 4))
    torch.save(module, "bn.pt")
    status = main(
        ["fix", "bn.pt", "--data", "d.npz", "--out", "o.pt", "--batch-size", "1", "--epochs", "1",
         "--method", "restart"]
    )  # fmt: skip
    said = capsys.readouterr().err
    assert status == 3
    assert "cannot be trained on 1 samples" in said
    assert said.count("\n") == 1


def run(*arguments: str, **given):
    command = [sys.executable, "-m", "gradscope", *arguments]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False, **given)


# Linux alone has a device that is always full.
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device here")
def test_a_full_device(folder):
    with open("/dev/full", "w") as full:
        done = run("rule", stdout=full)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "stdout" in done.stderr


def test_a_working_directory_that_is_gone(folder, monkeypatch):
    """torch itself cannot be loaded there; what needs no torch works."""
    gone = folder / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert find_settings() == FileSettings()


@pytest.mark.parametrize("text", ["a=" + "[" * 5000, "[rules]\nGS101.total=" + "9" * 5000, "\0"])
def test_settings_that_no_parser_takes(folder, capsys, text):
    (folder / "gradscope.toml").write_text(text)
    refused(capsys, "inspect", "m.pt", "--data", "d.npz")


def test_a_name_that_is_too_long(folder, capsys):
    refused(capsys, "inspect", "m" * 300)
    refused(capsys, "inspect", "m.pt", "--data", "d" * 300)
    refused(capsys, "inspect", "m.pt", "--out", "o" * 300)


ODD = """
import torch
x, y = torch.randn(8, 4), torch.arange(8) % 3
def sparse(): return [(x.to_sparse(), y)]
def meta(): return [(x.to("meta"), y)]
def big(): return [(x, y.to(torch.uint64))]
def endless():
    a = []
    a.append(a)
    return [a]
class Bad(Exception):
    def __str__(self): raise ValueError
def fails(): raise Bad
def lazy(): return torch.nn.Sequential(torch.nn.LazyLinear(8), torch.nn.Linear(8, 3))
"""


@pytest.mark.parametrize("name", ["sparse", "meta", "big", "endless", "fails"])
def test_odd_batches(folder, capsys, name):
    (folder / "odd.py").write_text(ODD)
    refused(capsys, "inspect", "m.pt", "--data", f"odd.py:{name}")


def test_odd_code(folder, capsys, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    (folder / "odd.py").write_text(ODD)
    (folder / "broken_module.py").write_text("1 / 0\n")
    assert "no shape yet" in refused(capsys, "inspect", "s.pt", "--arch", "odd.py:lazy")
    assert "ZeroDivisionError" in refused(capsys, "inspect", "m.pt", "--allow", "broken_module")
    refused(capsys, "inspect", "s.pt", "--arch", "odd.py:fails")


def test_numbers_beyond_reason(folder, capsys):
    refused(capsys, "inspect", "m.pt", "--draws", "9" * 25)
    refused(capsys, "inspect", "m.pt", "--input-shape", "999999999999999999x999999999999999")

"""How a repair in several processes ends before its time: by a signal, or by an error of one."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gradscope.cli.main import main as gradscope
from gradscope.ranks import TIMEOUT
from tests.forked import ROOT, port
from tests.ranks_repair import FIX as _FIX

FIX = [*_FIX, "--epochs", "12"]
TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port")

ARCHITECTURE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.how = how
        inner = [m for _ in range(6) for m in (nn.Linear(4, 4), nn.Tanh())]
        self.inner = nn.Sequential(*inner, nn.Linear(4, 2))

    def forward(self, x):
        bad = self.training & (x > 50).any(dim=1, keepdim=True)
        if self.how == "raise" and bad.any():
            raise ValueError("a row is out of range")
        return self.inner(x) + torch.where(bad, torch.nan, 0.0)
"""
"""A model that cannot be trained on one row, which can only be in one process's part of a batch."""


def _repair(folder: Path, how: str) -> list[str]:
    """The words of a repair of that model."""
    (folder / "arch.py").write_text(ARCHITECTURE)
    torch.manual_seed(0)
    layers = [nn.Linear(4, 4) for _ in range(6)] + [nn.Linear(4, 2)]
    state = {
        f"inner.{2 * i}.{name}": 0.3 * value
        for i, layer in enumerate(layers)
        for name, value in layer.state_dict().items()
    }
    torch.save(state, folder / "state.pt")
    for name in ("d", "v"):
        x = np.random.default_rng(ord(name)).normal(size=(64, 4)).astype(np.float32)
        labels = (x[:, 0] > 0).astype(np.int64)
        x[37, 3] = 100.0 if name == "d" else 0.0
        np.savez(folder / f"{name}.npz", x=x, y=labels)
    return [
        "fix", str(folder / "state.pt"), "--arch", f"{folder / 'arch.py'}:Net", "--arch-args",
        f'{{"how": "{how}"}}', "--data", str(folder / "d.npz"), "--val", str(folder / "v.npz"),
        "--method", "polar", "--epochs", "2",
    ]  # fmt: skip


def _rank_1_of(launcher: int) -> int:
    """Number of the second process that ``torchrun`` started, which tells nobody; Linux does."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    return next(
        int(pid)
        for pid in children
        if "\0RANK=1\0" in f"\0{Path(f'/proc/{pid}/environ').read_text()}"
    )


def _step(out: Path) -> int:
    kept = Path(f"{out}.run") / "checkpoints" / "fine-tuning.pt"
    return torch.load(kept, weights_only=True)["state"]["step"] if kept.is_file() else 0


def _ended(start: list[str], out: Path, number: signal.Signals, *, rank_1: bool = False) -> str:
    """What a repair says that is sent a signal in its training; to one process of it, or to what
    started it."""
    before = _step(out)
    with subprocess.Popen(
        [sys.executable, *start], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True, preexec_fn=lambda: signal.signal(number, signal.default_int_handler
        if number == signal.SIGINT else signal.SIG_DFL),
    ) as process:  # fmt: skip
        while _step(out) <= before and process.poll() is None:
            time.sleep(0.02)
        os.kill(_rank_1_of(process.pid) if rank_1 else process.pid, number)
        _, said = process.communicate(timeout=60)
    assert process.returncode
    ours = [line for line in said.splitlines() if line.startswith("gradscope: ")]
    assert not out.exists()
    return ours[-1]


def _values(path: Path) -> torch.Tensor:
    state = torch.load(path, weights_only=False).state_dict()
    return torch.cat([t.flatten() for t in state.values()])


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds processes by /proc")
def test_a_repair_goes_on_in_other_numbers_of_processes_however_it_was_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, out = tmp_path / "whole.pt", tmp_path / "out.pt"
    alone = ["-m", "gradscope", *FIX, "--out", str(out)]
    shared = [*TORCHRUN, port(), *alone]
    go_on = f"fix --run {shlex.quote(str(out))}.run"
    of_two = f"gradscope --processes 2 {go_on}"

    said = _ended(alone, out, signal.SIGINT)
    assert said == f"gradscope: interrupted; go on with: gradscope {go_on}"
    said = _ended(shared, out, signal.SIGTERM)
    assert said == f"gradscope: interrupted; go on with: {of_two}"
    said = _ended(shared, out, signal.SIGINT, rank_1=True)
    assert said == f"gradscope: rank 1 of 2 is gone. Go on with: {of_two}"

    monkeypatch.chdir(ROOT)
    assert gradscope(shlex.split(go_on)) == 0
    assert "the last of them from step" in " ".join(capsys.readouterr().out.split())
    assert gradscope([*FIX, "--out", str(whole)]) == 0
    assert _values(out) == pytest.approx(_values(whole), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize(
    ("how", "option", "status", "text"),
    [
        (
            "raise",
            "--shard",
            3,
            "the model cannot be trained on 16 samples at once: ValueError: a row",
        ),
        ("nan", "--regularize=none", 1, "nan at step"),
    ],
)
def test_an_error_of_one_process_ends_all_of_them(
    how: str, option: str, status: int, text: str, tmp_path: Path
) -> None:
    """Also where the others wait for parameters of a layer that it does not come to."""
    out = tmp_path / "out.pt"
    words = ["--processes", "2", *_repair(tmp_path, how), option, "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "gradscope", *words], cwd=ROOT, capture_output=True, text=True,
        timeout=60, env={**os.environ, TIMEOUT: "16"},
    )  # fmt: skip
    assert done.returncode == status
    assert text in done.stdout + done.stderr
    assert done.stderr.count("\n") == (status == 3)
    assert not out.exists()

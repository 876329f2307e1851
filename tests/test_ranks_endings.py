"""How a repair in several processes ends before its time, and goes on."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from gradscope.cli.main import main as gradscope
from tests.forked import ROOT, port
from tests.ranks_repair import FIX as _FIX

FIX = [*_FIX, "--epochs", "20"]
ENDED = re.compile(r"gradscope: (interrupted; go|rank 1 of 2 is gone\. Go) on with: .*")
"""Of two that end at once, the first one may see the other go before it hears its own signal."""
TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port")


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
            time.sleep(0.03)
        os.kill(_rank_1_of(process.pid) if rank_1 else process.pid, number)
        _, said = process.communicate(timeout=120)
    assert process.returncode
    ours = [line for line in said.splitlines() if line.startswith("gradscope: ")]
    assert not out.exists()
    return ours[-1]


def _values(path: Path) -> torch.Tensor:
    state = torch.load(path, weights_only=False).state_dict()
    return torch.cat([t.flatten() for t in state.values()])


# Linux alone lists processes so; the one to end is found by its parent.
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
    assert ENDED.fullmatch(said)
    assert said.endswith(f" on with: {of_two}")
    said = _ended(shared, out, signal.SIGINT, rank_1=True)
    assert ENDED.fullmatch(said)
    assert said.endswith(f" on with: {of_two}")

    monkeypatch.chdir(ROOT)
    assert gradscope(shlex.split(go_on)) == 0
    assert "the last of them from step" in " ".join(capsys.readouterr().out.split())
    assert gradscope([*FIX, "--out", str(whole)]) == 0
    assert _values(out) == pytest.approx(_values(whole), rel=1e-5, abs=1e-5)


DEAF = """
import ctypes, sys, threading, gradscope.start, gradscope.cli.main
gradscope.start.DEAF = 0.2

def main():
    wait, lock = ctypes.CDLL(None).pthread_mutex_lock, ctypes.create_string_buffer(64)
    wait(lock)
    threading.Timer(1, lambda: print("deaf", flush=True)).start()
    wait(lock)

gradscope.cli.main.main = main
sys.exit(gradscope.start.run())
"""


# Windows ends a process at once where others are sent SIGTERM: there is nothing to hear.
@pytest.mark.skipif(sys.platform == "win32", reason="has no such signals")
@pytest.mark.parametrize(
    ("rank", "signals", "line"),
    [
        ({"RANK": "0"}, 1, "gradscope: interrupted.\n"),
        ({"RANK": "1"}, 1, ""),
        ({}, 2, "gradscope: interrupted.\n"),
    ],
)
def test_who_waits_past_python_ends_all_the_same(
    rank: dict[str, str], signals: int, line: str
) -> None:
    """As for the other processes, where no signal is heard; the first one alone says so. A single
    process, which may be in a long step, is given a second one."""
    with subprocess.Popen(
        [sys.executable, "-c", DEAF], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **rank},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "deaf\n"
        for _ in range(signals):
            process.terminate()
            time.sleep(1)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (128 + signal.SIGTERM, line)

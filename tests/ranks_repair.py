"""The processes of ``test_ranks.py`` that repair: one is killed, and others go on.

python -m tests.ranks_repair OUT        each stage: OUT/STAGE/fixed.pt, and what RANK said, RANK.txt
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from gradscope.cli.main import main as gradscope
from gradscope.ranks import Place
from tests.forked import forked, wait

FIX = [
    "fix", "sample_models/deep_tanh.pt", "--data", "sample_models/digits.npz", "--samples", "400",
    "--epochs", "6", "--method", "polar",
]  # fmt: skip


def main(out: Path) -> None:
    """Broken off in two processes; gone on with by two, and from the same place by one."""
    here = out / "here"
    here.mkdir()
    fixed = here / "fixed.pt"
    kept = Path(f"{fixed}.run") / "checkpoints" / "fine-tuning.pt"
    with forked(2, 60, _fixing(fixed)) as group:
        while not (kept.is_file() and torch.load(kept, weights_only=True)["state"]["step"] > 3):
            time.sleep(0.02)
        os.kill(group[1], signal.SIGKILL)
        wait(group)
    broken = shutil.copytree(here, out / "broken")
    with forked(2, 60, _fixing(fixed)) as group:
        wait(group)
    here.rename(out / "again")
    shutil.copytree(broken, here)
    _fix(fixed, 0)
    here.rename(out / "alone")


def _fixing(out: Path) -> Callable[[Place], int]:
    return lambda place: _fix(out, place.rank)


def _fix(out: Path, rank: int) -> int:
    with Path(out.parent, f"{rank}.txt").open("w") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    return gradscope([*FIX, "--out", str(out)])


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""The processes of a group, forked from one that has imported torch: that takes each of them longer
than what it does. How ``torchrun`` starts them is shown by the tests that call it.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch._dynamo  # noqa: F401  what DistributedDataParallel imports when it is made

from gradscope.ranks import TIMEOUT, Place, place_of

ROOT = Path(__file__).resolve().parent.parent


def port() -> str:
    """One that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


@contextmanager
def forked(size: int, timeout: float, work: Callable[[Place], None]) -> Iterator[list[int]]:
    """The numbers of processes that do the work; whoever is left at the end is killed."""
    shared = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port(),
              TIMEOUT: f"{timeout:g}"}  # fmt: skip
    sys.stdout.flush()
    pids = [os.fork() or _works({**shared, "RANK": str(rank)}, work) for rank in range(size)]
    try:
        yield pids
    finally:
        for pid in pids:
            with _gone():
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def wait(pids: list[int]) -> None:
    """For all of them to end, however they do."""
    for pid in pids:
        with _gone():
            os.waitpid(pid, 0)


@contextmanager
def _gone() -> Iterator[None]:
    try:
        yield
    except (ProcessLookupError, ChildProcessError):
        return


def _works(environment: dict[str, str], work: Callable[[Place], None]) -> int:
    """The life of a process; it does not come back."""
    code = 1
    try:
        os.environ.update(environment)
        place = place_of()
        assert place is not None
        work(place)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def run(program: str, out: Path, seconds: float) -> None:
    """``python -m PROGRAM OUT``, and an end to every process of it."""
    process = subprocess.Popen(
        [sys.executable, "-m", program, str(out)], cwd=ROOT, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        said = process.communicate(timeout=seconds)[1]
        assert process.returncode == 0, said
    finally:
        with _gone():
            os.killpg(process.pid, signal.SIGKILL)

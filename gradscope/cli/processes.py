"""``gradscope --processes N COMMAND``: what ``torchrun`` does on one machine, by torch's launcher
too, without its report and with the exit status of the first process."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

from gradscope.cli import status
from gradscope.errors import OptionError

OPTION = "--processes"
_TERMINATED = 128 + signal.SIGTERM


def split(words: Sequence[str]) -> tuple[int, list[str]]:
    """How many processes a command line asks for (1: it does not), and what it is for each of them.

    Raises:
        OptionError: it asks for no number.
    """
    head, _, value = words[0].partition("=") if words else ("", "", "")
    if head != OPTION:
        return 1, list(words)
    rest = list(words[1:])
    if "=" not in words[0]:
        value = rest.pop(0) if rest else ""
    if not (value.isascii() and value.isdigit()) or not 1 <= int(value) <= 1024:
        raise OptionError(f"'{value}' is no number of processes", where=OPTION, hint="Say 4.")
    return int(value), rest


def start(processes: int, words: Sequence[str]) -> int:
    """Run a command line in several processes.

    Returns:
        the status of the first process, if none was lost.

    Raises:
        OptionError: a process was killed; says which.
    """
    # Here and not above: it imports torch, and most commands start no processes.
    from gradscope.launcher import launch

    threads = max(1, (os.cpu_count() or 1) // processes)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    codes = launch(processes, words)
    if isinstance(codes, int):
        return 128 + codes
    return _status(codes, processes) if codes else status.CLEAN


def _status(codes: dict[int, int], processes: int) -> int:
    """Of the first process, which has said why; torch ends the others by SIGTERM."""
    first = codes.get(0, 0)
    if first > 0 and first != _TERMINATED:
        return first
    killed = {r: -c for r, c in codes.items() if c < 0 and -c != signal.SIGTERM}
    if not killed:
        return next((c for c in codes.values() if c > 0), status.REFUSED)
    rank, number = min(killed.items())
    hint = "If memory ran out, ask for fewer processes." if number == signal.SIGKILL else ""
    what = f"rank {rank} of {processes} was ended by signal {number}"
    raise OptionError(what, where=OPTION, hint=hint)

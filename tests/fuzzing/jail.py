"""A process of little room, in which files are opened one after another, and what comes of each.

A process serves many files; it is forked from one that has imported everything, and replaced when
a file kills it. Watched: processor time (:data:`SECONDS`), wall-clock time (:data:`WALL`), address
space (:data:`ROOM` beyond an idle process), and everything that Python's audit events and the
scratch folder tell of files written and processes started.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gradscope.errors import GradscopeError

SECONDS, WALL = 10, 60
ROOM = 2 << 30
MEGABYTES = 512  # resident, that opening one file may add
BATCH = 200
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_ACTS = (
    "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.remove",
    "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod",
    "os.chown", "os.putenv", "shutil.", "socket.", "tempfile.", "webbrowser.", "pty.", "ftplib.",
    "urllib.", "smtplib.", "code.__new__", "ctypes.dlopen", "signal.", "mmap.resize",
)  # fmt: skip
_QUIET = ("socket.gethostname", "code.__new__")  # asked or made by imports; runs nothing

Open = Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    """A damaged file to be.

    Attributes:
        kind: its format.
        seed: of the damage.
        write: puts the file, and what it needs, into an empty folder.
        open: opens it.
    """

    kind: str
    seed: int
    write: Callable[[Path], Path]
    open: Open


@dataclass(frozen=True)
class Outcome:
    """What came of a case.

    Attributes:
        kind: of the case.
        seed: of the case.
        status: 0 opened, 2 or 3 refused, 70 another exception, 128 + a signal's number.
        text: the refusal, or the last lines of the traceback.
        seconds: of processor time.
        megabytes: of memory beyond what was in use before.
        acts: files written, processes started, and the like.
    """

    kind: str
    seed: int
    status: int
    text: str
    seconds: float
    megabytes: float
    acts: tuple[str, ...] = ()

    @property
    def wrong(self) -> str:
        """Why this is no good end; empty if it is one."""
        if self.acts:
            return f"does {self.acts[0]}"
        if self.status not in (0, 2, 3):
            return f"ends with {self.status}"
        if "\n" in self.text or len(self.text) > 2000:
            return "is refused in more than one short line"
        if self.megabytes > MEGABYTES:
            return f"takes {self.megabytes:.0f} MB"
        return f"takes {self.seconds:.1f} s" if self.seconds > SECONDS else ""


def run(cases: Sequence[Case]) -> Iterator[Outcome]:
    """The outcome of each case, in order."""
    done = 0
    while done < len(cases):
        for outcome in _one_process(cases[done : done + BATCH]):
            yield outcome
            done += 1


def _one_process(cases: Sequence[Case]) -> Iterator[Outcome]:
    reader, writer = os.pipe()
    with tempfile.TemporaryDirectory() as scratch:
        child = os.fork()
        if child == 0:
            ends = 1
            try:
                os.close(reader)
                _serve(cases, writer, Path(scratch))
                ends = 0
            finally:
                if ends:
                    traceback.print_exc()
                os._exit(ends)
        os.close(writer)
        count, late = 0, False
        with os.fdopen(reader, "rb") as stream:
            while True:
                late = not select.select([stream], [], [], WALL)[0]
                line = b"" if late else stream.readline()
                if not line:
                    break
                kind, seed, status, text, seconds, megabytes, acts = json.loads(line)
                yield Outcome(kind, seed, status, text, seconds, megabytes, tuple(acts))
                count += 1
        if late:
            os.kill(child, signal.SIGKILL)
        _, ended = os.waitpid(child, 0)
    if count < len(cases):
        case, number = cases[count], os.WTERMSIG(ended) if os.WIFSIGNALED(ended) else 0
        said = f"no answer in {WALL} s" if late else f"the process died ({number})"
        yield Outcome(case.kind, case.seed, 128 + number, said, 0.0, 0.0)


def _serve(cases: Sequence[Case], writer: int, scratch: Path) -> None:
    warnings.simplefilter("ignore")
    faulthandler.disable()
    sys.dont_write_bytecode = True
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    gc.collect()
    gc.freeze()  # what is imported is not searched again for every file
    watch = Watch()
    sys.addaudithook(watch.heard)
    for case in cases:
        with tempfile.TemporaryDirectory(dir=scratch) as name:
            folder = Path(name)
            outcome = _opened(case, case.write(folder), folder, watch)
        os.write(writer, json.dumps(outcome).encode() + b"\n")


def _opened(case: Case, path: Path, folder: Path, watch: Watch) -> list[object]:
    before, rest = _listing(folder), _reset_peak()
    os.chdir(folder)
    start = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, SECONDS)  # SIGPROF ends the process
    watch.begin()
    status, text = _status(case.open, path)
    acts = watch.end()
    signal.setitimer(signal.ITIMER_PROF, 0)
    seconds = time.process_time() - start
    if _listing(folder) != before:
        acts.append("a change in its folder")
    if _has_children():
        acts.append("a process started")
    os.chdir("/")
    return [case.kind, case.seed, status, text[:3000], seconds, _peak() - rest, acts]


def _status(opens: Open, path: Path) -> tuple[int, str]:
    try:
        opens(path)
        return 0, ""
    except GradscopeError as error:
        return error.exit_status, str(error)
    except BaseException:
        return 70, traceback.format_exc()[-1500:]


def _listing(folder: Path) -> dict[str, tuple[int, int]]:
    found = {str(p): p.lstat() for p in folder.rglob("*")}
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in found.items()}


def _has_children() -> bool:
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True


def _reset_peak() -> float:
    """Resident megabytes, which the peak starts again from."""
    Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


class Watch:
    """Hears what Python is about to do, and notes what opening a file has no reason to do."""

    def __init__(self) -> None:
        self._on, self._acts = False, list[str]()

    def begin(self) -> None:
        """From here on."""
        self._acts, self._on = [], True

    def end(self) -> list[str]:
        """Until here; what was noted."""
        self._on = False
        return self._acts

    def heard(self, event: str, arguments: tuple[object, ...]) -> None:
        """One audit event."""
        if not self._on:
            return
        if event == "open":
            path, mode, flags = (*arguments, None, None)[:3]
            written = isinstance(mode, str) and any(c in mode for c in "wax+")
            if written or (mode is None and isinstance(flags, int) and flags & _WRITING):
                self._acts.append(f"open {path!r} for writing")
        elif event.startswith(_ACTS) and event not in _QUIET:
            self._acts.append(f"{event} {arguments!r}"[:200])

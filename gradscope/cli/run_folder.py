"""The folder of a run, ``PATH.run``: made whole, locked while it runs, resumed and repeated."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from gradscope.config import FixSettings, Settings
from gradscope.errors import OptionError, OutputError
from gradscope.files import write_atomic
from gradscope.report import result_of, run_files
from gradscope.run_file import MARK, RunFile, read_run
from gradscope.treatment import Kept, Outcome, Treatment

WORTH = 60.0
"""Seconds of work that are worth a folder after a failure; less leaves nothing behind."""

_CHECKPOINTS, _EVENTS = "checkpoints", "tensorboard"
_OF_A_RESULT = ("after.json", "history.csv")


class RunFolder:
    """Keeps one run; see :class:`gradscope.treatment.Run`.

    Args:
        folder: where.
        run: names of files as they are to be kept.
        settings, repair: names of files as they are here.
        moved: the words that say where files are now, if they are not where they were.
    """

    def __init__(
        self,
        folder: Path,
        run: RunFile,
        settings: Settings,
        repair: FixSettings,
        moved: tuple[str, ...] = (),
    ) -> None:
        self._moved = moved
        self._folder, self._run = folder, run
        self._settings, self._repair = settings, repair
        self._begun, self._made = time.monotonic(), False
        self._lock: int | None = None
        self._earlier = read_run(folder) if (folder / MARK).is_file() else None

    @property
    def path(self) -> str | None:
        """The folder, if it is there."""
        return str(self._folder) if (self._folder / MARK).is_file() else None

    @property
    def go_on(self) -> str | None:
        """The command that goes on from where it was broken off; None before it has begun."""
        if self._lock is None:
            return None
        trust = ["--trust-model"] if self._settings.load.trust_model else []
        shared = self._run.processes
        several = ["--processes", str(shared)] if shared > 1 else []
        words = ["gradscope", *several, "fix", *self._moved, "--run", str(self._folder), *trust]
        return " ".join(map(shlex.quote, words))

    @property
    def _shown(self) -> str:
        """The folder as it is called where the command was given."""
        plain = f"{self._run.repair.out}.run"
        if Path(plain).name == self._folder.absolute().name:
            return plain
        return os.path.relpath(self._folder, self._folder / self._run.base)

    def begin(self, intent: Treatment) -> Kept:
        """Make the folder, or go on in it.

        Raises:
            OutputError: it cannot be written, or another process runs it.
        """
        self._run = replace(
            self._run, threads=intent.threads, processes=intent.processes, result=None,
            out_hash=None,
        )  # fmt: skip
        files = dict(run_files(intent, self._run, self._shown))
        if self._folder.exists():
            self._hold()
            self._renew(files)
        else:
            self._make(files)
            self._hold()
        wants_events = str(self._folder / _EVENTS) if self._repair.tensorboard else None
        return Kept(str(self._folder / _CHECKPOINTS), self._run.identity, wants_events)

    def staging(self) -> str | None:
        """The folder, once it is there."""
        return str(self._folder) if self._lock is not None else None

    def finish(self, treatment: Treatment) -> None:
        """What came of it; checkpoints of races are no longer needed.

        Raises:
            OutputError: it cannot be written.
        """
        written = treatment.written
        out_hash = _sha256(Path(written)) if written is not None else None
        result = {k: v for k, v in result_of(treatment).items() if v is not None}
        run = replace(self._run, result=result, out_hash=out_hash)
        self._write(dict(run_files(treatment, run, self._shown)))
        for race in (self._folder / _CHECKPOINTS).glob("race-*"):
            race.unlink(missing_ok=True)
        self.release()
        earlier = self._earlier
        if earlier is not None and earlier.result is not None and earlier.identity == run.identity:
            same = "the same bytes as" if earlier.out_hash == out_hash else "other bytes than"
            _say(f"{same} the run before")

    def abandon(self) -> None:
        """After a failure: a folder made by it, for too little work to be kept, is removed."""
        if self._made and time.monotonic() - self._begun < WORTH:
            shutil.rmtree(self._folder, ignore_errors=True)
        self.release()

    def _hold(self) -> None:
        """For this process only."""
        try:
            import fcntl
        except ImportError:  # not there on Windows
            self._lock = -1
            return
        self._lock = os.open(self._folder, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.release()
            what = f"'{self._folder}' is being run by another process"
            raise OutputError(what, where="--out", hint="Wait for it, or name another file.") \
                from error  # fmt: skip

    def release(self) -> None:
        """Let other processes run it."""
        if self._lock is not None and self._lock >= 0:
            os.close(self._lock)
        self._lock = None

    def _make(self, files: dict[str, str]) -> None:
        """All or nothing: filled under another name, then renamed."""
        parent, lead = self._folder.parent, f".{self._folder.name}.new-"
        for left in parent.glob(f"{lead}*"):  # by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        new: Path | None = None
        try:
            new = Path(tempfile.mkdtemp(prefix=lead, dir=parent))
            os.chmod(new, 0o777 & ~_umask())
            for name, content in files.items():
                (new / name).write_bytes(content.encode())
            os.rename(new, self._folder)
            new, self._made = None, True
        except OSError as error:
            what = f"the folder '{self._folder}' cannot be made ({error.strerror or error})"
            hint = "Make room, or choose a folder that you may write to."
            raise OutputError(what, where="--out", hint=hint) from error
        finally:
            if new is not None:
                shutil.rmtree(new, ignore_errors=True)

    def _renew(self, files: dict[str, str]) -> None:
        """Go on where the same run was broken off, else begin again; whole at any moment."""
        earlier = self._earlier
        goes_on = (
            earlier is not None
            and earlier.result is None
            and earlier.identity == self._run.identity
        )
        if not goes_on:
            self._write({MARK: files[MARK]})  # from here on, what is older does not count
            for name in (*_OF_A_RESULT, _CHECKPOINTS, _EVENTS):
                _remove(self._folder / name)
        elif earlier is not None and _workers(earlier) != _workers(self._run):
            _say(f"the run began with {_workers(earlier)} and goes on with "
                 f"{_workers(self._run)}: not every bit will be the same")  # fmt: skip
        for left in (*self._folder.glob(".*"), *self._folder.glob(f"{_CHECKPOINTS}/.*")):
            left.unlink(missing_ok=True)
        self._write(files)

    def _write(self, files: dict[str, str]) -> None:
        for name, content in files.items():
            write_atomic(str(self._folder / name), content.encode(), option="--out")


def folder_of(out: str) -> Path:
    """Where the run of a repaired model is kept."""
    return Path(f"{out}.run")


def check_folder(folder: Path) -> None:
    """Refuse, before any work, a folder that is there and is no run's.

    Raises:
        OutputError: names it.
    """
    if folder.exists() and not (folder / MARK).is_file():
        raise OutputError(
            f"'{folder}' is to hold the run and is something else already",
            where="--out",
            hint="Name another file, or move it away.",
        )


def new_run(settings: Settings, repair: FixSettings) -> RunFolder:
    """The run of a command; one that was broken off goes on.

    Raises:
        OutputError: its folder is something else.
    """
    folder = folder_of(str(repair.out))
    check_folder(folder)
    base = os.path.relpath(Path.cwd(), folder.absolute())
    run = RunFile(settings, repair, _hashes(settings, settings), base)
    return RunFolder(folder, run, settings, repair)


def old_run(
    folder: Path,
    run: RunFile,
    settings: Settings,
    repair: FixSettings,
    moved: tuple[str, ...],
) -> RunFolder:
    """The run of a folder, with its inputs as they are called now.

    Args: see :class:`RunFolder`.

    Raises:
        OptionError: an input is not there, or is not what it was.
    """
    found = _hashes(run.settings, settings)
    for name, digest in run.hashes.items():
        if name not in found:
            hint = "Say where it is now: gradscope fix MODEL --run DIR --data FILE --val FILE."
            raise OptionError(f"the input '{name}' of the run is not there", where="--run",
                              hint=hint)  # fmt: skip
        if found[name] != digest:
            what = f"the input '{name}' is not what it was when the run began (SHA-256)"
            hint = "Bring it back, or begin a new run without --run."
            raise OptionError(what, where="--run", hint=hint)
    for name in found.keys() - run.hashes.keys():
        what = f"the input '{name}' was not there when the run began"
        raise OptionError(what, where="--run", hint="Take it away, or begin a new run.")
    return RunFolder(folder, run, settings, repair, moved)


def _hashes(named: Settings, here: Settings) -> dict[str, str]:
    """SHA-256 of every file that is read, by its name in the run."""
    found: dict[str, str] = {}
    pairs = zip(_names(named), _names(here), strict=True)
    for name, place in pairs:
        if name is None or place is None:
            continue
        source, is_code, _ = name.partition(".py:")
        file = place.partition(".py:")[0]
        pair = (f"{source}.py", Path(f"{file}.py")) if is_code else (name, Path(place))
        found.update(_of_one(*pair))
    return found


def _names(settings: Settings) -> tuple[str | None, ...]:
    return replace(settings, rules_from=None).inputs()  # rules are kept as they are


def _of_one(name: str, place: Path) -> Iterator[tuple[str, str]]:
    from gradscope.pipeline import companions_of

    if place.is_dir():
        for file in sorted(p for p in place.rglob("*") if p.is_file()):
            yield str(Path(name) / file.relative_to(place)), _sha256(file)
    elif place.is_file():
        yield name, _sha256(place)
        for beside in map(Path, companions_of(str(place))):
            if beside.is_file():
                relative = os.path.relpath(beside, place.parent)
                yield str(Path(name).parent / relative), _sha256(beside)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(FileNotFoundError):
            path.unlink()


def _workers(run: RunFile) -> str:
    """What sums are split among, on which their last bits depend."""
    shared = f" in each of {run.processes} processes" if run.processes != 1 else ""
    return f"{run.threads} thread{'s' * (run.threads != 1)}{shared}"


def _say(text: str) -> None:
    sys.stderr.write(f"gradscope: {text}\n")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def wants_run(repair: FixSettings) -> bool:
    """Whether there is anything to keep."""
    return repair.out is not None and repair.finetune and not repair.plan_only


def ended(treatment: Treatment) -> bool:
    """Whether a run has come to its end with this."""
    trained = treatment.outcome in (Outcome.IMPROVED, Outcome.NOT_IMPROVED)
    return trained and treatment.recipe is not None

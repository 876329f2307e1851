"""Where a report goes: stdout or a file. Everything else that is printed goes to stderr."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import shutil
import sys
import warnings
from collections.abc import Iterator

from gradscope.errors import DEBUG, OutputError
from gradscope.files import write_atomic
from gradscope.report import Canvas


def keep_imports() -> None:
    """From now on collections of garbage pass over what is there: torch's own objects.

    Once a process: later there is garbage, too, and it would be kept for good.
    """
    if not gc.get_freeze_count():
        gc.freeze()


def canvas(target: str | None, *, all_layers: bool = False) -> Canvas:
    """What the terminal, the pipe or the file can show."""
    width = max(40, shutil.get_terminal_size((80, 24)).columns)
    if target is not None:
        return Canvas(width, all_layers=all_layers)
    if sys.stdout is None:
        raise OutputError("is closed", where="stdout", hint="Write the report with --out FILE.")
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    return Canvas(width, sys.stdout.isatty() and not plain, _takes_unicode(), all_layers)


def emit(text: str, target: str | None, option: str = "--out") -> None:
    """Write the report, ending with a newline; ``option`` is the one that named ``target``."""
    text = text if text.endswith("\n") else text + "\n"
    if target is not None:
        write_atomic(target, text.encode("utf-8", "backslashreplace"), option=option)
        return
    if isinstance(sys.stdout, io.TextIOWrapper):
        # File names need not be text: better a visible escape than a traceback.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has seen enough (`| head`). The interpreter flushes once more at its end.
        _drop_stdout()
    except OSError as error:
        _drop_stdout()
        what = f"cannot be written ({error.strerror or error})"
        raise OutputError(what, where="stdout", hint="Write with --out FILE.") from error


def _drop_stdout() -> None:
    """What is left in the buffer goes nowhere when the interpreter flushes it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep stdout for the report, and other libraries' warnings off the screen."""
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        if not os.environ.get(DEBUG):
            warnings.simplefilter("ignore")
        yield


def _takes_unicode() -> bool:
    try:
        "█░─…".encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True

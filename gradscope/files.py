"""Writing files so that a crash leaves no half-written one, and no input is ever overwritten."""

from __future__ import annotations

import errno
import filecmp
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from gradscope.errors import OutputError


def check_target(target: str, *, inputs: Iterable[str | None], option: str) -> None:
    """Refuse ``target`` before hours of work, if it could not be written or is an input.

    Raises:
        OutputError: names ``option`` and what to do.
    """
    path = Path(target)
    if "\0" in target:
        raise OutputError("a name cannot hold a NUL", where=option, hint="Name another file.")
    if path.is_dir():
        raise OutputError(f"'{target}' is a folder", where=option, hint="Name a file in it.")
    if not path.parent.is_dir():
        raise OutputError(
            f"the folder '{path.parent}' does not exist", where=option, hint="Create it first."
        )
    if path.exists() and not path.is_file():
        hint = "Name an ordinary file; without the option the report goes to stdout."
        raise OutputError(f"'{target}' is no ordinary file", where=option, hint=hint)
    for name in inputs:
        if name is not None and _is_input(path, name):
            raise OutputError(
                f"'{target}' is an input of this run, and inputs are never modified",
                where=option,
                hint="Name another file.",
            )
    _check_writable(path, option)


def write_atomic(target: str, content: bytes, *, option: str) -> None:
    """Write ``content`` to a temporary file beside ``target``, then rename it.

    Raises:
        OutputError: names ``option`` and what the system said; ``target`` is as it was.
    """
    replace_atomic(target, lambda path: path.write_bytes(content), option=option)


def copy_atomic(source: str, target: str, beside: Iterable[str], *, option: str) -> None:
    """A copy of ``source`` and of the files that it needs beside it, bit for bit.

    Args:
        source: a file.
        target: where to; replaced if it is there.
        beside: files under the folder of ``source``; never replaced by others.
        option: for error messages.

    Raises:
        OutputError: it cannot be written, or a file that it needs is there with another content.
    """
    folder, to = Path(source).parent, Path(target).parent
    for name in beside:
        copy = to / Path(name).relative_to(folder)
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            replace_atomic(str(copy), partial(shutil.copyfile, name), option=option)
        elif not filecmp.cmp(name, copy, shallow=False):
            what = f"it needs '{copy}' beside it, which is there with another content"
            raise OutputError(what, where=option, hint="Write it into a folder of its own.")
    replace_atomic(target, partial(shutil.copyfile, source), option=option)


def replace_atomic(
    target: str, write: Callable[[Path], object], *, option: str, staging: str | None = None
) -> None:
    """Let ``write`` fill a temporary file beside ``target``, then rename it.

    Args:
        target: replaced if it is there.
        write: fills the file that it is given.
        option: for error messages.
        staging: a folder for the temporary file, if it is on the same disk.

    Raises:
        OutputError: names ``option`` and what the system said; ``target`` is as it was.
    """
    path = Path(target)
    temporary: str | None = None
    try:
        folder = path.parent
        if staging is not None and os.stat(staging).st_dev == os.stat(folder).st_dev:
            folder = Path(staging)
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{path.name}.")
        os.close(handle)
        write(Path(temporary))
        _flush(temporary)
        # mkstemp makes files private; a report is an ordinary file, as the umask has it.
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise _unwritable(target, error, option) from error
    finally:
        if temporary is not None:
            os.unlink(temporary)


def _flush(path: str) -> None:
    """To the disk, so that a power cut after the rename leaves no empty file."""
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _check_writable(path: Path, option: str) -> None:
    """Try it: permission bits say little on read-only file systems or for root."""
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}."):
            pass
    except OSError as error:
        raise _unwritable(str(path), error, option) from error


def _unwritable(target: str, error: OSError, option: str) -> OutputError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return OutputError(
        f"'{target}' cannot be written ({error.strerror or error})",
        where=option,
        hint="Make room, or choose another disk."
        if full
        else "Choose a folder that you may write to.",
    )


def _is_input(path: Path, name: str) -> bool:
    """Whether writing there would change an input: a file, code as ``FILE.py:name``, a folder."""
    source, found, _ = name.partition(".py:")
    read = Path(f"{source}.py" if found else name)
    if _same_file(path, read) or path.absolute() == read.absolute():
        return True
    return read.is_dir() and _same_file(path.parent, read)


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except (OSError, ValueError):  # one of them does not exist, or is module:callable
        return False


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

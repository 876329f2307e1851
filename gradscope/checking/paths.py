"""Which model files are meant: names and globs to files."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable

from gradscope.errors import OptionError


def model_files(patterns: Iterable[str]) -> tuple[str, ...]:
    """Every file once, in the order of the patterns, those of one pattern sorted.

    Args:
        patterns: files, or globs (``**`` crosses folders) for shells that do not expand them. A
            name that exists is that file, whatever characters it has.

    Raises:
        OptionError: a glob that matches nothing. A plain name that does not exist is kept: it is
            the model that cannot be loaded.
    """
    found: dict[str, None] = {}
    for pattern in patterns:
        if os.path.lexists(pattern) or not glob.has_magic(pattern):
            files = [pattern]
        else:
            files = [f for f in sorted(glob.glob(pattern, recursive=True)) if os.path.isfile(f)]
        if not files:
            hint = "Check the pattern, and the folder that it starts from."
            raise OptionError(f"no file matches '{pattern}'", where="MODEL", hint=hint)
        found.update((local(file), None) for file in files)
    return tuple(found)


def local(path: str) -> str:
    """Relative to the working directory where it lies under it, so that reports name no machine.

    Nothing is resolved: what ``..`` means after a link is for the system to say.
    """
    if not os.path.isabs(path):
        return path.removeprefix(f".{os.sep}") or path
    try:
        here = os.getcwd()
    except FileNotFoundError:  # it was removed
        return path
    relative = os.path.relpath(path, here)
    steps = {os.pardir, os.curdir}
    return path if steps & {*path.split(os.sep), *relative.split(os.sep)} else relative


def matches(path: str, pattern: str) -> bool:
    """Whether a file is meant by a name or glob, both relative to the working directory."""
    here = os.path.abspath(path)
    if os.path.abspath(pattern) == here:
        return True
    return here in {os.path.abspath(found) for found in glob.glob(pattern, recursive=True)}

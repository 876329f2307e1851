"""Looked for in the working directory and upwards; the nearest one counts, alone."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any

from gradscope.errors import OptionError
from gradscope.settings_file.tables import FileSettings, read_table

_MOST_BYTES = 1 << 20
_MOST_PARTS = 1000  # of a key: tomllib takes the square of it in memory


def find_settings(start: Path | None = None) -> FileSettings:
    """The nearest settings file from ``start`` (the working directory) upwards.

    Raises:
        OptionError: a file that cannot be read, or holds what gradscope does not know.
    """
    try:
        here = (start or Path.cwd()).absolute()
    except FileNotFoundError:  # the working directory was removed
        return FileSettings()
    for folder in (here, *here.parents):
        own = folder / "gradscope.toml"
        if own.is_file():
            return read_table(_read(own), str(own), _from_here(folder))
        project = folder / "pyproject.toml"
        if project.is_file():
            tool = _read(project).get("tool", {})
            if isinstance(tool, dict) and "gradscope" in tool:
                place = f"{project} [tool.gradscope]"
                return read_table(tool["gradscope"], place, _from_here(folder))
    return FileSettings()


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise OptionError("has more than 1 MB, which no settings have", where=str(path))
        if any(part.count(b".") > _MOST_PARTS for part in re.split(rb"[=\n]", content)):
            raise OptionError("has a key of too many parts", where=str(path))
        return tomllib.loads(content.decode())
    except (OSError, ValueError, RecursionError) as error:  # TOMLDecodeError is a ValueError
        raise OptionError(f"cannot be read ({error})", where=str(path)) from error


def _from_here(folder: Path) -> str:
    """The way to the file's folder, so that what is made of its paths names no machine."""
    return os.path.relpath(folder)

"""The user's settings file: ``gradscope.toml``, or ``[tool.gradscope]`` in ``pyproject.toml``.

Looked for in the working directory and upwards; the nearest one counts, alone.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gradscope.errors import OptionError

SECTIONS = ("rules",)
"""What may stand in it: ``rules``, tables of thresholds by code or name."""


@dataclass(frozen=True)
class FileSettings:
    """What the file says; ``path`` is None where there is none."""

    path: str | None = None
    rules: Mapping[str, object] = field(default_factory=dict)


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
            return _settings(_read(own), str(own))
        project = folder / "pyproject.toml"
        if project.is_file():
            tool = _read(project).get("tool", {})
            if isinstance(tool, dict) and "gradscope" in tool:
                return _settings(tool["gradscope"], f"{project} [tool.gradscope]")
    return FileSettings()


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # TOMLDecodeError is a ValueError
        raise OptionError(f"cannot be read ({error})", where=str(path)) from error


def _settings(table: object, where: str) -> FileSettings:
    if not isinstance(table, dict):
        raise OptionError("must be a table", where=where)
    for key in table:
        if key not in SECTIONS:
            close = difflib.get_close_matches(key, SECTIONS, 1, 0.6)
            known = f"Did you mean '{close[0]}'?" if close else f"Known: {', '.join(SECTIONS)}."
            raise OptionError(f"there is no setting '{key}'", where=where, hint=known)
    rules = table.get("rules", {})
    if not isinstance(rules, dict):
        raise OptionError("'rules' must be a table, as GS101.total = -4", where=where)
    return FileSettings(where, rules)

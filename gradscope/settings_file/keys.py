"""What may stand in a settings file: each key, and what its value must be.

Values are handed on as the command line would give them (``samples = 512`` as ``"512"``), so that
both are parsed alike; paths are relative to the file's folder and come out relative to the working
directory.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Callable, Iterable, Mapping

from gradscope.errors import OptionError

Reader = Callable[[object, str], object]
"""(value, folder of the file) -> the value as a flag gives it; ValueError says what it must be."""


def nearest(key: str, known: Iterable[str]) -> str:
    """``Did you mean 'rules'?``, or the list."""
    every = list(known)
    close = difflib.get_close_matches(key.replace("_", "-"), every, 1, 0.6)
    return f"Did you mean '{close[0]}'?" if close else f"Known: {', '.join(every)}."


def read_keys(
    table: Mapping[str, object], readers: Mapping[str, Reader], where: str, folder: str
) -> dict[str, object]:
    """Every value of ``table``, by its reader.

    Raises:
        OptionError: a key that is unknown (the nearest is named), or a value of a wrong type.
    """
    found: dict[str, object] = {}
    for key, value in table.items():
        if key not in readers:
            raise OptionError(
                f"there is no setting '{key}'", where=where, hint=nearest(key, readers)
            )
        try:
            found[key] = readers[key](value, folder)
        except ValueError as error:
            raise OptionError(f"'{key}' must be {error}", where=where) from error
    return found


def text(value: object, folder: str) -> str:
    """A string that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a string")
    return value


def path(value: object, folder: str) -> str:
    """A file, relative to the folder of the settings file."""
    given = text(value, folder)
    return given if folder == os.curdir else os.path.join(folder, given)


def source(value: object, folder: str) -> str:
    """A file, or code as ``FILE.py:NAME``; ``package.module:NAME`` and single words stay."""
    given = text(value, folder)
    file, colon, name = given.rpartition(":")
    if colon:
        return f"{path(file, folder)}:{name}" if file.endswith(".py") else given
    return path(given, folder)


def device_map(value: object, folder: str) -> str:
    """A file, but for the words that are none."""
    given = text(value, folder)
    return path(given, folder) if given.endswith(".json") else given


def reference(value: object, folder: str) -> str:
    """As :func:`source`, but without a colon it is a name, not a file."""
    given = text(value, folder)
    return source(given, folder) if ":" in given else given


def classes(value: object, folder: str) -> list[str]:
    """Of ``allow``: ``__main__.Net=FILE.py:Net`` has a file."""
    found = []
    for given in texts(value, folder):
        name, equals, code = given.partition("=")
        found.append(f"{name}={source(code, folder)}" if equals else name)
    return found


def outputs(value: object, folder: str) -> list[str]:
    """Of ``output``: ``FORMAT:PATH``."""
    parts = (given.partition(":") for given in texts(value, folder))
    return [f"{name}{colon}{path(file, folder) if file else ''}" for name, colon, file in parts]


def texts(value: object, folder: str) -> list[str]:
    """A string or a list of them."""
    if isinstance(value, str):
        return [text(value, folder)]
    if not isinstance(value, list) or not all(isinstance(v, str) and v.strip() for v in value):
        raise ValueError("a string or a list of strings")
    return list(value)


def flag(value: object, folder: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def number(value: object, folder: str) -> float:
    """A finite number from 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        raise ValueError("a number from 0")
    return float(value)


def integer(least: int, most: int = 2**63 - 1) -> Reader:
    """A whole number within bounds."""

    def read(value: object, folder: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"a whole number from {least}")
        return value

    return read


def word_or_number(value: object, folder: str) -> str:
    """``"all"`` or 512, ``"species"`` or -1."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a string or a whole number")
    return value


def arguments(value: object, folder: str) -> str:
    """A table, as JSON."""
    if not isinstance(value, dict):
        raise ValueError("a table, e.g. { hidden = 32 }")
    try:
        return json.dumps(value)
    except (TypeError, RecursionError) as error:  # dates
        raise ValueError("a table of strings, numbers, lists and tables") from error


PER_MODEL: Mapping[str, Reader] = {
    "data": source,
    "val": source,
    "samples": word_or_number,
    "batch-size": integer(1),
    "label-column": word_or_number,
    "standardise": flag,
    "input-shape": texts,
    "input-value": texts,
    "arch": reference,
    "arch-args": arguments,
    "allow": classes,
    "key": text,
    "loss": reference,
    "head": texts,
    "draws": integer(1, 10_000),
    "gradients": flag,
    "mode": text,
    "seed": integer(0),
    "device": text,
    "device-map": device_map,
    "dtype": text,
}
"""What may differ from model to model. ``trust-model`` is a flag and no setting: that a file may
run anything is for whoever types the command to say."""

WHOLE_RUN: Mapping[str, Reader] = {
    "fail-on": text,
    "select": texts,
    "baseline": path,
    "tolerance": number,
    "format": texts,
    "output": outputs,
}

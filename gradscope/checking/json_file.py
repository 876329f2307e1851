"""JSON from a file that may be anything: bounded, and without what JSON does not have."""

from __future__ import annotations

import json
from pathlib import Path


def read_json(path: str, most_bytes: int) -> object:
    """The content of a file.

    Raises:
        OSError: it cannot be read.
        ValueError, RecursionError, MemoryError: it is no JSON, too large, too deep, or holds NaN or
            infinity.
    """
    if Path(path).is_fifo():  # to open one waits for whoever writes to it
        raise ValueError("it is a pipe")
    with Path(path).open("rb") as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise ValueError(f"more than {most_bytes >> 20} MB")
    parsed: object = json.loads(content, parse_constant=_no_constant)
    return parsed


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")

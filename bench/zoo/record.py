"""Measurements to JSON and back, so that rules can be judged again without torch."""

from __future__ import annotations

import dataclasses
import json
import types
from collections.abc import Mapping
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from gradscope.measurements import Measurements


def write(measured: Measurements, path: Path) -> None:
    """NaN and infinity as Python's json writes them: this is no report."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(_plain(measured)))
    partial.replace(path)


def read(path: Path) -> Measurements:
    """What ``write`` wrote; fields that a newer version has are left at their defaults."""
    measured: Measurements = _typed(Measurements, json.loads(path.read_text()))
    return measured


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def _typed(kind: Any, value: Any) -> Any:
    """``value`` as JSON gave it, as the type ``kind``."""
    origin = get_origin(kind)
    if origin in (types.UnionType, Union):
        inner = [k for k in get_args(kind) if k is not type(None)]
        return None if value is None else _typed(inner[0], value)
    if origin is tuple:
        kinds = get_args(kind)
        if len(kinds) == 2 and kinds[1] is Ellipsis:
            return tuple(_typed(kinds[0], v) for v in value)
        return tuple(_typed(k, v) for k, v in zip(kinds, value, strict=True))
    if origin is not None and isinstance(value, dict):
        return {k: _typed(get_args(kind)[1], v) for k, v in value.items()}
    if dataclasses.is_dataclass(kind):
        hints = _hints(kind)  # type: ignore[arg-type]
        return kind(**{k: _typed(hints[k], v) for k, v in value.items() if k in hints})
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(value)
    return value

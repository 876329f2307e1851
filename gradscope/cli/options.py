"""The options' choices, and the parsing that typer does not do."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from enum import StrEnum

from gradscope.errors import OptionError


class Format(StrEnum):
    """Forms of the report."""

    TERMINAL = "terminal"
    JSON = "json"
    HTML = "html"


class FailOn(StrEnum):
    """What makes the exit status 1."""

    ERROR = "error"
    WARNING = "warning"
    UNDETERMINED = "undetermined"
    NEVER = "never"


class Mode(StrEnum):
    """Which of the model's two modes is measured."""

    EVAL = "eval"
    TRAIN = "train"


LOSSES = ("auto", "cross-entropy", "bce", "mse", "nll")

_MOST_NUMBERS = 1 << 36
_REFERENCE = re.compile(r"[^:]+:[A-Za-z_][\w.]*")
_SHAPE = re.compile(r"[1-9]\d{0,17}(x[1-9]\d{0,17})*", re.ASCII)


def parse_samples(text: str, where: str = "--samples") -> int | None:
    """``all`` as None, else a number from 1."""
    if text == "all":
        return None
    if not re.fullmatch(r"\d{1,18}", text, re.ASCII) or int(text) < 1:
        raise OptionError(
            f"'{text}' is neither a number from 1 nor 'all'",
            where=where,
            hint="For example: --samples 512.",
        )
    return int(text)


def parse_loss(text: str, where: str = "--loss") -> str:
    """A known loss, or ``MODULE:FN``."""
    if text in LOSSES or _REFERENCE.fullmatch(text):
        return text
    raise OptionError(
        f"'{text}' is no loss",
        where=where,
        hint=f"Choose {', '.join(LOSSES)}, or give a function as MODULE:FN.",
    )


def parse_outputs(texts: Iterable[str]) -> tuple[tuple[str, ...], tuple[tuple[Format, str], ...]]:
    """``--output`` of inspect: names of the model's outputs, and (format, file) of ``FORMAT:FILE``.

    Raises:
        OptionError: a format without a file, or one file for two reports.
    """
    names: list[str] = []
    written: dict[str, Format] = {}
    for text in texts:
        name, _, path = text.partition(":")
        if name not in list(Format):
            names.append(text)
            continue
        if not path:
            hint = f"Give it as {name}:FILE; --format {name} prints it."
            raise OptionError(f"'{text}' names no file", where="--output", hint=hint)
        if path in written:
            raise OptionError(f"'{path}' is named twice", where="--output")
        written[path] = Format(name)
    return tuple(names), tuple((name, path) for path, name in written.items())


def parse_arch(text: str | None, where: str = "--arch") -> str | None:
    """``FILE.py:factory`` or ``package.module:factory``."""
    if text is None or _REFERENCE.fullmatch(text):
        return text
    raise OptionError(
        f"'{text}' names no factory",
        where=where,
        hint="Give FILE.py:factory or package.module:factory.",
    )


def parse_arch_args(text: str | None, where: str = "--arch-args") -> dict[str, object]:
    """Keyword arguments as a JSON object."""
    if text is None:
        return {}
    hint = """For example: --arch-args '{"hidden": 32}'."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise OptionError(f"not JSON ({error})", where=where, hint=hint) from error
    if not isinstance(value, dict):
        raise OptionError("not a JSON object", where=where, hint=hint)
    return value


def parse_input_values(texts: Iterable[str], where: str = "--input-value") -> dict[str, object]:
    """``NAME=VALUE``: a number, true, false or null as in JSON, else a word."""
    values: dict[str, object] = {}
    for text in texts:
        name, given, value = text.partition("=")
        if not given or not name.isidentifier():
            hint = "Give it as NAME=VALUE, e.g. sr=16000."
            raise OptionError(f"'{text}' names no argument", where=where, hint=hint)
        if name in values:
            raise OptionError(f"'{name}' is given twice", where=where)
        try:
            found = json.loads(value)
        except (ValueError, RecursionError):
            found = value
        values[name] = value if isinstance(found, list | dict) else found
    return values


def parse_input_shapes(
    texts: Iterable[str], where: str = "--input-shape"
) -> dict[str, tuple[int, ...]]:
    """``NAME=3x32x32`` or ``3x32x32``, the latter under the name ""."""
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, _, shape = text.rpartition("=")
        if not _SHAPE.fullmatch(shape):
            raise OptionError(
                f"'{text}' is no shape",
                where=where,
                hint="Give it without the sample axis, e.g. 3x32x32 or NAME=3x32x32.",
            )
        if name in shapes:
            called = f"'{name}'" if name else "the first input"
            raise OptionError(f"{called} is given twice", where=where)
        shapes[name] = tuple(int(size) for size in shape.split("x"))
        if math.prod(shapes[name]) > _MOST_NUMBERS:
            what = f"'{shape[:60]}' is more than a sample can be"
            raise OptionError(what, where=where)
    return shapes

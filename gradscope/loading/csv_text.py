"""The text of a CSV file: encoding, lines of bounded length, delimiter, header."""

from __future__ import annotations

import codecs
import contextlib
import csv
import gzip
import io
import itertools
import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from gradscope.errors import DataError
from gradscope.loading.csv_cells import is_number, missing
from gradscope.loading.numpy_rows import reading

ROW = 1 << 24
"""Characters that one row may have."""

COLUMNS = 100_000
"""Columns that a file may have."""

_HEAD = 1 << 20
_HEAD_ROWS = 21
_EMPTY = 1 << 16  # rows before which one must not be empty
_DELIMITERS = "\t;|,"  # a comma may also stand within numbers, so it comes last


@dataclass(frozen=True)
class Layout:
    """How a CSV file is written.

    Attributes:
        file: that it is in.
        delimiter: between cells.
        header: whether the first row holds the names.
        names: of the columns; their numbers where there is no header.
        unnamed: columns for which the header has no name.
    """

    file: Path
    delimiter: str
    header: bool
    names: tuple[str, ...]
    unnamed: frozenset[int]

    def __str__(self) -> str:
        called = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}[self.delimiter]
        header = "names in the first row" if self.header else "no header, columns named 0, 1, ..."
        return f"read as CSV: {called} between cells, {header}"


@dataclass
class Bound:
    """How much of a file is looked at.

    Attributes:
        rows: at most, empty ones among them.
        characters: after so many no further row is begun.
        cut: whether there was more; known at the end.
    """

    rows: float = math.inf
    characters: float = math.inf
    cut: bool = False


class _Lines:
    """Lines of a text, as long as no row gets too long."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._left, self.number = stream, ROW, 0
        self.characters = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._stream.readline(self._left + 1)
        if not line:
            raise StopIteration
        self.number += 1
        self.characters += len(line)
        self._left -= len(line)
        if self._left < 0:
            what = f"line {self.number}: a row of more than {ROW >> 20} million characters"
            raise DataError(what, hint="Save such samples as .npz.")
        if "\0" in line:
            raise DataError(f"is no text: line {self.number} has a NUL byte")
        return line

    def next_row(self) -> None:
        """A row is complete; the next may be as long."""
        self._left = ROW


@contextlib.contextmanager
def _lines(file: Path) -> Iterator[_Lines]:
    """The lines, inflated and decoded on the way; broken ones as one line that says which."""
    lines = None
    try:
        with reading(str(file)), contextlib.ExitStack() as stack:
            stream: io.BufferedReader | gzip.GzipFile = stack.enter_context(file.open("rb"))
            if stream.peek(2)[:2] == b"\x1f\x8b":
                stream = stack.enter_context(gzip.GzipFile(fileobj=stream))
            encoding = _encoding(stream.peek(4)[:4])
            text = stack.enter_context(io.TextIOWrapper(stream, encoding, newline=""))
            lines = _Lines(text)
            yield lines
    except csv.Error as error:
        place = f"line {lines.number}" if lines else "the text"
        raise DataError(f"{place}: {error}", where=str(file)) from error
    except DataError as error:
        if isinstance(error.__cause__, UnicodeDecodeError):
            number = lines.number + 1 if lines else 1
            what = f"is not in UTF-8, from line {number} on at the latest"
            hint = "Save it with the encoding UTF-8."
            raise DataError(what, where=str(file), hint=hint) from error
        raise


def _encoding(head: bytes) -> str:
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    return "utf-8-sig"


def rows_of(
    file: Path, delimiter: str, bound: Bound | None = None
) -> Generator[tuple[int, list[str]]]:
    """(number of its last line from 1, cells) of each row; empty lines are passed over.

    Args:
        file: the table.
        delimiter: between its cells.
        bound: where to stop, and told whether that was before the end.

    Raises:
        DataError: broken, no text, or a row beyond :data:`ROW`.
    """
    with _lines(file) as lines:
        bound = bound or Bound()
        every = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
        for count, row in enumerate(every):
            if count >= bound.rows or lines.characters > bound.characters:
                bound.cut = True
                return
            lines.next_row()
            if any(row) and (len(row) > 1 or row[0].strip()):
                yield lines.number, row


def find_layout(file: Path) -> Layout:
    """What the first rows tell.

    Raises:
        DataError: they are no table.
    """
    head = _head(file)
    delimiter = next((d for d in _DELIMITERS if _width(head, d) > 1), ",")
    with contextlib.closing(rows_of(file, delimiter, Bound(rows=_EMPTY))) as rows:
        first = [row for _, row in itertools.islice(rows, _HEAD_ROWS)]
    if not first:
        raise DataError("has no rows", where=str(file))
    if len(first[0]) > COLUMNS:
        what = f"has {len(first[0])} columns, more than {COLUMNS}"
        raise DataError(what, where=str(file), hint="Save such samples as .npz.")
    header = _has_header(first[0], first[1:])
    names = _unique(first[0]) if header else tuple(map(str, range(len(first[0]))))
    unnamed = [i for i, c in enumerate(first[0]) if not c.strip() or c == f"Unnamed: {i}"]
    return Layout(file, delimiter, header, names, frozenset(unnamed if header else ()))


def _head(file: Path) -> list[str]:
    """Some lines; a quoted cell may be cut at the end."""
    found: list[str] = []
    with _lines(file) as lines:
        for line in lines:
            lines.next_row()
            found.append(line)
            if len(found) == _HEAD_ROWS or sum(map(len, found)) > _HEAD:
                break
    return found


def _width(head: list[str], delimiter: str) -> int:
    """Cells in each row, if all have as many."""
    try:
        rows = list(csv.reader(head, delimiter=delimiter, skipinitialspace=True))
    except csv.Error:
        return 0
    widths = {len(r) for r in rows if any(r)}
    return widths.pop() if len(widths) == 1 else 0


def _has_header(first: list[str], rest: list[list[str]]) -> bool:
    """Whether the first row names the columns.

    It does if most of its cells are no numbers, and one of them stands above numbers; or if it
    counts the columns from 0, as pandas does for columns without a name.
    """
    if [c.strip() for c in first] == [str(i) for i in range(len(first))] and len(first) > 1:
        return bool(rest)
    if not rest:
        return len(first) > 1 and not any(map(is_number, first))
    named = [i for i, c in enumerate(first) if not is_number(c)]
    above = [i for i in named if all(_numeric(r, i) for r in rest)]
    return bool(above) and 2 * len(named) >= len(first)


def _numeric(row: list[str], index: int) -> bool:
    return index < len(row) and (is_number(row[index]) or missing(row[index]))


def _unique(names: Sequence[str]) -> tuple[str, ...]:
    """Names told apart as pandas does: ``a``, ``a.1``; a column without one by its number."""
    found: dict[str, None] = {}
    for i, name in enumerate(names):
        plain = name.strip() or str(i)
        unique, count = plain, 0
        while unique in found:
            count += 1
            unique = f"{plain}.{count}"
        found[unique] = None
    return tuple(found)

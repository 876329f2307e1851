"""``.csv``, plain or gzipped: one pass to learn what the columns hold, one to read rows."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gradscope.config import DataSettings
from gradscope.errors import DataError
from gradscope.loading.csv_cells import Kind, Profile, truth
from gradscope.loading.csv_text import Bound, Layout, find_layout, rows_of
from gradscope.loading.numpy_rows import reading
from gradscope.loading.rows import Memory, Reader, Rows
from gradscope.loading.table import CLASSES, Field, Group, Table, TableSource, find_label

_CELLS = 250_000
"""Cells that are held as texts at a time."""

LOOKED_AT = Bound(rows=1 << 20, characters=1 << 28)
"""What is read of a file of which some rows are wanted, about 10 s: a few bytes that are gzipped
unpack to hours of reading. ``--samples all`` reads all of it."""

_REMEMBERED = 1 << 22
"""Rows whose labels are remembered from the first pass: they are asked for more than once."""


def open_csv(file: Path, settings: DataSettings) -> TableSource:
    """All rows of a CSV file.

    Raises:
        DataError: no table, rows of different length, labels without a value.
        OptionError: no such column as ``--label-column`` names.
    """
    layout = find_layout(file)
    label = find_label(layout.names, settings.label_column)
    scan = _Scan(layout, label)
    bound = _bound(settings.samples)
    scan.run(bound)
    notes = [str(layout)]
    if bound.cut:
        notes.append(f"samples are of its first {scan.count:,} rows; --samples all reads all of it")
    classes = scan.classes()
    left_out = scan.left_out()
    columns = [i for i in range(len(layout.names)) if i not in left_out]
    notes += [f"column {i} {why}: left out" for i, why in left_out.items()]
    fields = [_field(scan, i) for i in columns]
    position = None if label is None else columns.index(label)
    table = _CsvTable(layout, fields, columns, scan, position)
    return TableSource(table, position, classes, notes)


def _bound(samples: int | None) -> Bound:
    """No bound where all is asked for; one more row for the header."""
    if samples is None:
        return Bound()
    return replace(LOOKED_AT, rows=max(LOOKED_AT.rows, samples) + 1)


class _Scan:
    """The first pass: how many rows, and what the columns hold."""

    def __init__(self, layout: Layout, label: int | None) -> None:
        self.layout, self.label, self.count = layout, label, 0
        self.profile = Profile.of(len(layout.names))
        self._texts: dict[str, int] = {}
        self._ids = array("i")  # of each row's text
        self._counting = True  # whether the first column has been 0, 1, 2, ... so far

    def run(self, bound: Bound) -> None:
        """Read all of it, or as much as is looked at."""
        width = len(self.layout.names)
        step = max(1, _CELLS // width)
        rows: list[list[str]] = []
        lines: list[int] = []
        with closing(rows_of(self.layout.file, self.layout.delimiter, bound)) as numbered:
            if self.layout.header:
                next(numbered)
            for line, row in numbered:
                if len(row) != width:
                    self._ragged(line, len(row))
                rows.append(row)
                lines.append(line)
                if len(rows) == step:
                    self._add(rows, lines)
                    rows, lines = [], []
            if rows:
                self._add(rows, lines)
        if not self.count:
            what = "has names of columns but no rows" if self.layout.header else "has no rows"
            raise DataError(what, where=str(self.layout.file))

    def _ragged(self, line: int, cells: int) -> None:
        what = f"line {line} has {cells} cells, the first row has {len(self.layout.names)}"
        raise DataError(what, where=str(self.layout.file), hint="All rows need as many.")

    def _add(self, rows: list[list[str]], lines: list[int]) -> None:
        self.profile.add(rows, lines)
        if self.label is not None:
            self._add_labels([row[self.label].strip() for row in rows])
        numbers = range(self.count, self.count + len(rows))
        self._counting = self._counting and all(
            row[0] == str(i) for row, i in zip(rows, numbers, strict=True)
        )
        self.count += len(rows)

    def _add_labels(self, cells: list[str]) -> None:
        known = self._texts
        if len(known) > CLASSES:  # texts beyond that are no classes, and numbers need no list
            return
        few = self.count <= _REMEMBERED
        for cell in cells:
            number = known.setdefault(cell, len(known))
            if few:
                self._ids.append(number)

    def labels(self) -> tuple[array[int], list[str]] | None:
        """(which of the texts each row has, the texts), if they are few and so are the rows."""
        whole = len(self._ids) == self.count and len(self._texts) <= CLASSES
        return (self._ids, list(self._texts)) if whole else None

    def classes(self) -> tuple[str, ...]:
        """The label's texts, sorted; () if they are numbers, or if there is no label."""
        if self.label is None or self.profile.kinds[self.label] < Kind.TRUTH:
            return ()
        if len(self._texts) > CLASSES:
            name = self.layout.names[self.label]
            what = f"column '{name}' holds more than {CLASSES} different texts: no labels"
            raise DataError(what, where=str(self.layout.file))
        return tuple(sorted(self._texts))

    def left_out(self) -> dict[int, str]:
        """Columns that are none, and why: the index that pandas writes, ends of lines."""
        layout, gaps = self.layout, self.profile.gaps
        last = len(layout.names) - 1
        maybe = layout.unnamed if layout.header else {last}
        found = {i: "is empty" for i in maybe if i in gaps and gaps[i][0] == self.count}
        if 0 in layout.unnamed and self._counting:
            found[0] = "has no name and counts the rows"
        return {i: why for i, why in found.items() if i != self.label}


def _field(scan: _Scan, index: int) -> Field:
    name, kind = scan.layout.names[index], Kind(scan.profile.kinds[index])
    if index == scan.label and kind >= Kind.TRUTH:
        return Field(name, torch.int64, text=True, refused=_without_class(scan, name))
    refused = _refusal(scan, index)
    whole = kind is Kind.INTEGER
    text = kind is Kind.TEXT
    return Field(name, torch.int64 if whole else torch.float64, text=text, refused=refused)


def _without_class(scan: _Scan, name: str) -> DataError | None:
    """Texts may well be NA or None, but not nothing at all."""
    if "" not in scan.classes():
        return None
    what, hint = f"column '{name}' has rows without a label", "Fill it in, or leave the rows out."
    return DataError(what, where=str(scan.layout.file), hint=hint)


def _refusal(scan: _Scan, index: int) -> DataError | None:
    layout = scan.layout
    name, where = layout.names[index], str(layout.file)
    gaps = scan.profile.gaps.get(index)
    text = scan.profile.texts.get(index)
    if gaps is not None:
        many = f"{gaps[0]} of {scan.count} rows"
        what = f"column '{name}' has no value in {many}, first in line {gaps[1]}"
        return DataError(what, where=where, hint="Fill it in, or leave the rows or the column out.")
    return None if text is None else _text(layout, name, *text, labelled=scan.label is not None)


def _text(layout: Layout, name: str, line: int, cell: str, *, labelled: bool) -> DataError:
    shown = cell if len(cell) <= 40 else f"{cell[:37]}..."
    what = f"column '{name}' holds texts, first '{shown}' in line {line}"
    plain = cell.strip().replace(",", "", 1)
    if "," in cell and plain.lstrip("+-").replace(".", "", 1).isdigit():
        hint = "Write decimals with a point."
    elif labelled:
        hint = "Leave the column out of the file, or turn its texts into numbers."
    else:
        hint = f"Turn them into numbers; if they are the labels: --label-column {name}."
    return DataError(what, where=str(layout.file), hint=hint)


class _CsvTable(Table):
    """What the scan found.

    Args:
        columns: number in the file of each field.
        label: field of the labels.
    """

    def __init__(
        self,
        layout: Layout,
        fields: Sequence[Field],
        columns: Sequence[int],
        scan: _Scan,
        label: int | None,
    ) -> None:
        super().__init__(str(layout.file), fields, scan.count)
        self._layout, self._columns, self._label = layout, columns, label
        self._labels = scan.labels()

    def open(self, groups: Mapping[str, Group]) -> Reader:
        if len(groups) == 1 and self._labels is not None:
            [(name, group)] = groups.items()
            if group.fields == (self._label,) and group.dtype is torch.int64:
                ids, texts = self._labels
                known = {c: i for i, c in enumerate(group.classes)}
                numbers = torch.tensor([known[t] if known else int(t) for t in texts])
                whole = numbers[torch.frombuffer(ids, dtype=torch.int32).long()]
                return Memory(self.path, {name: whole}).open([name])
        converters = {n: self._converter(g) for n, g in groups.items()}
        return _CsvReader(self._layout, converters)

    def _converter(self, group: Group) -> Callable[[list[list[str]]], np.ndarray]:
        columns = [self._columns[i] for i in group.fields]
        if group.classes:
            numbers = {c: i for i, c in enumerate(group.classes)}
            return lambda rows: np.array([numbers[r[columns[0]].strip()] for r in rows], np.int64)
        dtype = np.int64 if group.dtype is torch.int64 else np.float64
        if not group.joined:
            return lambda rows: np.array([truth(r[columns[0]]) for r in rows], dtype)
        pick: Callable[[list[str]], Any] = itemgetter(*columns)
        if len(columns) == 1:
            return lambda rows: np.array([[truth(pick(r))] for r in rows], dtype)

        def joined(rows: list[list[str]]) -> np.ndarray:
            cells = [pick(r) for r in rows]
            try:
                return np.array(cells, dtype)
            except ValueError:  # true and false among them
                return np.array([[truth(c) for c in row] for row in cells], dtype)

        return joined


class _CsvReader(Reader):
    """Passes over the rows that are not wanted without looking into them."""

    def __init__(
        self,
        layout: Layout,
        converters: Mapping[str, Callable[[list[list[str]]], np.ndarray]],
    ) -> None:
        self._converters, self._at = converters, 0
        self._step = max(1, _CELLS // len(layout.names))
        self._width = len(layout.names)
        self._path = str(layout.file)
        self._rows = rows_of(layout.file, layout.delimiter)
        if layout.header:
            next(self._rows, None)

    def take(self, rows: Rows) -> dict[str, torch.Tensor]:
        parts: list[dict[str, np.ndarray]] = []
        for start in range(0, len(rows), self._step):
            found = [self._row(int(i)) for i in rows[start : start + self._step]]
            with reading(self._path):
                parts.append({n: convert(found) for n, convert in self._converters.items()})
        return {n: torch.from_numpy(np.concatenate([p[n] for p in parts])) for n in parts[0]}

    def _row(self, wanted: int) -> list[str]:
        for _, row in self._rows:
            self._at += 1
            if self._at > wanted:
                if len(row) != self._width:
                    raise DataError("has changed while it was read")
                return row
        raise DataError("has fewer rows than it had when it was opened")

    def close(self) -> None:
        self._rows.close()

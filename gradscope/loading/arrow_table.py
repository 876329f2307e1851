"""Tables made of Arrow record batches, of which only those with wanted rows are looked into."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gradscope.config import DataSettings
from gradscope.errors import DataError
from gradscope.loading.arrow_cells import Classes, as_tensor, field_of
from gradscope.loading.numpy_rows import reading
from gradscope.loading.rows import Reader, Rows, count_below, joined, shifted
from gradscope.loading.table import Field, Group, Table, TableSource, find_label

if TYPE_CHECKING:
    import pyarrow as pa

Batches = Generator["pa.RecordBatch"]


class ArrowTable(Table):
    """Chunks (row groups, files) of record batches.

    Args:
        stops: past the last row of each chunk.
    """

    def __init__(self, path: str, fields: Sequence[Field], stops: Sequence[int]) -> None:
        super().__init__(path, fields, stops[-1] if len(stops) else 0)
        self.stops = np.asarray(stops, np.int64)

    @abstractmethod
    def batches(self, chunk: int, names: Sequence[str]) -> Batches:
        """Some columns of a chunk."""

    def open(self, groups: Mapping[str, Group]) -> Reader:
        return _ArrowReader(self, groups)


def arrow_source(table: ArrowTable, settings: DataSettings, notes: Sequence[str]) -> TableSource:
    """A table with its label chosen and the texts of it numbered.

    Raises:
        DataError: no rows, or too many classes.
        OptionError: no such column as ``--label-column`` names.
    """
    if not table.count:
        raise DataError("has no rows", where=table.path)
    label = find_label([f.name for f in table.fields], settings.label_column)
    classes: tuple[str, ...] = ()
    if label is not None and table.fields[label].text:
        name = table.fields[label].name
        found = Classes(name, table.path)
        with arrow_reading(table.path):
            for chunk in range(len(table.stops)):
                for batch in table.batches(chunk, [name]):
                    column = batch.column(0)
                    column.validate(full=True)
                    found.add(column)
        classes = found.sorted()
    return TableSource(table, label, classes, notes)


def fields_of(schema: pa.Schema, first: pa.RecordBatch, path: str) -> list[Field]:
    """Columns, by their types and first row.

    Raises:
        DataError: two of one name.
    """
    names = schema.names
    if len(set(names)) < len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise DataError(f"has two columns '{twice}'", where=path, hint="Rename one of them.")
    first.validate(full=True)
    return [field_of(schema.field(i), first.column(i), path) for i in range(len(names))]


@contextlib.contextmanager
def arrow_reading(path: str) -> Iterator[None]:
    """What pyarrow raises on a broken file, as one line."""
    import pyarrow as pa

    with reading(path):
        try:
            yield
        except (DataError, MemoryError):
            raise
        except (pa.ArrowException, TypeError, IndexError) as error:
            raise ValueError(str(error).rstrip(".")) from error


class _ArrowReader(Reader):
    """Rows out of batches; chunks without wanted rows are not opened."""

    def __init__(self, table: ArrowTable, groups: Mapping[str, Group]) -> None:
        self._table, self._groups = table, groups
        numbers = sorted({i for g in groups.values() for i in g.fields})
        self._names = [table.fields[i].name for i in numbers]
        self._chunk, self._batches = -1, None
        self._batch: Any = None
        self._start = self._stop = 0

    _batches: Batches | None

    def take(self, rows: Rows) -> dict[str, torch.Tensor]:
        found: list[dict[str, torch.Tensor]] = []
        done = 0
        with arrow_reading(self._table.path):
            while done < len(rows):
                self._seek(int(rows[done]))
                upto = count_below(rows, self._stop)
                found.append(self._picked(rows[done:upto]))
                done = upto
        return joined(found)

    def _seek(self, row: int) -> None:
        chunk = int(np.searchsorted(self._table.stops, row, side="right"))
        if chunk != self._chunk:
            self.close()
            self._chunk = chunk
            self._batches = self._table.batches(chunk, self._names)
            self._stop = int(self._table.stops[chunk - 1]) if chunk else 0
        while row >= self._stop:
            assert self._batches is not None
            self._batch = None  # before the next is made, not after
            batch = next(self._batches, None)
            if batch is None:
                raise DataError("has fewer rows than it had when it was opened")
            self._start = self._stop
            self._stop += batch.num_rows
            self._batch = batch

    def _picked(self, rows: Rows) -> dict[str, torch.Tensor]:
        local = shifted(rows, -self._start)
        columns = {n: _some(self._batch.column(n), local) for n in self._names}
        found = {}
        for name, group in self._groups.items():
            fields = [self._table.fields[i] for i in group.fields]
            arrays = [columns[f.name] for f in fields]
            found[name] = as_tensor(arrays, fields, group, rows, self._table.path)
        return found

    def close(self) -> None:
        self._batch = None
        if self._batches is not None:
            self._batches.close()


def _some(column: pa.Array, rows: Rows) -> pa.Array:
    """Some rows, their offsets checked: a file may claim what it does not hold."""
    import pyarrow as pa

    if isinstance(rows, range):
        some = column.slice(rows.start, len(rows))
        some.validate(full=True)
        return some
    column.validate(full=True)
    return column.take(pa.array(rows))

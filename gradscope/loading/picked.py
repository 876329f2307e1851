"""The chosen rows of a source, a batch at a time, as often as wanted."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence

import numpy as np
import torch

from gradscope.errors import DataError
from gradscope.loading.rows import Rows, Source, shifted

KEPT = 32 << 20
"""Bytes up to which the chosen rows stay in memory; more are read anew in every sweep."""


class Picked:
    """Batches of some rows, as they are in the file.

    Args:
        source: where they are read.
        names: its columns that are wanted.
        rows: ascending.
        size: rows in a batch; the last may have fewer.
    """

    def __init__(self, source: Source, names: Sequence[str], rows: Rows, size: int) -> None:
        self._source, self._names = source, list(dict.fromkeys(names))
        self._rows, self._size = rows, size
        columns = [source.columns[n] for n in self._names]
        small = sum(c.row_bytes for c in columns) * len(rows) <= KEPT
        self._keep = small or any(c.whole for c in columns)
        self._kept: dict[str, torch.Tensor] | None = None

    def first(self) -> dict[str, torch.Tensor]:
        """The first batch."""
        batches = iter(self)
        try:
            return next(batches)
        finally:
            batches.close()

    def __iter__(self) -> Generator[dict[str, torch.Tensor], None, None]:
        if self._keep and self._kept is None:
            [self._kept] = self._read(len(self._rows))
        kept = self._kept
        if kept is None:
            yield from self._read(self._size)
            return
        for start in range(0, len(self._rows), self._size):
            yield {n: t[start : start + self._size] for n, t in kept.items()}

    def only(self, indices: np.ndarray) -> Iterator[dict[str, torch.Tensor]]:
        """Batches of some of the chosen rows, by their places among these, ascending."""
        kept = self._kept
        if kept is not None:
            for start in range(0, len(indices), self._size):
                some = torch.from_numpy(indices[start : start + self._size])
                yield {n: t[some] for n, t in kept.items()}
            return
        rows = shifted(indices, self._rows.start) if isinstance(self._rows, range) else \
            self._rows[indices]  # fmt: skip
        yield from Picked(self._source, self._names, rows, self._size)._read(self._size)

    def _read(self, size: int) -> Iterator[dict[str, torch.Tensor]]:
        try:
            reader = self._source.open(self._names)
            try:
                for start in range(0, len(self._rows), size):
                    yield reader.take(self._rows[start : start + size])
            finally:
                reader.close()
        except DataError as error:
            if error.where is None:
                raise DataError(error.what, where=self._source.path, hint=error.hint) from error
            raise
        except MemoryError as error:
            raise DataError("does not fit into memory", where=self._source.path) from error

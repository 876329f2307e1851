"""Parquet, read by pyarrow a batch at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gradscope.config import DataSettings
from gradscope.errors import DataError
from gradscope.loading.arrow_cells import require
from gradscope.loading.arrow_table import (
    ArrowTable,
    Batches,
    arrow_reading,
    arrow_source,
    fields_of,
)
from gradscope.loading.table import Field, TableSource

_PIECE = 8 << 20
"""Bytes that are decoded at a time."""

_STREAMED: dict[str, Any] = {"pre_buffer": False, "buffer_size": 1 << 16}
"""Pages are read as they are needed; by default a whole row group is."""

_BOMB, _RATIO = 1 << 30, 1000
"""A row group that claims more bytes than this, and so many times more than the file has."""


def open_parquet(file: Path, settings: DataSettings) -> TableSource:
    """All rows of a Parquet file.

    Raises:
        DataError: broken, a bomb, or pyarrow is missing.
        OptionError: no such column as ``--label-column`` names.
    """
    require("parquet", str(file))
    import pyarrow.parquet as pq

    with arrow_reading(str(file)), pq.ParquetFile(file, **_STREAMED) as opened:
        metadata = opened.metadata
        _check_bomb(metadata, file)
        schema = opened.schema_arrow
        first = next(opened.iter_batches(batch_size=1, use_threads=False), None)
        if first is None or not metadata.num_row_groups:
            raise DataError("has no rows")
        fields = fields_of(schema, first, str(file))
    stops, total = [], 0
    for i in range(metadata.num_row_groups):
        total += metadata.row_group(i).num_rows
        stops.append(total)
    hidden = [f for f in fields if f.name.startswith("__index_level_")]
    notes = ["read as Parquet"]
    notes += [f"column '{f.name}' is the index of a pandas table: left out" for f in hidden]
    shown = [f for f in fields if f not in hidden]
    return arrow_source(_ParquetTable(file, shown, stops), settings, notes)


def _check_bomb(metadata: Any, file: Path) -> None:
    """Of row groups only: looking at a broken column from Python ends the process."""
    held = file.stat().st_size
    for i in range(metadata.num_row_groups):
        claimed = metadata.row_group(i).total_byte_size
        if claimed > max(_BOMB, _RATIO * held):
            what = f"row group {i} claims {claimed} bytes in a file of {held}"
            raise DataError(what, where=str(file))


class _ParquetTable(ArrowTable):
    """Row groups as chunks."""

    def __init__(self, file: Path, fields: Sequence[Field], stops: Sequence[int]) -> None:
        super().__init__(str(file), fields, stops)
        self._file = file

    def batches(self, chunk: int, names: Sequence[str]) -> Batches:
        import pyarrow.parquet as pq

        wanted = [f for f in self.fields if f.name in set(names)]
        row = sum(math.prod(f.shape) * f.dtype.itemsize for f in wanted)
        size = max(1, min(1 << 16, _PIECE // max(1, row)))
        with pq.ParquetFile(self._file, **_STREAMED) as opened:
            yield from opened.iter_batches(
                size, row_groups=[chunk], columns=list(names), use_threads=False
            )

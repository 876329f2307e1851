"""A folder that ``datasets`` wrote with ``save_to_disk``: Arrow streams with JSON beside them.

The library itself is not used: its files are plain Arrow, and so nothing is imported that could
run a script of the folder's or ask the network.
"""

from __future__ import annotations

import json
import os
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
from gradscope.loading.table import Field, TableSource, few

_STATE, _SPLITS = "state.json", "dataset_dict.json"
_JSON = 16 << 20


def is_dataset(folder: Path) -> bool:
    """Whether a folder looks like one that ``save_to_disk`` wrote."""
    return (folder / _STATE).is_file() or (folder / _SPLITS).is_file()


def open_dataset(folder: Path, settings: DataSettings) -> TableSource:
    """All rows of a saved dataset, or of the split ``train`` of several.

    Raises:
        DataError: broken, a split must be named, or pyarrow is missing.
        OptionError: no such column as ``--label-column`` names.
    """
    path = str(folder)
    pa = require("datasets", path)
    notes = ["read as a saved dataset"]
    if (folder / _SPLITS).is_file():
        folder, splits = _split(folder, settings)
        notes.append(f"split '{folder.name}' of {few(splits)}; {path}/NAME is another")
    files = _files(folder)
    stops, total = [], 0
    schema, first = None, None
    with arrow_reading(str(folder)):
        for file in files:
            with pa.memory_map(str(file)) as mapped, pa.ipc.open_stream(mapped) as stream:
                if schema is not None and not stream.schema.equals(schema):
                    raise DataError(f"'{file.name}' has other columns than '{files[0].name}'")
                schema = stream.schema
                for batch in stream:
                    if first is None and batch.num_rows:
                        first = batch.slice(0, 1)
                    total += batch.num_rows
            stops.append(total)
        if first is None or schema is None:
            raise DataError("has no rows")
        fields = fields_of(schema, first, str(folder))
    return arrow_source(_DatasetTable(str(folder), fields, stops, files), settings, notes)


def _split(folder: Path, settings: DataSettings) -> tuple[Path, list[str]]:
    listed = _json(folder / _SPLITS).get("splits")
    if not isinstance(listed, list) or not listed or not all(isinstance(s, str) for s in listed):
        raise DataError(f"{_SPLITS} lists no splits", where=str(folder))
    if settings.val is not None and Path(settings.val) == folder:
        hint = f"For example --val {folder / listed[-1]}."
        what = f"has the splits {few(listed)}, and which is held out is not said"
        raise DataError(what, where=str(folder), hint=hint)
    chosen = "train" if "train" in listed else listed[0]
    return _inside(folder, chosen), listed


def _files(folder: Path) -> list[Path]:
    state = _json(folder / _STATE)
    if state.get("_indices_data_files") or state.get("_indices_files"):
        hint = "Save it again: dataset.flatten_indices().save_to_disk(...)."
        what = "has its rows in another order than its files"
        raise DataError(what, where=str(folder), hint=hint)
    listed = state.get("_data_files")
    if not isinstance(listed, list) or not all(isinstance(f, dict) for f in listed):
        raise DataError(f"{_STATE} lists no files", where=str(folder))
    names = [f.get("filename") for f in listed]
    if not names:
        raise DataError("has no rows", where=str(folder))
    return [_inside(folder, name) for name in names]


def _inside(folder: Path, name: object) -> Path:
    """A file or folder right in this one, so that no file can point elsewhere."""
    plain = isinstance(name, str) and name not in ("", ".", "..") and Path(name).name == name
    found = folder / str(name)
    # A name too long, or with a NUL, is neither; a pipe or a device would be read without end.
    if not plain or not (os.path.isfile(found) or os.path.isdir(found)):
        raise DataError(f"there is no '{str(name)[:80]}' in it", where=str(folder))
    return found


def _json(file: Path) -> dict[str, Any]:
    try:
        if not file.is_file():
            raise DataError(f"there is no '{file.name}' in it", where=str(file.parent))
        if file.stat().st_size > _JSON:
            raise DataError("is too large", where=str(file))
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"is broken: {error}", where=str(file)) from error
    if not isinstance(value, dict):
        raise DataError("is no JSON object", where=str(file))
    return value


class _DatasetTable(ArrowTable):
    """Files as chunks."""

    def __init__(
        self, path: str, fields: Sequence[Field], stops: Sequence[int], files: Sequence[Path]
    ) -> None:
        super().__init__(path, fields, stops)
        self._files = files

    def batches(self, chunk: int, names: Sequence[str]) -> Batches:
        import pyarrow as pa

        # Only the pages that are looked at are read.
        with (
            pa.memory_map(str(self._files[chunk])) as mapped,
            pa.ipc.open_stream(mapped) as stream,
        ):
            for batch in stream:
                yield batch.select(list(names))

"""Columns of Arrow arrays (Parquet, saved ``datasets``) as numbers.

pyarrow is imported by those who have such a file: it belongs to an extra.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gradscope.errors import DataError
from gradscope.loading.numpy_rows import to_tensor
from gradscope.loading.rows import Rows
from gradscope.loading.table import CLASSES, Field, Group

if TYPE_CHECKING:
    import pyarrow as pa

_PLAIN = "gradscope runs numbers, truth values, and lists of them that are of equal length."
_DECODE = (
    "Decode the images into arrays first, e.g. dataset.map(lambda r: "
    "{'pixel_values': numpy.asarray(r['image'])}, remove_columns='image')."
)


def require(extra: str, path: str) -> Any:
    """pyarrow.

    Raises:
        DataError: it is not installed, with the command that would.
    """
    try:
        import pyarrow
    except ImportError as error:
        hint = f"pip install 'gradscope-cli[{extra}]'."
        raise DataError("cannot be read without pyarrow", where=path, hint=hint) from error
    return pyarrow


def field_of(kind: pa.Field, first: pa.Array, path: str) -> Field:
    """What is known of a column from its type and its first row.

    Args:
        kind: its name and type.
        first: its first row.
        path: of the file.
    """
    import pyarrow as pa

    shape: list[int] = []
    one, leaf = _storage(first), _plain(kind.type)
    while _is_list(leaf):
        if len(one) == 0 or one[0].as_py() is None:
            what = f"column '{kind.name}' has no value in row 0"
            return _refused(kind.name, what, path, "Fill it in, or leave the rows out.")
        one = _storage(one.slice(0, 1).flatten())
        shape.append(len(one))
        leaf = _plain(leaf.value_type)
    if pa.types.is_dictionary(leaf):
        leaf = leaf.value_type
    types = pa.types
    if types.is_string(leaf) or types.is_large_string(leaf) or types.is_string_view(leaf):
        if not shape:
            return Field(kind.name, torch.int64, text=True)
        return _refused(kind.name, f"column '{kind.name}' holds lists of texts", path, _PLAIN)
    dtype = _dtype(leaf)
    if dtype is not None:
        return Field(kind.name, dtype, tuple(shape))
    if types.is_struct(leaf) and any(f.name == "bytes" for f in leaf):
        what = f"column '{kind.name}' holds encoded images or sounds"
        return _refused(kind.name, what, path, _DECODE)
    if types.is_binary(leaf) or types.is_large_binary(leaf):
        what = f"column '{kind.name}' holds bytes, e.g. encoded images"
        return _refused(kind.name, what, path, _DECODE)
    what = f"column '{kind.name}' holds {str(leaf)[:60]}"
    return _refused(kind.name, what, path, _PLAIN)


def _refused(name: str, what: str, path: str, hint: str) -> Field:
    error = DataError(what, where=path, hint=hint)
    return Field(name, torch.float64, refused=error)


def _storage(array: pa.Array) -> pa.Array:
    """What an array of an extension type is made of."""
    while hasattr(array, "storage"):
        array = array.storage
    return array


def _plain(kind: pa.DataType) -> pa.DataType:
    while hasattr(kind, "storage_type"):
        kind = kind.storage_type
    return kind


def _is_list(kind: pa.DataType) -> bool:
    import pyarrow as pa

    is_list = pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list
    return any(test(kind) for test in is_list)


def _dtype(leaf: pa.DataType) -> torch.dtype | None:
    """As :func:`numbers` gives it; None if it is no number."""
    import pyarrow as pa

    if pa.types.is_boolean(leaf):
        return torch.bool
    if pa.types.is_decimal(leaf):
        return torch.float64
    if not (pa.types.is_integer(leaf) or pa.types.is_floating(leaf)):
        return None
    return to_tensor(np.array(pa.array([], leaf).to_numpy(zero_copy_only=False))).dtype


def numbers(array: pa.Array, field: Field, rows: Rows, path: str) -> np.ndarray:
    """[rows, *shape] of a column.

    Args:
        array: some rows; checked that its offsets are sound.
        field: what is expected of it.
        rows: numbers of these rows in the file, for messages.

    Raises:
        DataError: a cell without value or of another length.
    """
    import pyarrow as pa

    inner = _storage(array)
    for depth, size in enumerate(field.shape):
        per_row = math.prod(field.shape[:depth])
        _no_nulls(inner, field, rows, per_row, path)
        lengths = _lengths(inner)
        wrong = np.flatnonzero(lengths != size)
        if len(wrong):
            at = int(rows[int(wrong[0]) // per_row])
            what = (
                f"column '{field.name}' has {lengths[wrong[0]]} values in row {at}, {size} before"
            )
            raise DataError(what, where=path, hint="Pad or cut them to one length.")
        inner = _storage(inner.flatten())
    _no_nulls(inner, field, rows, math.prod(field.shape), path)
    if pa.types.is_decimal(inner.type):
        inner = inner.cast(pa.float64())
    flat = np.array(inner.to_numpy(zero_copy_only=False))  # a copy: Arrow's memory is read-only
    return flat.reshape(len(array), *field.shape)


def _lengths(array: pa.Array) -> np.ndarray:
    import pyarrow.compute as pc

    return np.asarray(pc.list_value_length(array).to_numpy(zero_copy_only=False))


def _no_nulls(array: pa.Array, field: Field, rows: Rows, per_row: int, path: str) -> None:
    if array.null_count:
        at = int(np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))[0])
        what = f"column '{field.name}' has no value in row {int(rows[at // per_row])}"
        raise DataError(what, where=path, hint="Fill it in, or leave the rows out.")


def texts(array: pa.Array) -> list[str | None]:
    """Cells of a column of texts."""
    plain = _storage(array)
    if hasattr(plain, "dictionary_decode"):
        plain = plain.dictionary_decode()
    return [None if cell is None else str(cell) for cell in plain.to_pylist()]


def as_tensor(
    arrays: Sequence[pa.Array], fields: Sequence[Field], group: Group, rows: Rows, path: str
) -> torch.Tensor:
    """Some rows of a group.

    Args:
        arrays, fields: of the group's fields.
        rows: numbers of these rows in the file, for messages.
    """
    if group.classes:
        known = {c: i for i, c in enumerate(group.classes)}
        cells = [known.get(c or "") for c in texts(arrays[0])]
        if None in cells:
            at = int(rows[cells.index(None)])
            what = f"column '{fields[0].name}' has no label in row {at}"
            raise DataError(what, where=path, hint="Fill it in, or leave the rows out.")
        return torch.tensor(cells, dtype=torch.int64)
    pairs = zip(arrays, fields, strict=True)
    found = [to_tensor(numbers(a, f, rows, path)).to(group.dtype) for a, f in pairs]
    return torch.stack(found, 1) if group.joined else found[0]


class Classes:
    """Different texts of a column of labels."""

    def __init__(self, name: str, path: str) -> None:
        self._name, self._path, self._found = name, path, dict[str, None]()

    def add(self, array: pa.Array) -> None:
        """Learn from some rows."""
        self._found.update(dict.fromkeys(c for c in texts(array) if c is not None))
        if len(self._found) > CLASSES:
            what = f"column '{self._name}' holds more than {CLASSES} different texts: no labels"
            raise DataError(what, where=self._path)

    def sorted(self) -> tuple[str, ...]:
        """In the order of their numbers."""
        return tuple(sorted(self._found))

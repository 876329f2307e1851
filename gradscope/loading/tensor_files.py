"""Samples in safetensors files and in what ``torch.save`` wrote."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from gradscope.config import LoadSettings
from gradscope.errors import DataError, LoadError
from gradscope.loading.casting import NUMBERS, with_arithmetic
from gradscope.loading.detect import FileKind
from gradscope.loading.numpy_rows import Numbers, Readers, Stored, reading
from gradscope.loading.pytorch import load_pickled
from gradscope.loading.rows import Column, Memory, Reader, Source, single_number

MAPPED = 32 << 20
"""From this size on a ``.pt`` file is mapped; below it is read, which compares its checksums."""

_AGAIN = "Save or copy the file again."

# As safetensors names them -> (as the bytes are read, as they are handed on).
_DTYPES = {
    "F64": (torch.float64, torch.float64),
    "F32": (torch.float32, torch.float32),
    "F16": (torch.float16, torch.float16),
    "BF16": (torch.bfloat16, torch.bfloat16),
    "I64": (torch.int64, torch.int64),
    "I32": (torch.int32, torch.int32),
    "I16": (torch.int16, torch.int16),
    "I8": (torch.int8, torch.int8),
    "U64": (torch.uint64, torch.int64),
    "U32": (torch.uint32, torch.int64),
    "U16": (torch.uint16, torch.int64),
    "U8": (torch.uint8, torch.uint8),
    "BOOL": (torch.uint8, torch.bool),
}


class SafetensorsFile(Source):
    """Tensors of a safetensors file, read where they stand."""

    def __init__(self, file: Path, header: Mapping[str, Any], start: int) -> None:
        columns, refused, self._places = {}, {}, {}
        for name, entry in header.items():
            shape, kind = tuple(entry["shape"]), entry["dtype"]
            if kind not in _DTYPES:
                hint = "gradscope runs real, integer and boolean arrays."
                refused[name] = DataError(f"'{name}' has type {kind}", where=str(file), hint=hint)
            elif not shape:
                refused[name] = single_number(name, str(file))
            else:
                raw, dtype = _DTYPES[kind]
                columns[name] = Column(shape, dtype)
                self._places[name] = (start + entry["data_offsets"][0], _numbers(raw, dtype))
        super().__init__(str(file), columns, refused=refused)
        self._file = file

    def open(self, names: Sequence[str]) -> Reader:
        with reading(self.path):
            readers: dict[str, Reader] = {}
            for name in names:
                offset, numbers = self._places[name]
                readers[name] = Stored(self._file, offset, self.columns[name].shape, numbers)
            return Readers(readers, self.path)


def _numbers(raw: torch.dtype, dtype: torch.dtype) -> Numbers:
    def tensor(data: bytearray, shape: tuple[int, ...]) -> torch.Tensor:
        if not data:
            return torch.empty(shape, dtype=dtype)
        read = torch.frombuffer(data, dtype=raw).reshape(shape)
        found = read != 0 if dtype is torch.bool else read.to(dtype)
        if raw is torch.uint64 and bool((found < 0).any()):
            raise ValueError("it holds integers beyond 64 bits with a sign")
        return found

    return Numbers(raw.itemsize, tensor)


def open_safetensors(file: Path) -> SafetensorsFile:
    """All tensors of a file.

    Raises:
        DataError: it is broken.
    """
    try:
        with safe_open(str(file), framework="pt"):  # its own checks: sizes, overlaps, names
            pass
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(f"is broken: {error}", where=str(file), hint=_AGAIN) from error
    with reading(str(file)), file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            known = _DTYPES.get(entry["dtype"])
            if known and math.prod(entry["shape"]) * known[0].itemsize != end - begin:
                raise ValueError(f"'{name}' has another size than its shape says")
        return SafetensorsFile(file, header, 8 + length)


def open_torch(file: Path, kind: FileKind) -> Memory:
    """Tensors that ``torch.save`` wrote: one, a pair (x, y), or a dictionary of them.

    Raises:
        DataError: it is broken, would run code, or holds no tensors.
    """
    return Memory(str(file), *_tensors(_load(file, kind), file))


def _load(file: Path, kind: FileKind) -> Any:
    mapped = kind is FileKind.TORCH_ZIP and file.stat().st_size >= MAPPED
    try:
        return load_pickled(file, kind, LoadSettings(), mapped=mapped)
    except LoadError as error:
        hint = "Nothing was run. Save plain tensors, or use .npz."
        raise DataError(error.what, where=str(file), hint=hint) from error


def _tensors(loaded: Any, file: Path) -> tuple[dict[str, torch.Tensor], dict[str, DataError]]:
    named: Mapping[Any, Any] = {}
    if isinstance(loaded, torch.Tensor):
        named = {"x": loaded}
    elif isinstance(loaded, list | tuple) and 1 <= len(loaded) <= 2:
        named = dict(zip(("x", "y"), loaded, strict=False))
    elif isinstance(loaded, Mapping):
        named = loaded
    with reading(str(file)):
        fine = {str(k): with_arithmetic(v.detach()) for k, v in named.items() if _is_plain(v)}
    if not fine:
        hint = "Save a dictionary of tensors, e.g. {'x': inputs, 'y': labels}."
        raise DataError(f"holds a {type(loaded).__name__}, not tensors", where=str(file), hint=hint)
    refused = {
        str(k): DataError(f"'{k}' is no plain tensor ({type(v).__name__})", where=str(file))
        for k, v in named.items()
        if not _is_plain(v)
    }
    return fine, refused


def _is_plain(value: Any) -> bool:
    return (
        isinstance(value, torch.Tensor)
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
        and not value.is_nested
        and value.dtype in NUMBERS
    )

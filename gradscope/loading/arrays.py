"""Reads data files into named arrays, without running anything that stands in them."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from gradscope.errors import DataError, LoadError
from gradscope.loading.detect import FileKind, check_file, detect

_AGAIN = "Save or copy the file again."


def read_arrays(path: str) -> dict[str, torch.Tensor]:
    """Arrays of a data file by name; a single one is called ``x``.

    Raises:
        DataError: no such file, broken, or something else than numbers.
    """
    try:
        file = check_file(path)
        kind = detect(file)
    except LoadError as error:
        hint = "Name a data file." if "folder" in error.what else error.hint
        raise DataError(error.what, where=path, hint=hint) from error
    try:
        if kind in (FileKind.NPZ, FileKind.NPY):
            return _from_numpy(file, kind)
        if kind in (FileKind.TORCH_ZIP, FileKind.TORCH_LEGACY):
            return _from_torch(file)
        if kind is FileKind.SAFETENSORS:
            return _from_safetensors(file)
    except MemoryError as error:
        raise DataError("does not fit into memory", where=path) from error
    hint = "gradscope reads .npz, .npy, .pt, .safetensors, or MODULE:CALLABLE."
    raise DataError(f"is no data file (content: {kind})", where=path, hint=hint)


def _from_numpy(file: Path, kind: FileKind) -> dict[str, torch.Tensor]:
    size = file.stat().st_size
    try:
        if kind is FileKind.NPY:
            return {"x": _tensor(np.load(file, allow_pickle=False), "x", file)}
        with zipfile.ZipFile(file) as archive:
            inflated = sum(e.file_size for e in archive.infolist())
        # deflate cannot do better than about 1030 to 1; more is a forged size
        if inflated > 1100 * size + 4096:
            raise DataError("claims more bytes than it can hold", where=str(file))
        with np.load(file, allow_pickle=False) as arrays:
            return {name: _tensor(arrays[name], name, file) for name in arrays.files}
    except (ValueError, OSError, EOFError, KeyError, SyntaxError, zipfile.BadZipFile) as error:
        first = str(error).split("\n")[0]
        if "allow_pickle" in first or "Object arrays" in first:
            hint = "Save plain numeric arrays."
            raise DataError("holds Python objects", where=str(file), hint=hint) from error
        raise DataError(f"is broken: {first}", where=str(file), hint=_AGAIN) from error
    except Exception as error:  # zlib and numpy's header parser have errors of their own
        what = f"is broken: {type(error).__name__}: {error}"
        if isinstance(error, DataError):
            raise
        raise DataError(what, where=str(file), hint=_AGAIN) from error


def _tensor(array: Any, name: str, file: Path) -> torch.Tensor:
    if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
        hint = "gradscope runs real, integer and boolean arrays."
        what = f"array '{name}' has type {array.dtype}"
        raise DataError(what, where=str(file), hint=hint)
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    if native.dtype.kind == "u" and native.dtype.itemsize > 1:
        native = native.astype(np.int64)
    return torch.from_numpy(np.ascontiguousarray(native))


def _from_torch(file: Path) -> dict[str, torch.Tensor]:
    from gradscope.config import LoadSettings
    from gradscope.loading.pytorch import load_pickled

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            loaded = load_pickled(file, detect(file), LoadSettings())
        except LoadError as error:
            hint = "Nothing was run. Save plain tensors, or use .npz."
            raise DataError(error.what, where=str(file), hint=hint) from error
    if isinstance(loaded, torch.Tensor):
        return {"x": loaded.detach()}
    pair = isinstance(loaded, list | tuple) and 1 <= len(loaded) <= 2
    if pair and all(isinstance(t, torch.Tensor) for t in loaded):
        return {n: t.detach() for n, t in zip(("x", "y"), loaded, strict=False)}
    if isinstance(loaded, Mapping) and all(isinstance(v, torch.Tensor) for v in loaded.values()):
        return {str(k): v.detach() for k, v in loaded.items()}
    hint = "Save a dictionary of tensors, e.g. {'x': inputs, 'y': labels}."
    raise DataError(f"holds a {type(loaded).__name__}, not tensors", where=str(file), hint=hint)


def _from_safetensors(file: Path) -> dict[str, torch.Tensor]:
    try:
        with safe_open(str(file), framework="pt") as archive:
            return {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(f"is broken: {error}", where=str(file), hint=_AGAIN) from error

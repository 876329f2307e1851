"""From a path to a :class:`~gradscope.loading.rows.Source`, by content and never by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gradscope.config import DataSettings
from gradscope.errors import DataError, LoadError
from gradscope.loading.csv_files import open_csv
from gradscope.loading.detect import FileKind, check_file, detect
from gradscope.loading.folders import open_folder
from gradscope.loading.numpy_files import open_npy, open_npz
from gradscope.loading.parquet_files import open_parquet
from gradscope.loading.rows import Source
from gradscope.loading.tensor_files import open_safetensors, open_torch

Opener = Callable[[Path, DataSettings], Source]
"""Opens a file whose kind is known; raises DataError."""

OPENERS: dict[FileKind, Opener] = {
    FileKind.NPZ: lambda file, settings: open_npz(file, whole=settings.samples is None),
    FileKind.NPY: lambda file, settings: open_npy(file),
    FileKind.SAFETENSORS: lambda file, settings: open_safetensors(file),
    FileKind.TORCH_ZIP: lambda file, settings: open_torch(file, FileKind.TORCH_ZIP),
    FileKind.TORCH_LEGACY: lambda file, settings: open_torch(file, FileKind.TORCH_LEGACY),
    FileKind.TEXT: open_csv,
    FileKind.PARQUET: open_parquet,
}


def open_source(path: str, settings: DataSettings) -> Source:
    """The samples of a data file; only its headers are read.

    Args:
        path: of a file or folder, as the user named it.
        settings: what else the user said of the data.

    Raises:
        DataError: no such file, broken, or something else than numbers.
    """
    try:
        if Path(path).is_dir():
            return open_folder(Path(path), settings)
        file = check_file(path)
        kind = detect(file)
    except LoadError as error:
        raise DataError(error.what, where=path, hint=error.hint) from error
    opener = OPENERS.get(kind)
    if opener is None:
        hint = "gradscope reads .npz, .npy, .pt, .safetensors, .csv, Parquet, folders of shards, "
        hint += "or MODULE:CALLABLE."
        raise DataError(f"is no data file (content: {kind})", where=path, hint=hint)
    return opener(file, settings)

"""Folders: shards of arrays, one after the other, and files of single arrays, side by side."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from gradscope.config import DataSettings
from gradscope.errors import DataError, LoadError
from gradscope.loading.dataset_folder import is_dataset, open_dataset
from gradscope.loading.detect import FileKind, check_file, detect
from gradscope.loading.joined import Beside, Joined
from gradscope.loading.numpy_files import open_npy, open_npz
from gradscope.loading.onnx import open_test_data
from gradscope.loading.rows import Source
from gradscope.loading.tensor_files import open_safetensors

_SHARDS: dict[FileKind, Callable[[Path], Source]] = {
    FileKind.NPZ: open_npz,
    FileKind.NPY: open_npy,
    FileKind.SAFETENSORS: open_safetensors,
}

_HINT = (
    "gradscope reads folders of .npz, .npy or .safetensors shards, saved datasets and "
    "ONNX's test_data_set_N."
)

# A number at the end, and what stands before it: x_00012, part-3-of-8, 7.
_NUMBERED = re.compile(r"(?P<name>.*?)[-_. ]*(\d+([-_]of[-_]\d+)?)?", re.DOTALL)


def open_folder(folder: Path, settings: DataSettings) -> Source:
    """All samples of a folder.

    Raises:
        DataError: it holds no samples, or shards that differ.
    """
    if is_dataset(folder):
        return open_dataset(folder, settings)
    if any(folder.glob("input_*.pb")) or any(folder.glob("test_data_set_*/input_*.pb")):
        return open_test_data(folder)
    files, kind, left = _files(folder)
    notes = [f"{left} other files in the folder were left out"] if left else []
    open_one = _SHARDS[kind]
    if kind is not FileKind.NPY:
        return Joined(str(folder), [open_one(f) for f in files], notes)
    groups: dict[str, list[Path]] = {}
    for file in files:
        match = _NUMBERED.fullmatch(file.stem)
        groups.setdefault(match["name"] if match else "", []).append(file)
    if len(groups) == 1:
        groups = {"x": files}
    columns = {
        name: Joined(str(folder), [open_npy(f, name) for f in shards], ())
        for name, shards in groups.items()
    }
    return Beside(str(folder), columns, notes)


def _files(folder: Path) -> tuple[list[Path], FileKind, int]:
    """Shards in their order, their kind, and how many files are something else."""
    kinds: dict[Path, FileKind] = {}
    try:
        paths = [p for p in folder.iterdir() if not p.name.startswith(".") and p.is_file()]
        for path in sorted(paths, key=lambda p: natural(p.name)):
            kinds[path] = _kind(path)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(folder)) from error
    found = Counter(k for k in kinds.values() if k in _SHARDS)
    if not found:
        raise DataError("is a folder without shards", where=str(folder), hint=_HINT)
    if len(found) > 1:
        what = "holds " + " and ".join(f"{n} {k} files" for k, n in found.items())
        raise DataError(what, where=str(folder), hint="Keep shards of one kind in it.")
    [kind] = found
    return [p for p, k in kinds.items() if k is kind], kind, len(kinds) - found[kind]


def _kind(path: Path) -> FileKind:
    try:
        return detect(check_file(str(path)))
    except LoadError as error:
        if path.suffix in (".npz", ".npy", ".safetensors"):  # a broken shard is not left out
            raise DataError(error.what, where=str(path), hint=error.hint) from error
        return FileKind.UNKNOWN


def natural(name: str) -> list[tuple[int, int, str]]:
    """Orders names as people do: shard_2 before shard_10."""
    parts = re.findall(r"\d+|\D+", name)
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts]

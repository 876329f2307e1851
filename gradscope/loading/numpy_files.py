"""``.npy`` and ``.npz``: headers checked against the file's size, rows read where they stand.

numpy's own ``load`` takes a whole array into memory. Here a stored array is read with seek and
read, a deflated one is inflated piece by piece, and neither ever unpickles.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from gradscope.errors import DataError
from gradscope.loading.numpy_rows import AGAIN, Place, Readers, finish, reader_of, reading
from gradscope.loading.rows import Reader, Source, single_number

CHECKED = 512 << 20
"""Stored members up to this size are checked against their checksum, about a second a GB, and
larger ones where all samples are read; inflating always checks."""

_PLAIN = "Save plain numeric arrays."


class NumpyFile(Source):
    """Arrays of one ``.npy`` or ``.npz`` file."""

    def __init__(
        self,
        path: str,
        places: dict[str, Place],
        refused: dict[str, DataError],
        singles: dict[str, Place],
        notes: Sequence[str] = (),
    ) -> None:
        columns = {n: p.column() for n, p in places.items()}
        super().__init__(path, columns, refused=refused, notes=notes)
        self._places, self._singles = places, singles

    def single(self, name: str) -> torch.Tensor:
        if name not in self._singles:
            raise self.refused[name]
        with reading(self.path):
            place = replace(self._singles[name], shape=(1,))
            reader = Readers({name: reader_of(place)}, self.path)
            try:
                return reader.take(range(1))[name].reshape(())
            finally:
                reader.close()

    def open(self, names: Sequence[str]) -> Reader:
        with reading(self.path):
            return Readers({n: reader_of(self._places[n]) for n in names}, self.path)


def open_npy(file: Path, name: str = "x") -> NumpyFile:
    """One array under a name.

    Raises:
        DataError: broken, or not of numbers.
    """
    with reading(str(file)), file.open("rb") as stream:
        dtype, shape, fortran = _header(stream, file)
        place = Place(file, dtype, shape, fortran, stream.tell())
    _check_size(place, file.stat().st_size - place.offset)
    return _source(file, {name: place})


def open_npz(file: Path, *, whole: bool = False) -> NumpyFile:
    """All arrays of an archive.

    Args:
        file: the archive.
        whole: all of it will be read, so its checksums are compared whatever its size.

    Raises:
        DataError: broken, a bomb, or without an array of numbers.
    """
    places, unchecked = {}, []
    with reading(str(file)), zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        _check_archive(entries, file)
        for entry in entries:
            name = entry.filename.removesuffix(".npy")
            places[name] = _member(archive, entry, file)
            if entry.compress_type == zipfile.ZIP_STORED:
                if whole or entry.file_size <= CHECKED:
                    with archive.open(entry) as stream:
                        finish(stream)
                else:
                    unchecked.append(name)
    notes = [
        f"'{name}' has more than {CHECKED >> 20} MB and was not compared with its checksum; "
        "--samples all does it"
        for name in unchecked
    ]
    return _source(file, places, notes)


def _source(file: Path, places: dict[str, Place], notes: Sequence[str] = ()) -> NumpyFile:
    fine, refused, singles = {}, {}, {}
    for name, place in places.items():
        error = _refusal(name, place, file)
        if error is None:
            fine[name] = place
        else:
            refused[name] = error
            if place.dtype.kind in "fiub" and place.dtype.itemsize <= 8 and not place.shape:
                singles[name] = place
    return NumpyFile(str(file), fine, refused, singles, notes)


def _refusal(name: str, place: Place, file: Path) -> DataError | None:
    dtype = place.dtype
    if dtype.hasobject:
        return DataError(f"array '{name}' holds Python objects", where=str(file), hint=_PLAIN)
    if dtype.kind not in "fiub" or dtype.itemsize > 8:
        hint = "gradscope runs real, integer and boolean arrays."
        if dtype.kind in "US":
            hint = "Store classes as integers, or pass a CSV, where texts become classes."
        return DataError(f"array '{name}' has type {dtype}", where=str(file), hint=hint)
    if not place.shape:
        return single_number(name, str(file))
    return None


def _check_archive(entries: list[zipfile.ZipInfo], file: Path) -> None:
    names = [e.filename for e in entries]
    if len(set(names)) < len(names):
        raise DataError("holds two arrays of one name", where=str(file), hint=AGAIN)
    # deflate cannot do better than about 1030 to 1; more is a forged size
    if sum(e.file_size for e in entries) > 1100 * file.stat().st_size + 4096:
        raise DataError("claims more bytes than it can hold", where=str(file))
    for entry in entries:
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            what = f"'{entry.filename}' is compressed in a way that numpy does not write"
            raise DataError(what, where=str(file), hint="Save it with numpy.savez_compressed.")
        if entry.flag_bits & 1:
            raise DataError(f"'{entry.filename}' is encrypted", where=str(file))


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, file: Path) -> Place:
    with archive.open(entry) as stream:
        dtype, shape, fortran = _header(stream, file)
        header = stream.tell()
    if entry.compress_type == zipfile.ZIP_DEFLATED:
        place = Place(file, dtype, shape, fortran, header, entry.filename)
        _check_size(place, entry.file_size - header)
        return place
    start = _start_of(entry, file)
    place = Place(file, dtype, shape, fortran, start + header)
    _check_size(place, min(entry.file_size, file.stat().st_size - start) - header)
    return place


def _start_of(entry: zipfile.ZipInfo, file: Path) -> int:
    """Where a stored member's bytes begin: its local header may be longer than the central one."""
    with file.open("rb") as stream:
        stream.seek(entry.header_offset)
        local = stream.read(30)
    if len(local) < 30 or local[:4] != b"PK\x03\x04":
        raise zipfile.BadZipFile("no local header where the directory says")
    return (
        entry.header_offset
        + 30
        + int.from_bytes(local[26:28], "little")
        + int.from_bytes(local[28:30], "little")
    )


def _header(stream: IO[bytes], file: Path) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    else:  # 3.0 is for names of fields beyond latin-1
        raise DataError("holds an array of records", where=str(file), hint=_PLAIN)
    if any(size < 0 for size in shape):
        raise ValueError(f"negative size in shape {shape}")
    return dtype, shape, fortran and len(shape) > 1


def _check_size(place: Place, available: int) -> None:
    """A header may claim any shape; the bytes must be there before memory is taken."""
    claimed = math.prod(place.shape) * place.dtype.itemsize
    if claimed > available and not place.dtype.hasobject:
        what = f"is broken: claims an array {place.shape} of {claimed} bytes, has {available}"
        raise DataError(what, where=str(place.file), hint=AGAIN)

"""``.npy`` and ``.npz``: headers checked against the file's size, rows read where they stand.

numpy's own ``load`` takes a whole array into memory. Here a stored array is read with seek and
read, a deflated one is inflated piece by piece, and neither ever unpickles.
"""

from __future__ import annotations

import contextlib
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from gradscope.errors import DataError
from gradscope.loading.rows import (
    Column,
    PieceReader,
    Reader,
    Rows,
    Source,
    count_below,
    runs,
    single_number,
)

PIECE = 1 << 20
"""Bytes that are inflated or skipped at a time."""

CHECKED = 512 << 20
"""Stored members up to this size are checked against their checksum, about a second a GB; inflating
always checks."""

_INT64_MAX = 2**63 - 1
_AGAIN = "Save or copy the file again."
_PLAIN = "Save plain numeric arrays."


@dataclass(frozen=True)
class Place:
    """Where an array's numbers are.

    Attributes:
        file: that holds them.
        dtype: as stored.
        shape: samples first.
        fortran: whether samples are the fastest axis.
        offset: of the first number in the file; within the member if that is deflated.
        member: the deflated member of an archive; None if the numbers stand in the file as is.
    """

    file: Path
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    offset: int
    member: str | None = None

    @property
    def row(self) -> int:
        """Numbers in a sample."""
        return math.prod(self.shape[1:])

    def column(self) -> Column:
        """As it will be read."""
        whole = self.fortran and self.member is not None
        return Column(self.shape, to_tensor(np.empty(0, self.dtype)).dtype, whole)


class NumpyFile(Source):
    """Arrays of one ``.npy`` or ``.npz`` file."""

    def __init__(
        self,
        path: str,
        places: dict[str, Place],
        refused: dict[str, DataError],
        singles: dict[str, Place],
    ) -> None:
        super().__init__(path, {n: p.column() for n, p in places.items()}, refused=refused)
        self._places, self._singles = places, singles

    def single(self, name: str) -> torch.Tensor:
        if name not in self._singles:
            raise self.refused[name]
        with reading(self.path):
            place = replace(self._singles[name], shape=(1,))
            reader = Readers({name: _reader(place)}, self.path)
            try:
                return reader.take(range(1))[name].reshape(())
            finally:
                reader.close()

    def open(self, names: Sequence[str]) -> Reader:
        with reading(self.path):
            return Readers({n: _reader(self._places[n]) for n in names}, self.path)


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


def open_npz(file: Path) -> NumpyFile:
    """All arrays of an archive.

    Raises:
        DataError: broken, a bomb, or without an array of numbers.
    """
    places = {}
    with reading(str(file)), zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        _check_archive(entries, file)
        for entry in entries:
            places[entry.filename.removesuffix(".npy")] = _member(archive, entry, file)
    return _source(file, places)


def _source(file: Path, places: dict[str, Place]) -> NumpyFile:
    fine, refused, singles = {}, {}, {}
    for name, place in places.items():
        error = _refusal(name, place, file)
        if error is None:
            fine[name] = place
        else:
            refused[name] = error
            if place.dtype.kind in "fiub" and place.dtype.itemsize <= 8 and not place.shape:
                singles[name] = place
    return NumpyFile(str(file), fine, refused, singles)


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
        raise DataError("holds two arrays of one name", where=str(file), hint=_AGAIN)
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
    if entry.file_size <= CHECKED:
        with archive.open(entry) as stream:
            _finish(stream)
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
        raise DataError(what, where=str(place.file), hint=_AGAIN)


@contextlib.contextmanager
def reading(path: str) -> Iterator[None]:
    """What zip, zlib and numpy raise on a broken file, as one line."""
    try:
        yield
    except DataError as error:
        if error.where is None:
            raise DataError(error.what, where=path, hint=error.hint) from error
        raise
    except MemoryError as error:
        raise DataError("does not fit into memory", where=path) from error
    except (
        ValueError, TypeError, OverflowError, OSError, EOFError, KeyError, SyntaxError,
        RuntimeError, NotImplementedError, RecursionError, struct.error, tokenize.TokenError,
        zipfile.BadZipFile, zlib.error,
    ) as error:  # fmt: skip
        first = str(error).split("\n")[0]
        raise DataError(f"is broken: {first}", where=path, hint=_AGAIN) from error


def to_tensor(array: np.ndarray) -> torch.Tensor:
    """As torch has it: native byte order, unsigned integers beyond a byte as int64.

    Raises:
        ValueError: an integer that int64 cannot hold.
    """
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    if native.dtype.kind == "u" and native.dtype.itemsize > 1:
        if native.dtype.itemsize == 8 and native.size and int(native.max()) > _INT64_MAX:
            raise ValueError("it holds integers beyond 64 bits with a sign")
        native = native.astype(np.int64)
    if native.dtype.kind == "b":
        native = native.view(np.uint8) != 0  # a file may hold bytes that are no booleans
    return torch.from_numpy(np.ascontiguousarray(native))


class Readers(Reader):
    """One reader an array, in step; what they raise becomes one line about ``path``."""

    def __init__(self, readers: dict[str, Reader], path: str) -> None:
        self._readers, self._path = readers, path

    def take(self, rows: Rows) -> dict[str, torch.Tensor]:
        with reading(self._path):
            return {n: r.take(rows)[""] for n, r in self._readers.items()}

    def close(self) -> None:
        for reader in self._readers.values():
            reader.close()


def _reader(place: Place) -> Reader:
    if place.member is None:
        return Stored(place.file, place.offset, place.shape, Numbers.of(place), place.fortran)
    if place.fortran:
        return _DeflatedColumns(place)
    return PieceReader(_inflated(place))


@dataclass(frozen=True)
class Numbers:
    """How bytes become numbers.

    Attributes:
        size: bytes of one.
        tensor: (bytes, shape) -> tensor.
    """

    size: int
    tensor: Callable[[bytearray, tuple[int, ...]], torch.Tensor]

    @staticmethod
    def of(place: Place) -> Numbers:
        """Of an array of numpy's."""
        dtype = place.dtype

        def tensor(data: bytearray, shape: tuple[int, ...]) -> torch.Tensor:
            return to_tensor(np.frombuffer(data, dtype).reshape(shape))

        return Numbers(dtype.itemsize, tensor)


class Stored(Reader):
    """Numbers that stand in a file as they are: rows are read at their offsets, and only they."""

    def __init__(
        self,
        file: Path,
        offset: int,
        shape: tuple[int, ...],
        numbers: Numbers,
        fortran: bool = False,
    ) -> None:
        self._stream = file.open("rb", buffering=0)
        self._offset, self._shape, self._numbers = offset, shape, numbers
        self._fortran = fortran

    def take(self, rows: Rows) -> dict[str, torch.Tensor]:
        inner = self._shape[1:]
        if not self._fortran:
            size = math.prod(inner) * self._numbers.size
            data = self._read(rows, self._offset, size, 1)
            return {"": self._numbers.tensor(data, (len(rows), *inner))}
        # Samples are the fastest axis: as many stretches as there are numbers in a sample.
        data = self._read(rows, self._offset, self._numbers.size, math.prod(inner))
        whole = self._numbers.tensor(data, (*inner[::-1], len(rows)))
        return {"": whole.permute(*reversed(range(whole.dim()))).contiguous()}

    def _read(self, rows: Rows, offset: int, size: int, times: int) -> bytearray:
        """``size`` bytes for each row, from each of ``times`` arrays that follow one another."""
        data = bytearray(len(rows) * size * times)
        view, filled = memoryview(data), 0
        stretches = list(runs(rows))
        for i in range(times):
            base = offset + i * self._shape[0] * size
            for first, last in stretches:
                self._stream.seek(base + first * size)
                length = (last - first) * size
                self._fill(view[filled : filled + length])
                filled += length
        return data

    def _fill(self, view: memoryview) -> None:
        while len(view):
            got = self._stream.readinto(view)
            if not got:
                raise EOFError("it ends before its last sample")
            view = view[got:]

    def close(self) -> None:
        self._stream.close()


def _inflated(place: Place) -> Iterator[dict[str, torch.Tensor]]:
    """All rows of a deflated array, about :data:`PIECE` bytes at a time."""
    size = place.row * place.dtype.itemsize
    step = max(1, PIECE // max(1, size))
    numbers = Numbers.of(place)
    with _member_stream(place) as stream:
        for start in range(0, place.shape[0], step):
            count = min(step, place.shape[0] - start)
            data = _exactly(stream, count * size)
            yield {"": numbers.tensor(data, (count, *place.shape[1:]))}
        _finish(stream)


def _finish(stream: IO[bytes]) -> None:
    """To the end, where the checksum is compared."""
    while stream.read(PIECE):
        pass


@contextlib.contextmanager
def _member_stream(place: Place) -> Iterator[IO[bytes]]:
    assert place.member is not None
    with zipfile.ZipFile(place.file) as archive, archive.open(place.member) as stream:
        _exactly(stream, place.offset)
        yield stream


def _exactly(stream: IO[bytes], count: int) -> bytearray:
    data = bytearray(count)
    view, filled = memoryview(data), 0
    while filled < count:
        part = stream.read(min(PIECE, count - filled))
        if not part:
            raise EOFError("it ends before its last sample")
        view[filled : filled + len(part)] = part
        filled += len(part)
    return data


class _DeflatedColumns(Reader):
    """Samples are the fastest axis and deflated: each call inflates all of it and keeps its rows.

    Where the sample is kept in memory there is only one such call.
    """

    def __init__(self, place: Place) -> None:
        self._place = place

    def take(self, rows: Rows) -> dict[str, torch.Tensor]:
        place = self._place
        n, inner, size = place.shape[0], place.shape[1:], place.dtype.itemsize
        picked = np.empty((place.row, len(rows)), place.dtype)
        with _member_stream(place) as stream:
            for one in range(place.row):
                done = 0
                for start in range(0, n, PIECE // size):
                    count = min(PIECE // size, n - start)
                    data = np.frombuffer(_exactly(stream, count * size), place.dtype)
                    upto = count_below(rows, start + count)
                    index = np.asarray(rows[done:upto], np.int64) - start
                    picked[one, done:upto] = data[index]
                    done = upto
            _finish(stream)
        return {"": to_tensor(picked.reshape(*inner[::-1], len(rows)).T)}

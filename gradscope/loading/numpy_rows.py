"""Rows of arrays that numpy wrote: read where they stand, or inflated piece by piece."""

from __future__ import annotations

import contextlib
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from gradscope.errors import DataError
from gradscope.loading.rows import Column, PieceReader, Reader, Rows, count_below, runs

PIECE = 1 << 20
"""Bytes that are inflated or skipped at a time."""

_SHORT = 1 << 16
"""Bytes up to which arrays that follow one another are read many at a time, and not one by one."""

AGAIN = "Save or copy the file again."
_INT64_MAX = 2**63 - 1


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
        raise DataError(f"is broken: {first}", where=path, hint=AGAIN) from error


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


def reader_of(place: Place) -> Reader:
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
        size, times = self._numbers.size, math.prod(inner)
        if self._shape[0] * size <= _SHORT:
            data = bytearray(len(rows) * size * times)
            self._stream.seek(self._offset)
            _columns(self._exactly, self._shape[0], size, times, rows, data)
        else:
            data = self._read(rows, self._offset, size, times)
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

    def _exactly(self, count: int) -> bytearray:
        data = bytearray(count)
        self._fill(memoryview(data))
        return data

    def _fill(self, view: memoryview) -> None:
        while len(view):
            got = self._stream.readinto(view)
            if not got:
                raise EOFError("it ends before its last sample")
            view = view[got:]

    def close(self) -> None:
        self._stream.close()


def _columns(
    read: Callable[[int], bytearray], n: int, size: int, times: int, rows: Rows, into: bytearray
) -> None:
    """Some rows of ``times`` short arrays of ``n`` numbers in a row, many of them at once."""
    step = max(1, PIECE // max(1, n * size))
    picked = np.frombuffer(into, f"V{size}").reshape(times, len(rows))
    for first in range(0, times, step):
        count = min(step, times - first)
        held = np.frombuffer(read(count * n * size), f"V{size}").reshape(count, n)
        picked[first : first + count] = held[:, np.asarray(rows, np.int64)]


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
        finish(stream)


def finish(stream: IO[bytes]) -> None:
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
        data = bytearray(place.row * len(rows) * size)
        picked = np.frombuffer(data, place.dtype).reshape(place.row, len(rows))
        with _member_stream(place) as stream:
            if n * size <= _SHORT:
                _columns(lambda count: _exactly(stream, count), n, size, place.row, rows, data)
            else:
                self._one_by_one(stream, rows, picked)
            finish(stream)
        return {"": to_tensor(picked.reshape(*inner[::-1], len(rows)).T)}

    def _one_by_one(self, stream: IO[bytes], rows: Rows, picked: np.ndarray) -> None:
        n, dtype = self._place.shape[0], self._place.dtype
        step = PIECE // dtype.itemsize
        for column in picked:
            done = 0
            for start in range(0, n, step):
                count = min(step, n - start)
                data = np.frombuffer(_exactly(stream, count * dtype.itemsize), dtype)
                upto = count_below(rows, start + count)
                column[done:upto] = data[np.asarray(rows[done:upto], np.int64) - start]
                done = upto

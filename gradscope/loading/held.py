"""A model file that is opened once: what is checked and what is loaded are the same bytes."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from gradscope.errors import LoadError


class Held:
    """An open file.

    Args:
        file: for messages.
        stream: the open file.

    Attributes:
        size: bytes, when it was opened.
    """

    def __init__(self, file: Path, stream: BinaryIO) -> None:
        self.file, self._stream = file, stream
        self._first = os.fstat(stream.fileno())
        self.size = self._first.st_size

    def read(self, most: int) -> bytes:
        """The first bytes of the file."""
        self._stream.seek(0)
        return self._stream.read(most)

    def stream(self, head: bytes = b"") -> io.BufferedReader:
        """The file from its start, ``head`` in place of its first bytes.

        It says nothing of the file that it is: torch takes some files of which it knows the number
        for tar archives, and unpacks these.
        """
        return io.BufferedReader(_Joined(head, self._stream), 1 << 16)

    def check_unchanged(self) -> None:
        """Raises :class:`LoadError` unless the file is the one that was opened, as it was."""
        try:
            now = os.stat(self.file)
        except OSError:
            now = None
        if now is None or _identity(now) != _identity(self._first):
            what = "was replaced or written to while it was read"
            hint = "Try again when it is complete."
            raise LoadError(what, where=str(self.file), hint=hint)


def _identity(stat: os.stat_result) -> tuple[int, ...]:
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


@contextmanager
def held(file: Path) -> Iterator[Held]:
    """The file, open.

    Raises:
        LoadError: it cannot be opened.
    """
    try:
        stream = file.open("rb")
    except OSError as error:
        raise LoadError(f"cannot be read: {error.strerror}", where=str(file)) from error
    with stream:
        yield Held(file, stream)


class _Joined(io.RawIOBase):
    """Bytes in memory, then a file from there on."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        super().__init__()
        self._head, self._rest, self._at = head, rest, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_CUR:
            offset += self._at
        elif whence == os.SEEK_END:
            offset += self._rest.seek(0, os.SEEK_END)
        self._at = max(0, offset)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        part = self._head[self._at : self._at + len(buffer)]
        if part:
            buffer[: len(part)] = part
            count = len(part)
        else:
            self._rest.seek(self._at)
            count = self._rest.readinto(buffer)  # type: ignore[attr-defined]
        self._at += count
        return count

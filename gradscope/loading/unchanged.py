"""Samples of a file that stays what it was: it is opened anew for every pass over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

import torch

from gradscope.errors import DataError
from gradscope.loading.rows import Reader, Rows, Source


@dataclass(frozen=True)
class Stamp:
    """What changes if a file is replaced or written to.

    Attributes:
        file: the file.
        told: device, number, bytes, and when it was written to.
    """

    file: Path
    told: tuple[int, ...]

    @classmethod
    def of(cls, file: Path) -> Stamp | None:
        """As it is now; None of anything but a file."""
        try:
            stat = file.stat()
        except (OSError, ValueError):  # no such file, or a name with a NUL
            return None
        if not S_ISREG(stat.st_mode):
            return None
        return cls(file, (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns))


class Unchanged(Source):
    """A source that refuses to go on with another file.

    Args:
        source: of the file.
        first: of the file, from before it was opened.

    Raises:
        DataError: it was replaced or written to meanwhile.
    """

    def __init__(self, source: Source, first: Stamp) -> None:
        super().__init__(
            source.path,
            source.columns,
            label=source.label,
            notes=source.notes,
            refused=source.refused,
        )
        self.classes, self.tabular = source.classes, source.tabular
        self._source, self._first = source, first
        self.check()

    def check(self) -> None:
        """Raises :class:`DataError` unless the file is as it was."""
        if Stamp.of(self._first.file) != self._first:
            what = "was replaced or written to while it was read"
            raise DataError(what, where=self.path, hint="Try again when it is complete.")

    def open(self, names: Sequence[str]) -> Reader:
        return _Checked(self._source.open(names), self)

    def single(self, name: str) -> torch.Tensor:
        found = self._source.single(name)
        self.check()
        return found

    def names_of(self, column: str) -> tuple[str, ...]:
        return self._source.names_of(column)


class _Checked(Reader):
    def __init__(self, reader: Reader, source: Unchanged) -> None:
        self._reader, self._source = reader, source

    def take(self, rows: Rows) -> dict[str, torch.Tensor]:
        found = self._reader.take(rows)
        self._source.check()
        return found

    def close(self) -> None:
        self._reader.close()

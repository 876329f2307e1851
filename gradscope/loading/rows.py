"""Samples as rows of named columns, read forwards and a piece at a time, whatever the file is."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from gradscope.errors import DataError

Rows = np.ndarray | range
"""Indices of samples, ascending: an array, or a range of step 1 where none is left out."""


@dataclass(frozen=True)
class Column:
    """What is known of one array before it is read.

    Attributes:
        shape: samples first.
        dtype: as it will be read.
        whole: reading some rows means to read all of them, so the chosen ones are read at once.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    whole: bool = False

    @property
    def row_bytes(self) -> int:
        """What one sample takes."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{self.shape} {str(self.dtype).removeprefix('torch.')}"


class Reader(ABC):
    """One way through a source, from the first sample to the last."""

    @abstractmethod
    def take(self, rows: Rows) -> dict[str, torch.Tensor]:
        """The columns at these rows, which come after those of every earlier call."""

    def close(self) -> None:  # noqa: B027  (nothing to close is the common case)
        """Let go of files."""


class Source(ABC):
    """A data file, or several, as columns of equal meaning: row i of each is sample i.

    Attributes:
        path: as the user named it.
        columns: what there is to read.
        label: the column of labels, where the file or the user says which; else the names tell.
        notes: what the user should know about how it was read.
        refused: arrays that cannot be run, and why; an error only where they are needed.
        classes: texts of the labels, in the order of their numbers; () if labels are numbers.
        tabular: whether its arrays are columns of a table, which nobody has scaled yet.
    """

    classes: tuple[str, ...] = ()
    tabular: bool = False

    def __init__(
        self,
        path: str,
        columns: Mapping[str, Column],
        *,
        label: str | None = None,
        notes: Sequence[str] = (),
        refused: Mapping[str, DataError] | None = None,
    ) -> None:
        self.path, self.columns, self.label = path, dict(columns), label
        self.notes, self.refused = tuple(notes), dict(refused or {})

    @abstractmethod
    def open(self, names: Sequence[str]) -> Reader:
        """A reader of some of the columns."""

    def single(self, name: str) -> torch.Tensor:
        """A refused array that is a single number.

        Raises:
            DataError: it is none, or cannot be read.
        """
        raise self.refused[name]

    def names_of(self, column: str) -> tuple[str, ...]:
        """Names of the features that lie side by side in a column, if they have any."""
        return ()


class Memory(Source):
    """Tensors that are in memory anyway."""

    def __init__(
        self,
        path: str,
        tensors: Mapping[str, torch.Tensor],
        refused: Mapping[str, DataError] | None = None,
    ) -> None:
        columns, refused = {}, dict(refused or {})
        for name, tensor in tensors.items():
            if tensor.dim() == 0:
                refused[name] = single_number(name, path)
            else:
                columns[name] = Column(tuple(tensor.shape), tensor.dtype)
        super().__init__(path, columns, refused=refused)
        self._tensors = dict(tensors)

    def open(self, names: Sequence[str]) -> Reader:
        return _MemoryReader({n: self._tensors[n] for n in names})


class _MemoryReader(Reader):
    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self._tensors = tensors

    def take(self, rows: Rows) -> dict[str, torch.Tensor]:
        return {n: at(t, rows) for n, t in self._tensors.items()}


class PieceReader(Reader):
    """Picks rows out of consecutive pieces, each of which is let go before the next is made."""

    def __init__(self, pieces: Iterator[dict[str, torch.Tensor]]) -> None:
        self._pieces, self._piece = pieces, dict[str, torch.Tensor]()
        self._start = self._stop = 0

    def take(self, rows: Rows) -> dict[str, torch.Tensor]:
        found: list[dict[str, torch.Tensor]] = []
        done = 0
        while done < len(rows):
            while int(rows[done]) >= self._stop:
                self._next()
            upto = count_below(rows, self._stop)
            local = shifted(rows[done:upto], -self._start)
            found.append({n: at(t, local) for n, t in self._piece.items()})
            done = upto
        return joined(found)

    def _next(self) -> None:
        self._piece = {}  # before the next is made, not after
        piece = next(self._pieces, None)
        if piece is None:
            raise DataError("has fewer samples than it had when it was opened")
        self._start = self._stop
        self._stop += len(next(iter(piece.values())))
        self._piece = piece

    def close(self) -> None:
        self._piece = {}
        close = getattr(self._pieces, "close", None)  # generators have files to let go of
        if close is not None:
            close()


def at(tensor: torch.Tensor, rows: Rows) -> torch.Tensor:
    """Some rows of a tensor, copied: a view would keep all of it in memory."""
    if isinstance(rows, range):
        return tensor[rows.start : rows.stop].clone()
    return tensor[torch.from_numpy(rows)]


def shifted(rows: Rows, by: int) -> Rows:
    """The rows, counted from elsewhere."""
    if isinstance(rows, range):
        return range(rows.start + by, rows.stop + by)
    return rows + by


def count_below(rows: Rows, stop: int) -> int:
    """How many of the rows come before ``stop``."""
    if isinstance(rows, range):
        return max(0, min(len(rows), stop - rows.start))
    return int(np.searchsorted(rows, stop))


def runs(rows: Rows) -> Iterator[tuple[int, int]]:
    """(first, past the last) of each stretch of consecutive rows."""
    if isinstance(rows, range):
        if rows:
            yield rows.start, rows.stop
        return
    if len(rows):
        cuts = np.flatnonzero(np.diff(rows) != 1) + 1
        for part in np.split(rows, cuts):
            yield int(part[0]), int(part[-1]) + 1


def joined(parts: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Pieces one after the other."""
    if len(parts) == 1:
        return parts[0]
    return {n: torch.cat([p[n] for p in parts]) for n in parts[0]}


def single_number(name: str, path: str) -> DataError:
    """The refusal of an array without an axis for the samples."""
    return DataError(f"array '{name}' is a single number", where=path)

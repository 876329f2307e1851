"""Several sources as one: one after the other, or side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from gradscope.errors import DataError
from gradscope.loading.rows import Column, Reader, Rows, Source, count_below, joined, shifted


class Joined(Source):
    """Shards of equal arrays, one after the other.

    Args:
        path: of all of them.
        shards: at least one, in order.
        notes: what the user should know.

    Raises:
        DataError: shards with other arrays, or samples of other shapes or types.
    """

    def __init__(self, path: str, shards: Sequence[Source], notes: Sequence[str]) -> None:
        first = shards[0]
        for shard in shards[1:]:
            _check_alike(first, shard, path)
        refused = {n: e for shard in shards for n, e in shard.refused.items()}
        columns = {}
        for name, column in first.columns.items():
            if name not in refused:
                total = sum(s.columns[name].shape[0] for s in shards)
                whole = any(s.columns[name].whole for s in shards)
                columns[name] = Column((total, *column.shape[1:]), column.dtype, whole)
        many = [f"{len(shards)} shards, {_name(first)} to {_name(shards[-1])}"]
        super().__init__(
            path,
            columns,
            label=first.label,
            notes=[*(many if len(shards) > 1 else []), *notes],
            refused=refused,
        )
        self._shards = list(shards)

    def open(self, names: Sequence[str]) -> Reader:
        stops, total = [], 0
        for shard in self._shards:
            lengths = {n: shard.columns[n].shape[0] for n in names}
            if len(set(lengths.values())) > 1:
                what = " and ".join(f"'{n}' {count}" for n, count in lengths.items())
                what = f"has different numbers of samples: {what}"
                raise DataError(what, where=shard.path, hint="The first axis counts samples.")
            total += lengths[names[0]]
            stops.append(total)
        return _JoinedReader(self._shards, stops, list(names))


def _check_alike(first: Source, shard: Source, path: str) -> None:
    names = {*first.columns, *first.refused}
    other = {*shard.columns, *shard.refused}
    if names != other:
        what = f"{_name(first)} holds {_listed(first)}, but {_name(shard)} holds {_listed(shard)}"
        raise DataError(what, where=path, hint="Shards need the same arrays.")
    for name in first.columns:
        if name not in shard.columns:
            continue
        one, two = first.columns[name], shard.columns[name]
        if one.shape[1:] != two.shape[1:] or one.dtype != two.dtype:
            what = f"'{name}' is {one} in {_name(first)}, but {two} in {_name(shard)}"
            hint = "Shards may differ in the number of samples only."
            raise DataError(what, where=path, hint=hint)


def _name(source: Source) -> str:
    return Path(source.path).name


def _listed(source: Source) -> str:
    names = [f"{n} {c}" for n, c in source.columns.items()] + list(source.refused)
    return ", ".join([*names[:6], *(["..."] if len(names) > 6 else [])]) or "nothing"


class _JoinedReader(Reader):
    """One shard is open at a time."""

    def __init__(self, shards: Sequence[Source], stops: Sequence[int], names: list[str]) -> None:
        self._shards, self._stops, self._names = shards, stops, names
        self._at = 0
        self._reader: Reader | None = None

    def take(self, rows: Rows) -> dict[str, torch.Tensor]:
        found = []
        done = 0
        at = self._at
        while done < len(rows):
            upto = count_below(rows, self._stops[at])
            if upto > done:
                start = self._stops[at - 1] if at else 0
                found.append(self._open(at).take(shifted(rows[done:upto], -start)))
                done = upto
            if done < len(rows):
                at += 1
        return joined(found)

    def _open(self, at: int) -> Reader:
        if self._reader is None or self._at != at:
            self.close()
            self._reader, self._at = self._shards[at].open(self._names), at
        return self._reader

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None


class Beside(Source):
    """Columns out of sources of their own, each with a column of the same name.

    Args:
        path: of all of them.
        sources: by name of column.
        notes: what the user should know.
    """

    def __init__(self, path: str, sources: Mapping[str, Source], notes: Sequence[str]) -> None:
        columns = {n: s.columns[n] for n, s in sources.items() if n in s.columns}
        refused = {n: e for s in sources.values() for n, e in s.refused.items()}
        said = {n: None for s in sources.values() for n in s.notes}
        super().__init__(path, columns, notes=[*said, *notes], refused=refused)
        self._sources = dict(sources)

    def open(self, names: Sequence[str]) -> Reader:
        return _BesideReader({n: self._sources[n].open([n]) for n in names})


class _BesideReader(Reader):
    def __init__(self, readers: Mapping[str, Reader]) -> None:
        self._readers = readers

    def take(self, rows: Rows) -> dict[str, torch.Tensor]:
        return {n: reader.take(rows)[n] for n, reader in self._readers.items()}

    def close(self) -> None:
        for reader in self._readers.values():
            reader.close()

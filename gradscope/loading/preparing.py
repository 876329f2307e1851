"""What the user wants done to columns between the file and the model: shapes, standardisation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from gradscope.config import DataSettings
from gradscope.errors import DataError, OptionError
from gradscope.loading.binding import Bound
from gradscope.loading.picked import Picked
from gradscope.loading.rows import Column, Reader, Rows, Source
from gradscope.loading.table import TableSource, few
from gradscope.loading.wanted import Wanted
from gradscope.model import Prepared, Scale

_LOOKED_AT = 8
"""Batches from which the scale of the features is told where nothing is standardised."""

_OPTION = "--standardise feeds (x - mean) / sd"

_LARGE, _SMALL = 10.0, 0.01
"""Root mean squares between which a feature is not worth a note."""


@dataclass(frozen=True)
class Change:
    """What becomes of one column: as it is read afterwards, and how."""

    column: Column
    apply: Callable[[torch.Tensor], torch.Tensor]


class Changed(Source):
    """A source, some of whose columns are changed on the way."""

    def __init__(self, source: Source, changes: Mapping[str, Change], notes: Sequence[str]) -> None:
        columns = {**source.columns, **{n: c.column for n, c in changes.items()}}
        super().__init__(
            source.path,
            columns,
            label=source.label,
            notes=(*source.notes, *notes),
            refused=source.refused,
        )
        self._source, self._changes, self.classes = source, dict(changes), source.classes
        self.tabular = source.tabular

    def open(self, names: Sequence[str]) -> Reader:
        return _ChangedReader(self._source.open(names), self._changes)

    def names_of(self, column: str) -> tuple[str, ...]:
        return () if column in self._changes else self._source.names_of(column)


class _ChangedReader(Reader):
    def __init__(self, reader: Reader, changes: Mapping[str, Change]) -> None:
        self._reader, self._changes = reader, changes

    def take(self, rows: Rows) -> dict[str, torch.Tensor]:
        found = self._reader.take(rows)
        changes = self._changes
        return {n: changes[n].apply(t) if n in changes else t for n, t in found.items()}

    def close(self) -> None:
        self._reader.close()


def arranged(source: Source, wanted: Wanted, like: Prepared | None) -> Source:
    """A table's columns as the model's inputs are, and its classes numbered as in ``--data``.

    Raises:
        DataError: classes that ``--data`` does not have.
    """
    if not isinstance(source, TableSource):
        return source
    table = source.arranged(wanted.required)
    return table.with_classes(like.classes) if like is not None and like.classes else table


def label_of(source: Source, settings: DataSettings) -> str | None:
    """The column of labels, where the file or ``--label-column`` says which.

    Raises:
        OptionError: there is no such column.
    """
    wanted = settings.label_column
    if source.label is not None or wanted is None or isinstance(source, TableSource):
        return source.label
    if wanted not in source.columns:
        what = f"there is no array '{wanted}' in {source.path}: it has {few(list(source.columns))}"
        raise OptionError(what, where="--label-column")
    return wanted


def shaped(source: Source, wanted: Wanted, bound: Bound, settings: DataSettings) -> Source:
    """Samples in the shapes of ``--input-shape``.

    Raises:
        OptionError: there is no such input, or its samples have another number of elements.
    """
    arrays = bound.inputs
    by_position = zip(wanted.names, bound.args, strict=False)
    known = {n: n for n in arrays} | {k: n for k, n in by_position if n is not None}
    known |= dict(bound.kwargs) | {"": arrays[0]}
    changes, notes = {}, []
    for name, shape in settings.input_shape.items():
        if name not in known:
            what = f"'{name}' is no input here: there are {few(arrays)}"
            raise OptionError(what, where="--input-shape")
        column = source.columns[known[name]]
        if column.shape[1:] == shape:
            continue
        text = "x".join(map(str, shape))
        if math.prod(column.shape[1:]) != math.prod(shape):
            inner = "x".join(map(str, column.shape[1:])) or "1"
            what = f"{text} has {math.prod(shape)} elements, a sample of '{known[name]}' is {inner}"
            raise OptionError(what, where="--input-shape")
        changes[known[name]] = _reshape(column, shape)
        notes.append(f"'{known[name]}' laid out as {text}, row by row, as --input-shape says")
    return Changed(source, changes, notes) if changes else source


def _reshape(column: Column, shape: tuple[int, ...]) -> Change:
    new = Column((column.shape[0], *shape), column.dtype, column.whole)
    return Change(new, lambda t: t.reshape(len(t), *shape))


def prepared(
    source: Source,
    inputs: Sequence[str],
    rows: Rows,
    settings: DataSettings,
    like: Prepared | None,
) -> tuple[Source, Prepared]:
    """The source as the model gets it, and what it has in common with held-out data.

    Args:
        inputs: names of columns of real numbers.
        rows: the chosen samples.
        like: of ``--data``, if this is ``--val``.

    Raises:
        DataError: the inputs are not those of ``--data``.
        OptionError: there is nothing to standardise.
    """
    if not settings.standardise:
        return source, Prepared(source.classes)
    if not inputs:
        raise OptionError(f"{source.path} has no input of real numbers", where="--standardise")
    picked = Picked(source, inputs, rows, settings.batch_size)
    changed, scales = scaled(source, inputs, picked, like)
    return changed, Prepared(source.classes, scales)


def scaled(
    source: Source, inputs: Sequence[str], picked: Picked, like: Prepared | None
) -> tuple[Source, tuple[Scale, ...]]:
    """Inputs as (x - mean) / sd of the chosen samples, or of those of ``--data``.

    Two axes: each column by itself; four and more: each channel (axis 1); else one mean and sd for
    all of it. sd is that of the population; where it is 0, only the mean is subtracted.

    Args:
        inputs: names of columns of real numbers.
        picked: the chosen samples.
        like: means and sds of ``--data``, in the order of the inputs; None finds them here.

    Raises:
        DataError: the inputs are not those of ``--data``.
    """
    scales = like.scales if like is not None else moments(source, inputs, picked)
    if len(scales) != len(inputs):
        raise DataError("has other inputs than --data", where=source.path)
    changes, notes = {}, []
    for name, scale in zip(inputs, scales, strict=True):
        column = source.columns[name]
        shape = _along(column)
        if scale.mean.numel() != math.prod(shape):
            what = f"'{name}' has another shape than in --data, which it is standardised like"
            raise DataError(what, where=source.path)
        changes[name] = _standardise(column, scale, shape)
        notes.append(_scale_note(name, scale, column, like is not None))
    return Changed(source, changes, notes), tuple(scales)


def _along(column: Column) -> tuple[int, ...]:
    """Shape of a mean that is subtracted from a sample."""
    inner = column.shape[1:]
    if len(inner) == 1:
        return inner
    return (inner[0], *(1 for _ in inner[1:])) if len(inner) > 2 else ()


def _standardise(column: Column, scale: Scale, shape: tuple[int, ...]) -> Change:
    mean, sd = scale.mean.reshape(shape), _divisor(scale).reshape(shape)
    new = Column(column.shape, torch.float64, column.whole)
    return Change(new, lambda t: (t.to(torch.float64) - mean) / sd)


def _divisor(scale: Scale) -> torch.Tensor:
    return torch.where(_constant(scale), 1.0, scale.sd)


def _constant(scale: Scale) -> torch.Tensor:
    """Where sd is nothing but rounding."""
    return scale.sd <= 1e-10 * scale.mean.abs()


def _scale_note(name: str, scale: Scale, column: Column, given: bool) -> str:
    kind = {1: "column", 0: "array"}.get(len(_along(column)), "channel")
    constant = int(_constant(scale).sum())
    left = f"; {constant} constant, only the mean subtracted" if constant else ""
    if scale.mean.numel() == 1:
        by = f"mean {float(scale.mean):.4g}, sd {float(scale.sd):.4g}"
    else:
        by = f"mean and sd of each of {scale.mean.numel()} {kind}s"
    whose = "the samples of --data" if given else "the chosen samples"
    return f"'{name}' standardised: (x - mean) / sd with {by} over {whose}{left}"


def moments(
    source: Source, inputs: Sequence[str], batches: Iterable[Mapping[str, torch.Tensor]]
) -> tuple[Scale, ...]:
    """Mean and sd of each input, in float64, merged over the batches (Chan et al. 1979)."""
    counts = [0] * len(inputs)
    means = [torch.zeros(math.prod(_along(source.columns[n])), dtype=torch.float64) for n in inputs]
    squares = [torch.zeros_like(m) for m in means]
    for raw in batches:
        for i, name in enumerate(inputs):
            rows = _by_feature(raw[name].to(torch.float64), means[i].numel())
            count, mean = len(rows), rows.mean(0)
            total, delta = counts[i] + count, mean - means[i]
            squares[i] += ((rows - mean) ** 2).sum(0) + delta**2 * (counts[i] * count / total)
            means[i] += delta * (count / total)
            counts[i] = total
    found = zip(means, squares, counts, strict=True)
    return tuple(Scale(m, (s / max(1, n)).sqrt()) for m, s, n in found)


def _by_feature(tensor: torch.Tensor, features: int) -> torch.Tensor:
    """[observations, features]."""
    if features == 1:
        return tensor.reshape(-1, 1)
    return tensor.movedim(1, -1).reshape(-1, features)


def scale_notes(source: Source, inputs: Sequence[str], picked: Picked) -> list[str]:
    """What of a table's features is far from a scale of 1, since it is fed as it is."""
    if not source.tabular or not inputs:
        return []
    notes = []
    first = itertools.islice(picked, _LOOKED_AT)
    for name, scale in zip(inputs, moments(source, inputs, first), strict=True):
        rms = (scale.mean**2 + scale.sd**2).sqrt()
        far = ((rms > _LARGE) | ((rms < _SMALL) & (rms > 0))).nonzero().flatten()
        if not len(far):
            continue
        if len(rms) == 1:
            notes.append(f"'{name}' is fed as it is, {_feature('', scale, 0)}; {_OPTION}")
            continue
        worst = far[rms[far].log10().abs().argsort(descending=True)][:3].tolist()
        names = source.names_of(name)
        shown = [_feature(names[i] if len(names) == len(rms) else "", scale, i) for i in worst]
        notes.append(
            f"'{name}' is fed as it is: {len(far)} of {len(rms)} features are far from a scale of "
            f"1, most of all {'; '.join(shown)}; {_OPTION}"
        )
    return notes


def _feature(name: str, scale: Scale, i: int) -> str:
    called = f"'{name}' " if name else ""
    return f"{called}mean {float(scale.mean[i]):.3g}, sd {float(scale.sd[i]):.3g}"

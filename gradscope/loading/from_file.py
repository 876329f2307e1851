"""A sample out of a :class:`~gradscope.loading.rows.Source`: chosen, bound, cast, tried."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from gradscope.config import DataSettings
from gradscope.errors import DataError, OptionError
from gradscope.loading.binding import Bound, alternatives, bind, check_declared
from gradscope.loading.casting import Types, cast, plan, turned
from gradscope.loading.casting import alternatives as other_types
from gradscope.loading.choice import Labels, choose
from gradscope.loading.hints import hint_for
from gradscope.loading.labels import Facts, Reading, check_finite, read_as, strata
from gradscope.loading.picked import Picked
from gradscope.loading.preparing import arranged, label_of, prepared, scale_notes, shaped
from gradscope.loading.rows import Rows, Source
from gradscope.loading.trial import Trial, explain, run_once
from gradscope.loading.unchanged import Stamp, Unchanged
from gradscope.loading.wanted import Wanted, wanted_by
from gradscope.model import Batch, LoadedModel, Prepared, Sample

_PIECE = 1 << 16  # labels that are read at a time


def sample_of(
    model: LoadedModel,
    source: Source,
    settings: DataSettings,
    loss: str,
    like: Prepared | None,
    first: Stamp | None = None,
) -> Sample:
    """Rows of a source as a sample for a model.

    Args:
        model: with a module.
        source: where the rows are.
        settings: how many of them, how many at a time, and what is done to them.
        loss: ``--loss``; labels are read accordingly.
        like: of ``--data``, if this is ``--val``.
        first: of the file, from before it was opened; None: it may change.

    Raises:
        DataError: it is broken, was replaced while it was read, or does not fit the model.
        OptionError: an option makes no sense.
    """
    wanted = wanted_by(model)
    source = arranged(source, wanted, like)
    described = {n: str(c) for n, c in source.columns.items()}
    described |= dict.fromkeys(source.refused, "(cannot be run)")
    bound = bind(wanted, described, source.path, label_of(source, settings))
    available = _available(source, bound)
    count = _count(available, settings, model.batch, source.path)
    classes = _class_labels(source, bound.label) if count < available else None
    rows, how = choose(available, replace(settings, samples=count), classes)
    source = shaped(source, wanted, bound, settings)
    if first is not None:
        source = Unchanged(source, first)
    check_declared(bound, {n: c.shape for n, c in source.columns.items()}, source.path)
    fitted, trial = _fit(model, wanted, source, bound, rows, settings)
    real = [n for n, t in fitted.types.items() if t.is_floating_point]
    source, common = prepared(source, real, rows, settings, like)
    if common.scales:
        fitted = fitted.over(source, rows, model.batch or settings.batch_size)
    seen = _sweep(fitted)
    cut = f"{len(rows)} of {available} samples, {how}, seed {settings.seed}"
    notes = [
        *source.notes,
        *([] if like or common.scales else scale_notes(source, real, fitted.picked)),
        *_binding_notes(fitted.bound),
        *([cut] if len(rows) < available else []),
        *_left_out(available, count, settings, model.batch),
        *_value_notes(fitted, seen),
    ]
    if seen.labels is not None and bound.label is not None:
        check_finite(seen.labels, bound.label, source.path)
        reading, note = read_as(seen.labels, bound.label, trial.output, loss)
        fitted = replace(fitted, reading=reading)
        notes += [note] if note else []
    shapes = {n: source.columns[n].shape[1:] for n in fitted.bound.inputs}
    found = (source.path, len(rows), available, False, bound.label is not None, shapes)
    return Sample(*found, fitted.batches, tuple(notes), common, fitted.only)


@dataclass(frozen=True)
class Fitted:
    """Chosen rows on their way into a model.

    Attributes:
        path: of the file.
        bound: which array goes where.
        types: array -> as what.
        before: array -> as it is in the file.
        picked: the rows.
        reading: how labels are taken.
    """

    path: str
    bound: Bound
    types: Mapping[str, torch.dtype]
    before: Mapping[str, torch.dtype]
    picked: Picked
    reading: Reading | None = None

    def over(self, source: Source, rows: Rows, size: int) -> Fitted:
        """The same with the rows of another source, of the same columns."""
        names = [*self.bound.inputs, *([self.bound.label] if self.bound.label is not None else [])]
        before = {n: source.columns[n].dtype for n in self.bound.inputs}
        return replace(self, picked=Picked(source, names, rows, size), before=before)

    def cast(self, raw: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The inputs among the arrays, in the model's types."""
        return {n: cast(raw[n], t, n, self.path) for n, t in self.types.items()}

    def batches(self) -> Iterator[Batch]:
        """All rows."""
        return self._ready(self.picked)

    def only(self, indices: np.ndarray) -> Iterator[Batch]:
        """Some of the rows, by their places among them, ascending."""
        return self._ready(self.picked.only(indices))

    def _ready(self, pieces: Iterable[Mapping[str, torch.Tensor]]) -> Iterator[Batch]:
        start = 0
        for raw in pieces:
            args, kwargs = self.bound.call(self.cast(raw))
            labels = raw[self.bound.label] if self.bound.label is not None else None
            if labels is not None and self.reading is not None:
                labels = self.reading(labels)
            size = len(next(iter(raw.values())))
            yield Batch(args, kwargs, labels, size, start)
            start += size


def _available(source: Source, bound: Bound) -> int:
    """How many samples there are."""
    used = [*bound.inputs, *([bound.label] if bound.label is not None else [])]
    for name in used:
        if name in source.refused:
            raise source.refused[name]
    first, columns = used[0], source.columns
    n = columns[first].shape[0]
    for name in used[1:]:
        if columns[name].shape[0] != n:
            one, two = columns[first].shape, columns[name].shape
            what = f"'{first}' {one} and '{name}' {two} have different numbers of samples"
            raise DataError(what, where=source.path, hint="The first axis counts samples.")
    if n == 0:
        raise DataError("has no samples", where=source.path)
    if any(0 in columns[name].shape for name in used):
        raise DataError("has an empty array", where=source.path)
    return n


def _count(available: int, settings: DataSettings, exact: int | None, path: str) -> int:
    """How many samples to run: what is asked for, in whole batches if the model wants that."""
    asked = available if settings.samples is None else min(settings.samples, available)
    if exact is None or asked < 1:
        return asked
    if available < exact:
        what = f"the model takes exactly {exact} samples at once, and there are {available}"
        raise DataError(what, where=path, hint="Give it more samples.")
    if asked < exact:
        hint = f"Choose at least --samples {exact}."
        raise OptionError(f"the model takes exactly {exact} at once", where="--samples", hint=hint)
    return asked - asked % exact


def _class_labels(source: Source, name: str | None) -> Labels | None:
    """Labels to keep the proportions of; None if there are none or they are no classes."""
    if name is None:
        return None
    column = source.columns[name]
    every = Picked(source, [name], range(column.shape[0]), _PIECE)
    if column.dtype.is_floating_point or len(column.shape) > 1:
        reading = strata(Facts.over(piece[name] for piece in every))
        if reading is None:
            return None
        return lambda: (reading(piece[name]).numpy() for piece in every)
    return lambda: (piece[name].numpy() for piece in every)


def _fit(
    model: LoadedModel,
    wanted: Wanted,
    source: Source,
    bound: Bound,
    rows: Rows,
    settings: DataSettings,
) -> tuple[Fitted, Trial]:
    """The first way of calling the model, and of casting, that runs."""
    assert model.module is not None
    types = Types.of(model.module)
    first: DataError | None = None
    for form in alternatives(wanted, bound):
        if any(n in source.refused for n in form.inputs):
            continue
        before = {n: source.columns[n].dtype for n in form.inputs}
        used = [*form.inputs, *([form.label] if form.label is not None else [])]
        picked = Picked(source, used, rows, model.batch or settings.batch_size)
        raw = picked.first()
        shapes = [source.columns[n].shape[1:] for n in form.inputs]
        for chosen in other_types(types, before, plan(types, before, form.declared)):
            fitted = Fitted(source.path, form, chosen, before, picked)
            try:
                args, kwargs = form.call(fitted.cast(raw))
            except DataError as error:  # fractions where the model takes integers
                first = first or error
                continue
            batch = Batch(args, kwargs, None, len(raw[used[0]]), 0)
            trial = run_once(model.module, batch, model.batch or 1)
            if trial.error is None:
                return fitted, trial
            hint = hint_for(model.module, shapes, labels=form.label is not None)
            first = first or explain(trial, batch, source.path, hint)
    assert first is not None
    raise first


@dataclass(frozen=True)
class _Seen:
    """What a pass over the chosen rows shows.

    Attributes:
        bad: inputs that hold NaN or infinite values, as the model gets them.
        labels: what the labels are like.
    """

    bad: frozenset[str]
    labels: Facts | None


def _sweep(fitted: Fitted) -> _Seen:
    """Values are seen before anything long begins: a file that breaks off is told of at once."""
    bad: set[str] = set()
    facts: Facts | None = None
    label = fitted.bound.label
    for raw in fitted.picked:
        for name, tensor in fitted.cast(raw).items():
            real = tensor.is_floating_point() or tensor.is_complex()
            if real and name not in bad and not bool(torch.isfinite(tensor).all()):
                bad.add(name)
        if label is not None:
            piece = Facts.of(raw[label])
            facts = piece if facts is None else facts.merge(piece)
    return _Seen(frozenset(bad), facts)


def _binding_notes(bound: Bound) -> list[str]:
    """What became of the arrays."""
    labels = "" if bound.label else "; --label-column {} makes it the labels"
    notes = [f"array '{n}' fits no input and was left out{labels.format(n)}" for n in bound.unused]
    return [*notes, *(["the arrays were passed as one dictionary"] if bound.together else [])]


def _left_out(
    available: int, count: int, settings: DataSettings, exact: int | None
) -> Iterator[str]:
    """Samples that fill no batch of a model that wants full ones."""
    left = min(available, settings.samples or available) - count
    if exact is not None and left:
        yield f"{left} more were left out: the model takes exactly {exact} at once"


def _value_notes(fitted: Fitted, seen: _Seen) -> Iterator[str]:
    """What was done to the values, and what they are like."""
    for name in fitted.bound.inputs:
        said = turned(name, fitted.before[name], fitted.types[name])
        if said:
            yield said
        if name in seen.bad:
            yield f"'{name}' holds NaN or infinite values"

"""A sample out of the user's own code: ``module:callable`` that yields batches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from gradscope.config import DataSettings
from gradscope.cutting import data_of, is_leaf, leaves, mapped
from gradscope.errors import DataError
from gradscope.loading.batching import Items, sized
from gradscope.loading.casting import Types, alternatives, cast, plan, turned
from gradscope.loading.items import Item, Splitter
from gradscope.loading.labels import Facts, Reading, check_finite, read_as
from gradscope.loading.stream import Stream
from gradscope.loading.trial import Trial, explain, run_once
from gradscope.loading.wanted import Wanted, wanted_by
from gradscope.model import Batch, Input, LoadedModel, Sample
from gradscope.usercode import load_object

UNENDING = 1_000_000
"""Samples after which a stream that does not tell its length is taken to have no end."""


def sample_of(model: LoadedModel, text: str, settings: DataSettings, loss: str) -> Sample:
    """What ``MODULE:NAME`` yields as a sample for a model. The code is run, as the user asked for.

    Raises:
        DataError: it fails, yields no batches, or does not fit the model.
        OptionError: there is nothing of that name.
    """
    return sample_from(model, load_object(text, option="--data"), text, settings, loss)


def sample_from(
    model: LoadedModel, made: Any, text: str, settings: DataSettings, loss: str
) -> Sample:
    """The same of what is there already: a callable, or something to iterate.

    Raises:
        DataError: it fails, yields no batches, or does not fit the model.
    """
    stream = Stream(made, text, settings.seed, settings.batch_size)
    wanted = wanted_by(model)

    def most() -> float:
        if settings.samples is None:
            return math.inf if stream.ends else UNENDING
        return settings.samples

    items = Items(stream, Splitter(wanted, text), text, most)
    if stream.once:
        items = items.kept()
    fed, trial = _fit(model, wanted, items, settings)
    seen = fed.sweep()
    if not seen.samples:
        what = f"yields {seen.read} samples; the model takes exactly {model.batch} at once"
        raise DataError(what, where=text)
    notes = [*seen.notes, *_cut_notes(seen, stream, settings, model.batch)]
    reading: Reading | None = None
    if seen.facts is not None:
        check_finite(seen.facts, "y", text)
        reading, said = read_as(seen.facts, "y", trial.output, loss)
        notes += [said] if said else []
    fed = replace(fed, reading=reading, expected=seen)
    labelled = seen.facts is not None
    return Sample(text, seen.samples, None, False, labelled, fed.shapes, fed.batches, tuple(notes))


def _cut_notes(
    seen: _Seen, stream: Stream, settings: DataSettings, exact: int | None
) -> Iterator[str]:
    """How many samples there were, where these are not all."""
    if settings.samples is not None and seen.read >= settings.samples:
        yield f"the first {seen.read} samples that it yields, in its own proportions of labels"
    if settings.samples is None and seen.read >= UNENDING and not stream.ends:
        yield (f"it was stopped after {UNENDING} samples, since it does not tell its length; "
               "--samples sets another number")  # fmt: skip
    if exact is not None and seen.read > seen.samples:
        left = seen.read - seen.samples
        yield f"{left} samples were left out: the model takes exactly {exact} at once"


@dataclass(frozen=True)
class _Seen:
    """What a pass over all batches shows.

    Attributes:
        samples: that the model gets.
        read: that were yielded; a model of fixed batches may get fewer.
        facts: of the labels, if all batches have some.
        notes: what was done that the user should know of.
    """

    samples: int
    read: int
    facts: Facts | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Fed:
    """Batches on their way into a model.

    Attributes:
        items: as they are yielded.
        types: leaf -> as what.
        shapes: leaf -> shape of a sample's.
        size: most samples of a batch.
        exact: the only number of samples of a batch.
        reading: how labels are taken.
        expected: what an earlier pass saw; a later one must see as much.
        mark: of the first batch.
    """

    items: Items
    types: Mapping[str, torch.dtype]
    before: Mapping[str, torch.dtype]
    shapes: Mapping[str, tuple[int, ...]]
    size: int
    exact: int | None
    reading: Reading | None = None
    expected: _Seen | None = None
    mark: str = ""

    def cast(self, item: Item) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """(args, kwargs) in the model's types."""
        names = iter(_names(item))

        def one(leaf: Any) -> Any:
            if not isinstance(leaf, torch.Tensor) and not is_leaf(leaf):
                return leaf
            name = next(names)
            if name not in self.types:
                what = f"yields batches of different kinds: '{name}' was not in the first"
                raise DataError(what, where=self.items.text)
            if is_leaf(leaf):
                return leaf.to(self.types[name])
            return cast(leaf, self.types[name], name, self.items.text)

        args, kwargs = mapped(one, (item.args, dict(item.kwargs)))
        return args, kwargs

    def batches(self) -> Iterator[Batch]:
        """All of them, in pieces that the model takes."""
        start = 0
        for item in sized(self.items, self.size, self.exact):
            args, kwargs = self.cast(item)
            labels = item.labels
            if self.expected is not None and self.expected.facts is None:
                labels = None  # some batches have none
            if labels is not None and self.reading is not None:
                labels = self.reading(labels)
            yield Batch(args, kwargs, labels, item.size, start)
            start += item.size
        if self.expected is not None and start != self.expected.samples:
            what = f"yielded {self.expected.samples} samples at first and {start} later"
            hint = "Return a new iterator each time."
            raise DataError(what, where=self.items.text, hint=hint)

    def sweep(self) -> _Seen:
        """Count, and look at labels and values."""
        facts: Facts | None = None
        samples, labelled = 0, True
        notes: dict[str, None] = {}
        counted = _Counted(self.items)
        for item in sized(counted, self.size, self.exact):
            if not samples and _mark(item) != self.mark:
                notes["it yields other values each time it is read: figures will vary"] = None
            samples += item.size
            notes |= dict.fromkeys(item.notes)
            labelled = labelled and item.labels is not None
            if labelled:
                piece = Facts.of(item.labels)
                facts = piece if facts is None else facts.merge(piece)
            notes |= dict.fromkeys(self._bad(item))
        said = (turned(n, self.before[n], self.types[n]) for n in self.types)
        notes |= dict.fromkeys(s for s in said if s)
        return _Seen(samples, counted.samples, facts if labelled else None, tuple(notes))

    def _bad(self, item: Item) -> Iterator[str]:
        for name, leaf in zip(_names(item), leaves(self.cast(item)), strict=True):
            values = data_of(leaf)
            if values.is_floating_point() and not bool(torch.isfinite(values).all()):
                yield f"'{name}' holds NaN or infinite values"


class _Counted:
    """Items, and how many samples they had."""

    def __init__(self, items: Items) -> None:
        self._items, self.samples = items, 0

    def __iter__(self) -> Iterator[Item]:
        for item in self._items:
            self.samples += item.size
            yield item


def _mark(item: Item) -> str:
    """Tells batches apart, most likely."""
    return repr([float(data_of(t).double().sum()) for t in leaves((item.args, dict(item.kwargs)))])


def _names(item: Item) -> list[str]:
    """Of the tensors of a batch: as the model calls them, else by their number."""
    found = []
    for value in item.args:
        found += [""] * sum(1 for _ in leaves(value))
    names = [f"input[{i}]" if i else "input" for i in range(len(found))]
    for key, value in item.kwargs.items():
        count = sum(1 for _ in leaves(value))
        names += [key] if count == 1 else [f"{key}[{i}]" for i in range(count)]
    return names


def _fit(
    model: LoadedModel, wanted: Wanted, items: Items, settings: DataSettings
) -> tuple[_Fed, Trial]:
    """The first way of calling the model, and of casting, that runs."""
    assert model.module is not None
    types = Types.of(model.module)
    first: DataError | None = None
    forms = [
        items,
        *(
            [items.split_by(Splitter(wanted, items.text, together=True))]
            if len(wanted.required) <= 1
            else []
        ),
    ]
    for form in forms:
        item = next(sized(form, settings.batch_size, model.batch), None)
        if item is None:
            break
        names = _names(item)
        tensors = dict(zip(names, leaves((item.args, dict(item.kwargs))), strict=True))
        before = {n: data_of(t).dtype for n, t in tensors.items()}
        shapes = {n: tuple(data_of(t).shape[1:]) for n, t in tensors.items()}
        for chosen in alternatives(types, before, plan(types, before, _declared(wanted, item))):
            size, mark = settings.batch_size, _mark(item)
            fed = _Fed(form, chosen, before, shapes, size, model.batch, mark=mark)
            try:
                args, kwargs = fed.cast(item)
            except DataError as error:  # fractions where the model takes integers
                first = first or error
                continue
            batch = Batch(args, kwargs, None, item.size, 0)
            trial = run_once(model.module, batch, model.batch or 1)
            if trial.error is None:
                return fed, trial
            first = first or explain(trial, batch, items.text)
    raise first or DataError("yields no batch", where=items.text)


def _declared(wanted: Wanted, item: Item) -> dict[str, Input]:
    """Leaf -> what the model says of it."""
    plain = all(isinstance(a, torch.Tensor) for a in item.args)
    found = dict(zip(_names(item), wanted.inputs, strict=False)) if plain else {}
    return found | {i.name: i for i in wanted.inputs if i.name in item.kwargs}

"""From ``--data`` to a :class:`~gradscope.model.Sample` that can be run again and again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_leaves, tree_map

from gradscope.config import DataSettings
from gradscope.errors import DataError, OptionError
from gradscope.loading.binding import LABEL_NAMES, bind, in_type, model_dtype, takes_integers
from gradscope.loading.choice import Labels, choose
from gradscope.loading.hints import hint_for
from gradscope.loading.picked import Picked
from gradscope.loading.preparing import arranged, label_of, prepared, shaped
from gradscope.loading.rows import Source
from gradscope.loading.sources import open_source
from gradscope.loading.synthetic import synthesise
from gradscope.model import Batch, LoadedModel, Prepared, Sample
from gradscope.usercode import load_object, one_line


def load_sample(model: LoadedModel, settings: DataSettings) -> Sample:
    """The sample that ``--data`` names, or a synthesised one.

    Raises:
        DataError: it cannot be read or does not fit the model.
        OptionError: an option makes no sense.
    """
    module = _module(model)
    if settings.data is None:
        sample = synthesise(module, settings)
    else:
        sample = _open(module, settings.data, settings)
    _try(module, sample)
    return sample


def load_validation(
    model: LoadedModel, settings: DataSettings, like: Sample | None = None
) -> Sample | None:
    """Held-out data of ``--val``; None if there are none.

    Args:
        like: the sample of ``--data``: numbers of classes, means and sds are those found there.

    Raises:
        DataError: it cannot be read, does not fit the model, or has no labels.
    """
    if settings.val is None:
        return None
    module = _module(model)
    sample = _open(module, settings.val, settings, like.prepared if like else None)
    if not sample.labels:
        hint = "Add an array y."
        raise DataError("held-out data without labels say nothing", where=settings.val, hint=hint)
    _try(module, sample)
    return sample


def _module(model: LoadedModel) -> torch.nn.Module:
    if model.module is None:
        raise DataError("there is no architecture to run data through", where=model.path)
    return model.module


def _open(
    module: torch.nn.Module, data: str, settings: DataSettings, like: Prepared | None = None
) -> Sample:
    if ":" in data and not _is_file(data):
        if settings.standardise:
            hint = "Let it yield what the model is to be fed."
            raise OptionError(
                f"does not change what {data} yields", where="--standardise", hint=hint
            )
        return _from_callable(module, data, settings)
    return _from_file(module, data, settings, like)


def _is_file(data: str) -> bool:
    try:
        return Path(data).exists()
    except (OSError, ValueError):  # too long, or with a NUL byte
        return True


def _from_file(
    module: torch.nn.Module, path: str, settings: DataSettings, like: Prepared | None
) -> Sample:
    source = arranged(open_source(path, settings), module, like)
    names = [*source.columns, *source.refused]
    bound = bind(module, names, path, label_of(source, settings))
    used = [*bound.args, *bound.kwargs.values(), *([bound.label] if bound.label else [])]
    for name in used:
        if name in source.refused:
            raise source.refused[name]
    available = _common_length(source, used)
    rows, how = choose(available, settings, _class_labels(source, bound.label))
    dtype, integers = model_dtype(module), takes_integers(module)
    inputs = [n for n in used if n != bound.label]
    source = shaped(source, module, bound, settings)
    real = [n for n in inputs if _is_real(source.columns[n].dtype, dtype, integers)]
    source, common, notes = prepared(source, real, rows, settings, like)
    picked = Picked(source, used, rows, settings.batch_size)

    def batches() -> Iterator[Batch]:
        start = 0
        for raw in picked:
            cast = {n: in_type(t, dtype, integers=integers) for n, t in raw.items()}
            args = tuple(cast[n] for n in bound.args)
            kwargs = {p: cast[n] for p, n in bound.kwargs.items()}
            size = len(raw[used[0]])
            yield Batch(args, kwargs, raw[bound.label] if bound.label else None, size, start)
            start += size

    notes = [*source.notes, *notes]
    notes += [f"array '{n}' fits no input and was left out" for n in bound.unused]
    if len(rows) < available:
        notes.append(f"{len(rows)} of {available} samples, {how}, seed {settings.seed}")
    notes += _value_notes(picked, inputs, source, dtype, integers)
    shapes = {n: source.columns[n].shape[1:] for n in inputs}
    labelled = bound.label is not None
    found = (path, len(rows), available, False, labelled, shapes, batches, tuple(notes))
    return Sample(*found, common)


def _is_real(kind: torch.dtype, dtype: torch.dtype, integers: bool) -> bool:
    """Whether the model gets real numbers from a column of this type."""
    after = in_type(torch.empty(0, dtype=kind), dtype, integers=integers)
    return bool(after.is_floating_point())


def _common_length(source: Source, used: list[str]) -> int:
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


_PIECE = 1 << 16  # labels that are read at a time


def _class_labels(source: Source, name: str | None) -> Labels | None:
    """Labels to keep the proportions of; None if there are none or they are no classes."""
    if name is None:
        return None
    column = source.columns[name]
    if column.dtype.is_floating_point or len(column.shape) > 1:
        return None
    every = Picked(source, [name], range(column.shape[0]), _PIECE)
    return lambda: (piece[name].numpy() for piece in every)


def _value_notes(
    picked: Picked, names: list[str], source: Source, dtype: torch.dtype, integers: bool
) -> list[str]:
    """What casting does, and whether values are finite: one pass over the chosen rows."""
    kinds = {n: source.columns[n].dtype for n in names}
    after = {n: in_type(torch.empty(0, dtype=k), dtype, integers=integers).dtype
             for n, k in kinds.items()}  # fmt: skip
    bad: set[str] = set()
    if any(k.is_floating_point for k in after.values()):
        for raw in picked:
            bad |= {n for n in names if n not in bad and after[n].is_floating_point
                    and not bool(torch.isfinite(raw[n].to(after[n])).all())}  # fmt: skip
    notes = []
    for name in names:
        if not kinds[name].is_floating_point and after[name].is_floating_point:
            turned = f"{_name(kinds[name])} to {_name(after[name])}"
            notes.append(f"'{name}' was turned from {turned}, values unchanged")
        if name in bad:
            notes.append(f"'{name}' holds NaN or infinite values")
    return notes


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@dataclass(frozen=True)
class _Stream:
    """Batches of the user's own code."""

    again: Callable[[], Iterable[Any]]


def _from_callable(module: torch.nn.Module, text: str, settings: DataSettings) -> Sample:
    made = load_object(text, option="--data")
    stream = _stream(made, text, settings)
    dtype, integers = model_dtype(module), takes_integers(module)

    def batches() -> Iterator[Batch]:
        start, most = 0, settings.samples
        for item in _guarded(stream.again, text):
            args, kwargs, labels = _split(item, text)
            size = _size((args, kwargs), text)
            keep = size if most is None else min(size, most - start)
            if keep <= 0:
                return

            def cut(value: Any, size: int = size, keep: int = keep) -> Any:
                value = in_type(value, dtype, integers=integers)
                is_batch = isinstance(value, torch.Tensor) and value.dim() > 0
                return value[:keep] if is_batch and value.shape[0] == size else value

            y = labels[:keep] if labels is not None else None
            yield Batch(tree_map(cut, args), tree_map(cut, kwargs), y, keep, start)
            start += keep

    first, total, labelled = None, 0, True
    for batch in batches():
        first = first or batch
        total += batch.size
        labelled = labelled and batch.labels is not None
    if first is None:
        raise DataError("yields no batch", where=text)
    leaves = tree_leaves((first.args, dict(first.kwargs)))
    shapes = {
        f"input[{i}]" if i else "input": tuple(t.shape[1:])
        for i, t in enumerate(t for t in leaves if isinstance(t, torch.Tensor))
    }
    return Sample(text, total, None, False, labelled, shapes, batches)


def _stream(made: Any, text: str, settings: DataSettings) -> _Stream:
    """What can be iterated again: a callable is called anew, a generator is kept."""
    if callable(made) and not isinstance(made, torch.utils.data.DataLoader):
        return _Stream(lambda: _iterable(made(), text))
    if isinstance(made, Iterator):
        kept = list(made)
        return _Stream(lambda: kept)
    return _Stream(lambda: _iterable(made, text))


def _iterable(value: Any, text: str) -> Iterable[Any]:
    if isinstance(value, torch.Tensor | Mapping):
        return [value]
    if isinstance(value, tuple) and value and isinstance(value[0], torch.Tensor | np.ndarray):
        return [value]
    if not isinstance(value, Iterable):
        hint = "Yield tensors, (x, y) pairs or dictionaries."
        raise DataError(f"gives a {type(value).__name__}, no batches", where=text, hint=hint)
    return value


def _guarded(again: Callable[[], Iterable[Any]], text: str) -> Iterator[Any]:
    try:
        yield from again()
    except DataError:
        raise
    except Exception as error:  # any code may stand in the user's callable
        raise DataError(f"fails: {one_line(error)}", where=text) from error


def _split(item: Any, text: str) -> tuple[tuple[Any, ...], dict[str, Any], torch.Tensor | None]:
    """(args, kwargs, labels) of one batch."""
    item = tree_map(lambda v: torch.from_numpy(v) if isinstance(v, np.ndarray) else v, item)
    if isinstance(item, torch.Tensor):
        return (item,), {}, None
    if isinstance(item, Mapping):
        label = next((n for n in LABEL_NAMES if n in item), None)
        rest = {str(k): v for k, v in item.items() if k != label}
        labels = item[label] if label else None
        return ((rest.pop("x"),), rest, labels) if "x" in rest else ((), rest, labels)
    if isinstance(item, list | tuple) and item:
        if len(item) == 1:
            return _split(item[0], text)
        *inputs, labels = item
        if not isinstance(labels, torch.Tensor):
            raise DataError("a batch's last element is no tensor of labels", where=text)
        if len(inputs) == 1 and isinstance(inputs[0], Mapping):
            return (), dict(inputs[0]), labels
        return tuple(inputs), {}, labels
    hint = "Yield tensors, (x, y) pairs or dictionaries."
    raise DataError(f"yields a {type(item).__name__}", where=text, hint=hint)


def _size(inputs: Any, text: str) -> int:
    tensors = [t for t in tree_leaves(inputs) if isinstance(t, torch.Tensor) and t.dim()]
    if not tensors or tensors[0].shape[0] == 0:
        raise DataError("yields an empty batch", where=text)
    return int(tensors[0].shape[0])


def _try(module: torch.nn.Module, sample: Sample) -> None:
    """One sample forward: what does not fit is explained before anything long begins."""
    from gradscope.loading.trial import check_fits

    batch = next(iter(sample.batches()))
    where = sample.path or "the synthesised input"
    try:
        check_fits(module, batch, where)
    except DataError as error:
        hint = hint_for(module, sample) or error.hint
        raise DataError(error.what, where=error.where, hint=hint) from error

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
from gradscope.loading.arrays import read_arrays
from gradscope.loading.binding import LABEL_NAMES, bind, in_type, model_dtype, takes_integers
from gradscope.loading.synthetic import synthesise
from gradscope.model import Batch, LoadedModel, Sample
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


def load_validation(model: LoadedModel, settings: DataSettings) -> Sample | None:
    """Held-out data of ``--val``; None if there are none.

    Raises:
        DataError: it cannot be read, does not fit the model, or has no labels.
    """
    if settings.val is None:
        return None
    module = _module(model)
    sample = _open(module, settings.val, settings)
    if not sample.labels:
        hint = "Add an array y."
        raise DataError("held-out data without labels say nothing", where=settings.val, hint=hint)
    _try(module, sample)
    return sample


def _module(model: LoadedModel) -> torch.nn.Module:
    if model.module is None:
        raise DataError("there is no architecture to run data through", where=model.path)
    return model.module


def _open(module: torch.nn.Module, data: str, settings: DataSettings) -> Sample:
    is_callable = ":" in data and not _is_file(data)
    opened = _from_callable if is_callable else _from_file
    return opened(module, data, settings)


def _is_file(data: str) -> bool:
    try:
        return Path(data).exists()
    except (OSError, ValueError):  # too long, or with a NUL byte
        return True


def _from_file(module: torch.nn.Module, path: str, settings: DataSettings) -> Sample:
    arrays = read_arrays(path)
    for name, array in arrays.items():
        if array.dim() == 0:
            raise DataError(f"array '{name}' is a single number", where=path)
    bound = bind(module, list(arrays), path)
    used = [*bound.args, *bound.kwargs.values(), *([bound.label] if bound.label else [])]
    available = _common_length(arrays, used, path)
    labels = arrays[bound.label] if bound.label else None
    chosen = _choose(available, settings, labels)
    notes = [f"array '{n}' fits no input and was left out" for n in bound.unused]
    if len(chosen) < available:
        how = "stratified by label" if _classes(labels) else "at random"
        notes.append(f"{len(chosen)} of {available} samples, {how}, seed {settings.seed}")
    cast, cast_notes = _cast(module, {n: arrays[n][chosen] for n in used if n != bound.label})
    notes += cast_notes
    picked = labels[chosen] if labels is not None else None
    size = settings.batch_size

    def batches() -> Iterator[Batch]:
        for start in range(0, len(chosen), size):
            stop = min(start + size, len(chosen))
            args = tuple(cast[n][start:stop] for n in bound.args)
            kwargs = {p: cast[n][start:stop] for p, n in bound.kwargs.items()}
            y = picked[start:stop] if picked is not None else None
            yield Batch(args, kwargs, y, stop - start, start)

    shapes = {n: tuple(t.shape[1:]) for n, t in cast.items()}
    return Sample(
        path, len(chosen), available, False, labels is not None, shapes, batches, tuple(notes)
    )


def _common_length(arrays: Mapping[str, torch.Tensor], used: list[str], path: str) -> int:
    first = used[0]
    n = len(arrays[first])
    for name in used[1:]:
        if len(arrays[name]) != n:
            one, two = tuple(arrays[first].shape), tuple(arrays[name].shape)
            what = f"'{first}' {one} and '{name}' {two} have different numbers of samples"
            raise DataError(what, where=path, hint="The first axis counts samples.")
    if n == 0:
        raise DataError("has no samples", where=path)
    if any(arrays[name].numel() == 0 for name in used):
        raise DataError("has an empty array", where=path)
    return n


def _classes(labels: torch.Tensor | None) -> bool:
    return labels is not None and not labels.is_floating_point() and labels.dim() == 1


def _choose(available: int, settings: DataSettings, labels: torch.Tensor | None) -> torch.Tensor:
    """Which samples: all, or a seeded cut in ascending order, with the labels' proportions."""
    count = settings.samples
    if count is None or count >= available:
        return torch.arange(available)
    if count < 1:
        raise OptionError("at least one sample is needed", where="--samples")
    random = np.random.default_rng(settings.seed)
    if not _classes(labels):
        return torch.from_numpy(np.sort(random.permutation(available)[:count]))
    assert labels is not None
    # Ordered by class, shuffled within: every (available / count)-th one keeps the proportions.
    order = np.lexsort((random.random(available), labels.numpy()))
    at = np.floor((np.arange(count) + random.random()) * available / count).astype(np.int64)
    return torch.from_numpy(np.sort(order[np.minimum(at, available - 1)]))


def _cast(
    module: torch.nn.Module, arrays: Mapping[str, torch.Tensor]
) -> tuple[dict[str, torch.Tensor], list[str]]:
    dtype, integers = model_dtype(module), takes_integers(module)
    cast = {n: in_type(t, dtype, integers=integers) for n, t in arrays.items()}
    notes = []
    for name, after in cast.items():
        before = arrays[name]
        if not before.is_floating_point() and after.is_floating_point():
            kinds = f"{_name(before.dtype)} to {_name(after.dtype)}"
            notes.append(f"'{name}' was turned from {kinds}, values unchanged")
        if after.is_floating_point() and not bool(torch.isfinite(after).all()):
            notes.append(f"'{name}' holds NaN or infinite values")
    return cast, notes


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
    check_fits(module, batch, sample.path or "the synthesised input")

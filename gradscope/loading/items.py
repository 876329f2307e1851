"""What people's loaders yield, as calls of a model: tensors, tuples, dictionaries, nested."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from gradscope.cutting import leaves, length, mapped
from gradscope.errors import DataError
from gradscope.loading.binding import Bound, bind
from gradscope.loading.casting import NUMBERS, with_arithmetic
from gradscope.loading.numpy_rows import to_tensor
from gradscope.loading.wanted import Wanted

HINT = "Yield tensors, (x, y) pairs or dictionaries."


@dataclass(frozen=True)
class Item:
    """One batch as it was yielded.

    Attributes:
        args, kwargs: inputs.
        labels: one entry a sample, or None.
        size: samples.
        bound: how a dictionary was matched, if it was one.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    labels: Any
    size: int = 0
    bound: Bound | None = None
    notes: tuple[str, ...] = field(default=())


def _check_kinds(value: Any, text: str) -> None:
    """Only tensors whose numbers lie in memory one after another can be cut into samples."""
    for leaf in leaves([value]):
        if not isinstance(leaf, torch.Tensor):
            continue
        odd = next((n for n, is_it in _ODD.items() if is_it(leaf)), None)
        if odd is not None:
            hint = "Yield dense tensors, in memory."
            raise DataError(f"yields a {odd} tensor", where=text, hint=hint)


_ODD: Mapping[str, Callable[[torch.Tensor], bool]] = {
    "nested": lambda t: t.is_nested,
    "meta": lambda t: t.is_meta,
    "quantised": lambda t: t.is_quantized,
    "sparse": lambda t: t.layout is not torch.strided,
    "uint64": lambda t: t.dtype is torch.uint64,
    "packed": lambda t: t.dtype not in NUMBERS,
}


class Splitter:
    """Tells inputs from labels; what was decided at the first batch holds for all.

    Args:
        wanted: what the model takes.
        text: ``--data``, for messages.
        together: dictionaries are passed as they are.
    """

    def __init__(self, wanted: Wanted, text: str, *, together: bool = False) -> None:
        self._wanted, self._text, self._together = wanted, text, together

    def __call__(self, value: Any) -> Item:
        """One batch.

        Raises:
            DataError: it is none, or does not fit the model's inputs.
        """
        try:
            _check_kinds(value, self._text)
            item = self._split(_tensors(value))
        except RecursionError as error:
            raise DataError("yields what contains itself", where=self._text, hint=HINT) from error
        sizes = [n for n in map(length, leaves((item.args, dict(item.kwargs)))) if n is not None]
        if not sizes:
            raise DataError(f"yields {described(value)}", where=self._text, hint=HINT)
        if sizes[0] == 0:
            raise DataError("yields an empty batch", where=self._text)
        labels = item.labels
        if labels is not None:
            labels = self._labels(labels, sizes[0])
        return Item(item.args, item.kwargs, labels, sizes[0], item.bound, item.notes)

    def _split(self, value: Any) -> Item:
        if next(leaves([value]), None) is value:
            return Item((value,), {}, None)
        if isinstance(value, Mapping):
            return self._named(value, None)
        if isinstance(value, list | tuple) and value:
            return self._ordered(value)
        raise DataError(f"yields a {type(value).__name__}", where=self._text, hint=HINT)

    def _named(self, value: Mapping[Any, Any], label: Any) -> Item:
        arrays = {str(k): v for k, v in value.items() if next(leaves(v), None) is not None}
        if not arrays:
            raise DataError("yields a dictionary without tensors", where=self._text, hint=HINT)
        shown = {n: described(v) for n, v in arrays.items()}
        bound = bind(self._wanted, shown, self._text, "" if label is not None else None)
        if self._together:
            inputs = {n: v for n, v in arrays.items() if n != bound.label}
            args, kwargs = (inputs,), dict[str, Any]()
        else:
            args, kwargs = bound.call(arrays)
        left = [] if self._together else bound.unused
        notes = tuple(f"'{n}' fits no input and was left out" for n in left)
        labels = arrays[bound.label] if bound.label else label
        return Item(args, kwargs, labels, bound=bound, notes=notes)

    def _ordered(self, value: Sequence[Any]) -> Item:
        """Labels are the last element, unless the model takes all of them as inputs."""
        if len(value) == 1:
            return self._split(value[0])
        *inputs, labels = value
        if len(inputs) == 1 and isinstance(inputs[0], Mapping):
            return self._named(inputs[0], labels)
        required = len(self._wanted.required)
        if len(inputs) < required <= len(value):
            what = f"all {len(value)} elements of a batch are inputs, as the model takes "
            return Item(tuple(value), {}, None, notes=(f"{what}{required}: there are no labels",))
        if len(inputs) > self._wanted.most:
            what = (
                f"yields {len(value)} elements {described(value)}; the model takes {self._wanted}"
            )
            raise DataError(what, where=self._text, hint="Yield its inputs, and labels last.")
        return Item(tuple(inputs), {}, labels)

    def _labels(self, given: Any, size: int) -> torch.Tensor:
        labels = given
        if isinstance(labels, list | tuple) and all(isinstance(v, int | float) for v in labels):
            labels = torch.tensor(labels)
        if not isinstance(labels, torch.Tensor):  # free of any graph already
            what = f"a batch's last element is no tensor of labels ({described(labels)})"
            raise DataError(what, where=self._text)
        if not labels.dim() and size == 1:
            labels = labels.reshape(1)
        if length(labels) != size:
            what = f"yields {size} samples with labels {described(labels)}"
            raise DataError(what, where=self._text, hint="The first axis counts samples.")
        return labels


def _tensors(value: Any) -> Any:
    """The same with numpy's arrays as tensors, free of any graph, and plain dictionaries."""
    if isinstance(value, Mapping) and type(value) is not dict:
        value = dict(value)  # those of other libraries are leaves to torch

    def one(leaf: Any) -> Any:
        if isinstance(leaf, np.ndarray | np.generic) and leaf.dtype.kind in "fiub":
            return to_tensor(np.asarray(leaf))
        return with_arithmetic(leaf.detach().cpu()) if isinstance(leaf, torch.Tensor) else leaf

    return mapped(one, value)


def described(value: Any) -> str:
    """Shapes for a message: ``(8, 3) float32``, ``[(8, 3) float32, (8,) int64]``."""
    if isinstance(value, torch.Tensor):
        return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return f"[{', '.join(described(v) for v in value[:6])}]"
    return type(value).__name__

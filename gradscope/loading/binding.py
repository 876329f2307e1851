"""Which array is which input of the model, and in which type it is wanted."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from gradscope.errors import DataError

INPUT_NAMES = (
    "x", "input", "inputs", "data", "features", "image", "images", "input_ids", "src", "tokens",
)  # fmt: skip
LABEL_NAMES = ("y", "label", "labels", "target", "targets")


@dataclass(frozen=True)
class Bound:
    """Arrays by their place in a call.

    Attributes:
        args: names of arrays that are passed by position, in order.
        kwargs: parameter of forward -> name of array.
        label: name of the labels, if there are any.
        unused: arrays that fit nowhere.
    """

    args: tuple[str, ...]
    kwargs: Mapping[str, str]
    label: str | None
    unused: tuple[str, ...]


def bind(module: torch.nn.Module, names: list[str], where: str, label: str | None = None) -> Bound:
    """Match arrays to the model's inputs by name; ``x`` is the only or first input.

    Args:
        label: which array holds the labels; None goes by :data:`LABEL_NAMES`.

    Raises:
        DataError: an input without an array, or no array at all.
    """
    wanted, required, takes_any = signature_of(module)
    label = label or next((n for n in LABEL_NAMES if n in names and n not in required), None)
    inputs = [n for n in names if n != label]
    if not inputs:
        hint = "Name the input array x."
        raise DataError("holds labels but no input", where=where, hint=hint)
    exact = [n for n in inputs if n in wanted]
    if exact and set(required) <= set(inputs):
        unused = tuple(n for n in inputs if n not in wanted)
        return Bound((), {n: n for n in exact}, label, unused)
    first = next((n for n in (*INPUT_NAMES, *wanted[:1]) if n in inputs), None)
    if first is None and len(inputs) > 1 and not all(n.startswith("arr_") for n in inputs):
        what = f"which of its arrays is the input? It has {', '.join(names)}"
        raise DataError(what, where=where, hint="Call the input x and the labels y.")
    first = first or inputs[0]
    rest = [n for n in inputs if n != first]
    matched = {n: n for n in rest if n in wanted[1:] or (takes_any and n not in LABEL_NAMES)}
    lacking = [n for n in required[1:] if n not in matched]
    if lacking and len(inputs) == len(required) and all(n.startswith("arr_") for n in inputs):
        return Bound(tuple(inputs), {}, label, ())
    if lacking:
        what = f"has no array for the model's input '{lacking[0]}' (arrays: {', '.join(names)})"
        hint = f"Name the arrays as forward does: {', '.join(required)}."
        raise DataError(what, where=where, hint=hint)
    unused = tuple(n for n in rest if n not in matched)
    return Bound((first,), matched, label, unused)


def signature_of(module: torch.nn.Module) -> tuple[list[str], list[str], bool]:
    """(all inputs of forward, those without default, whether any keyword is taken)."""
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return [], [], False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    named = [p for p in parameters if p.kind in (*positional, inspect.Parameter.KEYWORD_ONLY)]
    required = [p.name for p in named if p.default is inspect.Parameter.empty]
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
    return [p.name for p in named], required, takes_any


def model_dtype(module: torch.nn.Module) -> torch.dtype:
    """Floating type of the model's parameters; float32 where it has none."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            return tensor.dtype
    return torch.float32


def takes_integers(module: torch.nn.Module) -> bool:
    """Whether the model looks integers up somewhere."""
    looking = torch.nn.Embedding | torch.nn.EmbeddingBag
    return any(isinstance(m, looking) for m in module.modules())


def in_type(value: Any, dtype: torch.dtype, *, integers: bool) -> Any:
    """One input in the type that the model wants.

    Floating inputs take the model's type. Integers and booleans stay (as int64) for a model that
    looks integers up, and become numbers otherwise; they are never rescaled.
    """
    if not isinstance(value, torch.Tensor) or value.is_complex():
        return value
    if value.is_floating_point():
        return value.to(dtype)
    if value.dtype is torch.bool:
        return value if integers else value.to(dtype)
    return value.long() if integers else value.to(dtype)

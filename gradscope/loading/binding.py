"""Which array is which input of the model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from gradscope.errors import DataError
from gradscope.loading.wanted import Wanted, describe
from gradscope.model import Input

INPUT_NAMES = (
    "x", "input", "inputs", "data", "features", "image", "images", "input_ids", "src", "tokens",
)  # fmt: skip
LABEL_NAMES = ("y", "label", "labels", "target", "targets")


@dataclass(frozen=True)
class Bound:
    """Arrays by their place in a call.

    Attributes:
        args: names of arrays that are passed by position, in order; None where nothing is passed.
        kwargs: parameter of forward -> name of array.
        label: name of the labels, if there are any.
        unused: arrays that fit nowhere.
        together: the arrays of ``args`` are passed as one dictionary.
        declared: name of array -> the input of the model that it is.
    """

    args: tuple[str | None, ...]
    kwargs: Mapping[str, str]
    label: str | None
    unused: tuple[str, ...]
    together: bool = False
    declared: Mapping[str, Input] = field(default_factory=dict)

    @property
    def inputs(self) -> list[str]:
        """Names of all arrays that are passed."""
        return [*(n for n in self.args if n is not None), *self.kwargs.values()]

    def call(self, arrays: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """(args, kwargs) of a call."""
        if self.together:
            return ({n: arrays[n] for n in self.inputs},), {}
        args = tuple(None if n is None else arrays[n] for n in self.args)
        return args, {p: arrays[n] for p, n in self.kwargs.items()}


def bind(
    wanted: Wanted, arrays: Mapping[str, object], where: str, label: str | None = None
) -> Bound:
    """Match arrays to the model's inputs by name; ``x`` is the only or first input.

    Args:
        wanted: what the model takes.
        arrays: by name, as they are described in messages.
        where: for messages.
        label: the name of the labels, where it is known.

    Raises:
        DataError: an input without an array, or no array at all.
    """
    names = list(arrays)
    required = wanted.required
    if label is None:
        label = next((n for n in LABEL_NAMES if n in names and n not in required), None)
    inputs = [n for n in names if n != label]
    if not inputs:
        raise DataError("holds labels but no input", where=where, hint="Name the input array x.")
    matched = _by_name(wanted, inputs)
    if not matched or not set(required) <= set(matched):
        matched = _by_first(wanted, inputs, matched, arrays, where)
    return _placed(wanted, matched, label, inputs)


def _by_name(wanted: Wanted, inputs: Sequence[str]) -> dict[str, str]:
    """Input of the model -> array; names that differ in case and punctuation are the same."""
    found = {n: n for n in wanted.names if n in inputs}
    plain = {_plain(n): n for n in inputs if n not in found}
    for name in wanted.names:
        if name not in found and _plain(name) in plain:
            found[name] = plain.pop(_plain(name))
    return found


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower())


def _by_first(
    wanted: Wanted,
    inputs: list[str],
    matched: dict[str, str],
    arrays: Mapping[str, object],
    where: str,
) -> dict[str, str]:
    """The first input by one of its usual names, the others by theirs, or all by their order."""
    required, names = wanted.required, wanted.names
    unnamed = all(re.fullmatch(r"arr_\d+", n) for n in inputs)
    if unnamed and len(inputs) == len(required):
        return dict(zip(required, inputs, strict=True))
    taken = set(matched.values())
    first = next((n for n in (*INPUT_NAMES, *names[:1]) if n in inputs and n not in taken), None)
    if names and names[0] in matched:
        first = matched[names[0]]
    if first is None and len(inputs) > 1 and not unnamed:
        raise _unclear(wanted, arrays, where)
    first = first or inputs[0]
    found = {(names[0] if names else "*0"): first}
    found |= {k: v for k, v in matched.items() if v != first and k not in found}
    rest = [n for n in inputs if n not in found.values() and n not in LABEL_NAMES]
    if wanted.any_name:
        found |= {n: n for n in rest}
    elif wanted.more and not names and not unnamed:
        found |= {f"*{i}": n for i, n in enumerate(rest, 1)}
    lacking = [n for n in required if n not in found]
    if lacking:
        raise _lacking(wanted, lacking[0], arrays, where)
    return found


def _unclear(wanted: Wanted, arrays: Mapping[str, object], where: str) -> DataError:
    what = f"which of its arrays is the input? It has {_listed(arrays)}; the model takes {wanted}"
    hint = "Call the input x and the labels y."
    if len(wanted.required) > 1:
        hint = f"Name the arrays as forward does: {', '.join(wanted.required)}."
    return DataError(what, where=where, hint=hint)


def _lacking(wanted: Wanted, name: str, arrays: Mapping[str, object], where: str) -> DataError:
    what = f"has no array for the model's input '{name}': the model takes {wanted}; " + (
        f"the arrays are {_listed(arrays)}"
    )
    hint = f"Name the arrays as forward does: {', '.join(wanted.required)}."
    if wanted.values:
        hint = f"What is no tensor is given as {wanted.values}."
    elif not wanted.declared:
        hint += f" A plain number is given as --input-value {name}=NUMBER."
    return DataError(what, where=where, hint=hint)


def _listed(arrays: Mapping[str, object]) -> str:
    shown = [f"{n} {a}".strip() for n, a in list(arrays.items())[:8]]
    return ", ".join([*shown, *(["..."] if len(arrays) > 8 else [])])


def _placed(
    wanted: Wanted, matched: Mapping[str, str], label: str | None, inputs: Sequence[str]
) -> Bound:
    """By position what must be or has no name, the rest by name."""
    order = [*wanted.names, *(k for k in matched if k.startswith("*"))]
    if wanted.declared or order[len(wanted.names) :]:
        by_position = order
    elif wanted.positional:
        by_position = order[: wanted.positional]
    else:  # the first, where the file calls it otherwise
        by_position = [n for n in order[:1] if matched.get(n, n) != n]
    count = max((i + 1 for i, n in enumerate(by_position) if n in matched), default=0)
    args = tuple(matched.get(n) for n in order[:count])
    kwargs = {k: v for k, v in matched.items() if k not in order[:count]}
    known = {matched[i.name]: i for i in wanted.inputs if i.name in matched}
    unused = tuple(n for n in inputs if n not in matched.values())
    return Bound(args, kwargs, label, unused, declared=known)


def alternatives(wanted: Wanted, bound: Bound) -> Iterator[Bound]:
    """The same arrays in other forms, where names leave it open; a trial tells which runs."""
    yield bound
    if wanted.more and not wanted.names and len(bound.args) > 1:
        yield replace(bound, args=bound.args[:1], unused=(*bound.inputs[1:], *bound.unused))
    if len(wanted.required) <= 1 and not wanted.declared:
        yield together(bound)


def together(bound: Bound) -> Bound:
    """The same arrays in one dictionary, for a model that takes its batch as a whole."""
    names = (*bound.inputs, *bound.unused)
    return replace(bound, args=names, kwargs={}, unused=(), together=True, declared={})


def check_declared(bound: Bound, shapes: Mapping[str, tuple[int, ...]], where: str) -> None:
    """Sizes that a model fixes, against those of the arrays; samples come first in both.

    Raises:
        DataError: names the input and both shapes.
    """
    for name, wanted in bound.declared.items():
        if wanted.shape is None:
            continue
        sizes, got = wanted.shape[1:], shapes[name][1:]
        fits = len(sizes) == len(got) and all(
            s is None or s == g for s, g in zip(sizes, got, strict=True)
        )
        if not fits:
            what = f"the model takes {describe(wanted)}; '{name}' is {shapes[name]}"
            raise DataError(what, where=where, hint="Sizes after the first must be equal.")


def takes_integers(module: torch.nn.Module) -> bool:
    """Whether the model looks integers up somewhere."""
    looking = torch.nn.Embedding | torch.nn.EmbeddingBag
    return any(isinstance(m, looking) for m in module.modules())


def model_dtype(module: torch.nn.Module) -> torch.dtype:
    """Floating type of the model's parameters; float32 where it has none."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            return tensor.dtype
    return torch.float32

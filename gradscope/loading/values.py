"""Plain numbers and words that a model's forward takes beside its tensors (``--input-value``)."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from gradscope.errors import OptionError
from gradscope.loading.wanted import signature_of
from gradscope.model import LoadedModel

_OPTION = "--input-value"


def with_values(model: LoadedModel, values: Mapping[str, object]) -> LoadedModel:
    """The model with these arguments given at every call; its other inputs are what remains.

    Args:
        model: as it came out of its file.
        values: by the names of the arguments.

    Raises:
        OptionError: the model has no such argument, or there is no model to call.
    """
    if not values:
        return model
    if model.module is None:
        hint = "Pass what builds the model with --arch."
        raise OptionError("there is no architecture to give it to", where=_OPTION, hint=hint)
    declared = [*(model.inputs or ()), *model.shared]
    wanted = signature_of(model.module)
    names = [i.name for i in declared] or wanted.names
    for name in values:
        if name not in names and (declared or not wanted.any_name):
            hint = f"It takes: {', '.join(names) or 'nothing that is known'}."
            raise OptionError(f"the model takes no '{name}'", where=_OPTION, hint=hint)
    if any(i.dtype is not None for i in declared):
        return _as_tensors(model, values)
    forward = model.module.forward
    vars(model.module)["forward"] = _giving(forward, values)
    inputs = model.inputs
    kept = None if inputs is None else tuple(i for i in inputs if i.name not in values)
    said = ", ".join(f"{n} = {v!r}" for n, v in values.items())
    return replace(model, inputs=kept, notes=(*model.notes, f"given to forward: {said}"))


@contextmanager
def lent_values(model: LoadedModel, values: Mapping[str, object]) -> Iterator[LoadedModel]:
    """As :func:`with_values`; afterwards the module's ``forward`` is its own again."""
    own = vars(model.module).get("forward")
    try:
        yield with_values(model, values)
    finally:
        if own is None:
            vars(model.module).pop("forward", None)
        else:
            vars(model.module)["forward"] = own


def _giving(forward: Callable[..., Any], values: Mapping[str, object]) -> Callable[..., Any]:
    """``forward`` without some of its parameters."""
    whole = inspect.signature(forward)
    rest = [p for n, p in whole.parameters.items() if n not in values]
    # After one that was taken out, no other can be told by its place in the whole.
    by_name = all(p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) for p in rest)
    less = inspect.Signature(sorted(rest, key=lambda p: (p.kind, p.default is not p.empty)))

    @functools.wraps(forward)
    def given(*args: Any, **kwargs: Any) -> Any:
        if by_name:
            return forward(**less.bind(*args, **kwargs).arguments, **values)
        return forward(*args, **kwargs, **values)

    vars(given)["__signature__"] = less
    return given


def _as_tensors(model: LoadedModel, values: Mapping[str, object]) -> LoadedModel:
    """For graphs, whose inputs are all tensors: the same number in every place of a shared one."""
    shared = {i.name: i for i in model.shared}
    given = {}
    for name, value in values.items():
        if name not in shared or not isinstance(value, int | float):
            what = f"'{name}' is no single number of this model, or {value!r} is none"
            raise OptionError(what, where=_OPTION, hint="Pass its samples with --data.")
        sizes = [int(s or 1) for s in shared[name].shape or ()]
        given[name] = torch.full(sizes, value, dtype=shared[name].dtype)
    return replace(model, given=given)

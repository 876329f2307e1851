"""A model in another floating type than that of its file: ``--dtype``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from gradscope.errors import OptionError
from gradscope.loading.wanted import type_name
from gradscope.model import LoadedModel

TYPES: Mapping[str, torch.dtype] = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
    "float64": torch.float64,
}
_WHERE = "--dtype"
_LEAVE = "Leave it out."


def in_precision(model: LoadedModel, name: str | None) -> LoadedModel:
    """The model with its floating parameters and buffers in a type, as ``module.to(dtype)`` does.

    Inputs follow the parameters. What no longer fits into the type is said in a note.

    Args:
        model: as loaded, and changed in place: nothing else holds it.
        name: of the type; None: as in the file.

    Raises:
        OptionError: no such type; or a model whose types are not its parameters' alone.
    """
    if name is None:
        return model
    dtype = TYPES.get(name)
    if dtype is None:
        hint = f"Choose {', '.join(TYPES)}."
        raise OptionError(f"there is no type '{name}' to measure in", where=_WHERE, hint=hint)
    _check(model)
    tensors = dict(model.state)
    if model.module is not None:
        tensors = {**dict(model.module.named_parameters()), **dict(model.module.named_buffers())}
    floating = {n: t for n, t in tensors.items() if t.is_floating_point()}
    before = sorted({type_name(t.dtype) for t in floating.values()} - {type_name(dtype)})
    if not before:
        return model
    lost = [n for n, t in floating.items() if _overflows(t, dtype)]
    notes = [f"measured in {type_name(dtype)}; the file holds {', '.join(before)}"]
    if lost:
        rest = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        notes.append(f"{lost[0]}{rest} exceeds {type_name(dtype)}: infinite here, not in the file")
    if model.module is not None:
        model.module.to(dtype)
    state = {n: t.to(dtype) if n in floating else t for n, t in model.state.items()}
    return replace(model, state=state, notes=(*model.notes, *notes))


def _check(model: LoadedModel) -> None:
    """Graphs state the type of every value; complex numbers would lose a half."""
    if model.inputs is not None:
        what = f"{model.path} is a graph that states the type of every value"
        raise OptionError(what, where=_WHERE, hint=_LEAVE)
    module = model.module
    tensors = model.state.values() if module is None else (*module.parameters(), *module.buffers())
    if any(t.is_complex() for t in tensors):
        what = f"{model.path} holds complex numbers, which have no such type"
        raise OptionError(what, where=_WHERE, hint=_LEAVE)


def _overflows(tensor: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether a finite element is infinite in the type."""
    if tensor.numel() == 0 or torch.finfo(dtype).max >= torch.finfo(tensor.dtype).max:
        return False
    finite = torch.isfinite(tensor)
    return bool((finite & ~torch.isfinite(tensor.to(dtype))).any())

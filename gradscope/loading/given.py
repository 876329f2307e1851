"""What a running program has in memory, in place of files: a module, arrays, a loader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from gradscope.config import DataSettings
from gradscope.errors import DataError, LoadError
from gradscope.loading import from_code, from_file
from gradscope.loading.casting import NUMBERS, with_arithmetic
from gradscope.loading.numpy_rows import to_tensor
from gradscope.loading.rows import Memory
from gradscope.loading.shared import taken_out, with_shared
from gradscope.loading.wanted import Wanted, wanted_by
from gradscope.model import LoadedModel, Prepared, Sample


def hold_model(module: Any, name: str) -> LoadedModel:
    """A module in memory, which stays as it is and where it is.

    Args:
        module: an ``nn.Module``; what ``torch.compile`` and data parallelism put around it is
            looked through.
        name: for the report.

    Raises:
        LoadError: it is none, or one that has to come from its file.
    """
    if not isinstance(module, nn.Module):
        hint = "Give an nn.Module, or the path of a saved model."
        raise LoadError(f"is a {type(module).__name__}, no model", where=name, hint=hint)
    module = _inner(module)
    if isinstance(module, torch.jit.ScriptModule):
        # Optimised from its first call on, a script hides its activations.
        hint = "Save it with torch.jit.save and give the file."
        raise LoadError("is TorchScript, which is examined from its file", where=name, hint=hint)
    if isinstance(module, torch.fx.GraphModule) and "eval" in vars(module):
        hint = "Save it with torch.export.save and give the file."
        what = "is an exported program, which is examined from its file"
        raise LoadError(what, where=name, hint=hint)
    return LoadedModel(name, "module in memory", module)


def _inner(module: Any) -> nn.Module:
    """The module behind wrappers, which share its parameters."""
    while True:
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            module = module.module
        elif type(module).__name__ == "OptimizedModule":  # to name its class would load a compiler
            module = module.get_submodule("_orig_mod")
        else:
            found: nn.Module = module
            return found


def sample_of(
    model: LoadedModel,
    data: Any,
    name: str,
    settings: DataSettings,
    loss: str,
    like: Prepared | None = None,
) -> Sample:
    """Arrays as rows, of which some are chosen; whatever yields batches, from its beginning.

    Args:
        model: as loaded.
        data: an array or tensor, (inputs..., labels), arrays by name; else a loader, a dataset, a
            list or an iterator of batches, or a callable that returns one.
        name: for messages and the report.
        settings: how many samples, and what is done to them.
        loss: ``--loss``; labels are read accordingly.
        like: of the sample, if this is held-out data.

    Raises:
        DataError: it is none of these, or does not fit the model.
    """
    if model.module is None:
        raise DataError("there is no architecture to run data through", where=model.path)
    arrays = _arrays(data, wanted_by(model), name)
    if arrays is None:
        return from_code.sample_from(model, data, name, settings, loss)
    source, shared = taken_out(model, Memory(name, arrays))
    sample = from_file.sample_of(model, source, settings, loss, like)
    return with_shared(model, sample, shared)


def _arrays(data: Any, wanted: Wanted, name: str) -> dict[str, torch.Tensor] | None:
    """Arrays by name; None if it is no such thing."""
    if _is_array(data):
        return {"x": _tensor(data, "x", name)}
    if isinstance(data, Mapping) and data and all(map(_is_array, data.values())):
        return {str(k): _tensor(v, str(k), name) for k, v in data.items()}
    if isinstance(data, tuple) and data and all(map(_is_array, data)):
        names = _places(data, wanted)
        return {n: _tensor(v, n, name) for n, v in zip(names, data, strict=True)}
    return None


def _places(data: Sequence[Any], wanted: Wanted) -> list[str]:
    """Names of the elements: the model's inputs in their order, and labels last."""
    required = wanted.required
    if len(data) == len(required) and len(data) > 1:
        return required
    inputs = len(data) - 1 if len(data) > 1 else 1
    names = required if len(required) == inputs else [f"arr_{i}" for i in range(inputs)]
    names = ["x"] if inputs == 1 else names
    return [*names, *(["y"] if len(data) > 1 else [])]


def _is_array(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        plain = value.layout is torch.strided and not value.is_nested and not value.is_meta
        return plain and value.dtype in NUMBERS
    return isinstance(value, np.ndarray) or (
        hasattr(value, "__array__") and not isinstance(value, np.generic)
    )


def _tensor(value: Any, key: str, where: str) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        try:
            return with_arithmetic(value.detach().cpu())
        except ValueError as error:
            raise DataError(f"'{key}': {error}", where=where) from error
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        hint = "gradscope runs real, integer and boolean arrays."
        raise DataError(f"'{key}' has type {array.dtype}", where=where, hint=hint)
    try:
        return to_tensor(array)
    except ValueError as error:
        raise DataError(f"'{key}': {error}", where=where) from error

"""What the pickle of a scanned file may import beside modules, and what stands for the rest."""

from __future__ import annotations

import _codecs
import functools
import importlib
from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from gradscope.loading.allowed import FUNCTIONS_OF_TORCH, GETATTR
from gradscope.loading.pickle_calls import COMPILED, PARTIAL, SMALL, is_constant
from gradscope.loading.pickle_tensors import NUMPY_SCALARS, TENSORS

_BYTES = SimpleNamespace(dtype=torch.uint8)
"""Storage without a type; torch's own class lacks what its reader of legacy files asks for."""


class Unbuilt:
    """Stands where an object of a foreign class stood; takes everything, does nothing."""

    dump_patches = False  # asked for by torch, of classes of old files

    def __new__(cls, *args: Any, **kwargs: Any) -> Unbuilt:
        """Whatever the arguments."""
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Whatever the arguments."""

    def __setstate__(self, state: Any) -> None:
        """Nothing is set."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Nothing is set."""

    def append(self, value: Any) -> None:
        """Nothing is kept."""

    def extend(self, values: Any) -> None:
        """Nothing is kept."""

    def add(self, value: Any) -> None:
        """Nothing is kept."""

    def __repr__(self) -> str:
        return "(unbuilt)"


def rebuilders() -> dict[str, Any]:
    """By full name, under the names of Python 3."""
    found: dict[str, Any] = {
        "collections.OrderedDict": OrderedDict,
        "torch.Tensor": torch.Tensor,
        "torch.nn.parameter.Parameter": torch.nn.Parameter,
        "torch.storage.UntypedStorage": _BYTES,
        "torch.UntypedStorage": _BYTES,
        "numpy.dtype": np.dtype,
        COMPILED: _Uncompiled,
        PARTIAL: functools.partial,
        FUNCTIONS_OF_TORCH: vars(torch._C)["_VariableFunctionsClass"],
        "_codecs.encode": _codecs.encode,
    }
    scalar = importlib.import_module("numpy._core.multiarray").scalar
    found |= dict.fromkeys(NUMPY_SCALARS, scalar)
    found |= dict.fromkeys(GETATTR, _function)
    for path in (*TENSORS, *SMALL):
        module, _, name = path.rpartition(".")
        if module != "__builtin__" and path not in found:
            found[path] = getattr(importlib.import_module(module), name)
    return found | {f"torch.{n}": v for n, v in vars(torch).items() if is_constant(n)}


class _Uncompiled:
    """Stands for ``torch.compile``'s wrapper: the module as it was before."""

    dump_patches = False

    def __new__(cls, module: Any, context: Any) -> Any:
        """The module alone."""
        return module


def _function(owner: Any, name: str) -> Any:
    """Stands for ``getattr``: the scan has admitted functions of torch under this, and others of
    what is left unbuilt."""
    if owner is vars(torch._C)["_VariableFunctionsClass"]:
        return getattr(torch, name)
    return Unbuilt()

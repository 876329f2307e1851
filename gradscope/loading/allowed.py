"""What a pickled model may name: torch's own modules and the few functions that they pickle."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gradscope.errors import OptionError
from gradscope.usercode import load_object

_FUNCTIONS = ("relu", "gelu", "silu", "elu", "tanh", "sigmoid", "leaky_relu", "mish", "softplus")
_HOOK_MODULES = {
    "torch.nn.utils.weight_norm": ("WeightNorm",),
    "torch.nn.utils.spectral_norm": (
        "SpectralNorm",
        "SpectralNormLoadStateDictPreHook",
        "SpectralNormStateDictHook",
    ),
}
_HOOK_MODULES["torch.nn.modules.module"] = ("_WrappedHook",)
_ALLOW = re.compile(r"^[A-Za-z_][\w.]*(=.+:[A-Za-z_][\w.]*)?$")


@dataclass(frozen=True)
class Allowed:
    """Names that may stand in a pickle, and what they are.

    Attributes:
        modules: full name -> an ``nn.Module`` class that may be rebuilt.
        hooks: full name -> class of an inert hook of weight or spectral norm.
        functions: full name -> function that may be stored, never called by the file.
    """

    modules: Mapping[str, type[torch.nn.Module]]
    hooks: Mapping[str, type]
    functions: Mapping[str, Any]

    def globals_for(self, names: Iterable[str]) -> list[Any]:
        """For ``torch.serialization.safe_globals``: exactly those that a file names."""
        every: dict[str, Any] = {**self.modules, **self.hooks, **self.functions, **_numpy_numbers()}
        found = [(every[name], name) for name in sorted(set(names)) if name in every]
        # numpy rebuilds a type through a class of its own, which torch checks by identity
        kinds = [type(np.dtype(k)) for k in _NUMBERS] if "numpy.dtype" in names else []
        return [*found, *kinds]


_NUMBERS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")


def _numpy_numbers() -> dict[str, Any]:
    """What a single numpy number is rebuilt with, under its old and its new name."""
    scalar = importlib.import_module("numpy._core.multiarray").scalar
    return {
        "numpy.dtype": np.dtype,
        "numpy.core.multiarray.scalar": scalar,
        "numpy._core.multiarray.scalar": scalar,
    }


def allowed(extra: Iterable[str] = ()) -> Allowed:
    """torch's own, plus what the user admits with ``--allow``.

    Args:
        extra: ``package.module``, ``package.module.Class`` or ``__main__.Net=FILE.py:Net``. These
            modules are imported, that is, run.

    Raises:
        OptionError: malformed, or cannot be imported.
    """
    modules = dict(_torch_modules())
    for text in extra:
        modules.update(_admitted(text))
    hooks = {
        f"{path}.{name}": getattr(importlib.import_module(path), name)
        for path, names in _HOOK_MODULES.items()
        for name in names
    }
    return Allowed(modules, hooks, _torch_functions())


def _torch_modules() -> dict[str, type[torch.nn.Module]]:
    from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

    found: dict[str, type[torch.nn.Module]] = {}
    for value in (*vars(torch.nn).values(), NonDynamicallyQuantizableLinear):
        is_module = isinstance(value, type) and issubclass(value, torch.nn.Module)
        if is_module and value.__module__.startswith("torch.nn.modules."):
            found[f"{value.__module__}.{value.__qualname__}"] = value
    return found


def _torch_functions() -> dict[str, Any]:
    found = {f"torch.nn.functional.{n}": getattr(torch.nn.functional, n) for n in _FUNCTIONS}
    found |= {f"torch.{n}": getattr(torch, n) for n in ("tanh", "sigmoid", "relu")}
    return found | {"torch._C._nn.gelu": torch._C._nn.gelu}


def _admitted(text: str) -> dict[str, type[torch.nn.Module]]:
    if not _ALLOW.match(text):
        hint = "Use package.module, package.module.Class, or __main__.Net=FILE.py:Net."
        raise OptionError(f"cannot read '{text}'", where="--allow", hint=hint)
    name, _, source = text.partition("=")
    if source:
        return {name: _module_class(load_object(source, option="--allow"), text)}
    try:
        module = importlib.import_module(name)
    except ImportError:
        path, _, attribute = name.rpartition(".")
        if not path:
            hint = "Is it installed, or on PYTHONPATH?"
            raise OptionError(f"cannot import '{name}'", where="--allow", hint=hint) from None
        return {name: _module_class(load_object(f"{path}:{attribute}", option="--allow"), text)}
    classes = [v for v in vars(module).values() if isinstance(v, type)]
    found = {
        f"{c.__module__}.{c.__qualname__}": c for c in classes if issubclass(c, torch.nn.Module)
    }
    if not found:
        raise OptionError(f"'{name}' has no nn.Module classes", where="--allow")
    return found


def _module_class(value: Any, text: str) -> type[torch.nn.Module]:
    if isinstance(value, type) and issubclass(value, torch.nn.Module):
        return value
    raise OptionError(f"'{text}' does not name an nn.Module class", where="--allow")

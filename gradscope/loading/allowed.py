"""What a pickled model may name: torch's own modules and the few functions that they pickle."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from gradscope.errors import OptionError
from gradscope.usercode import load_object, one_line

GETATTR = {"builtins.getattr", "__builtin__.getattr"}
FUNCTIONS_OF_TORCH = "torch._C._VariableFunctionsClass"
"""Where pickles look up ``torch.tanh``, with getattr."""

_FUNCTIONS = (
    "relu", "relu6", "gelu", "silu", "elu", "selu", "celu", "tanh", "sigmoid", "leaky_relu", "mish",
    "softplus", "softsign", "hardtanh", "hardswish", "hardsigmoid", "hardshrink", "softshrink",
    "tanhshrink", "logsigmoid", "glu", "softmax", "log_softmax",
)  # fmt: skip
_BUILT_IN = (
    "relu", "tanh", "sigmoid", "selu", "celu", "hardshrink", "softmax", "log_softmax", "sin", "cos",
    "erf", "exp", "square", "sqrt", "abs", "sinc", "arctan", "atan",
)  # fmt: skip
_HOOKS = {
    "torch.nn.utils.weight_norm": ("WeightNorm",),
    "torch.nn.utils.spectral_norm": (
        "SpectralNorm", "SpectralNormLoadStateDictPreHook", "SpectralNormStateDictHook",
    ),
    "torch.nn.utils.prune": (
        "Identity", "RandomUnstructured", "L1Unstructured", "RandomStructured", "LnStructured",
        "CustomFromMask", "PruningContainer",
    ),
    "torch.nn.modules.module": ("_WrappedHook",),
}  # fmt: skip
_ROOMS = ("torch.nn.modules.", "torch.nn.parallel.data_parallel")
_ALLOW = re.compile(r"^[A-Za-z_][\w.]*(=.+:[A-Za-z_][\w.]*)?$")


@dataclass(frozen=True)
class Allowed:
    """Names that may stand in a pickle, and what they are.

    Attributes:
        modules: full name -> an ``nn.Module`` class that may be rebuilt.
        hooks: full name -> class of an inert hook: weight norm, spectral norm, pruning.
        functions: full name -> function that may be stored, never called by the file.
    """

    modules: Mapping[str, type[torch.nn.Module]]
    hooks: Mapping[str, type]
    functions: Mapping[str, Any]

    def importable(self, names: Iterable[str]) -> dict[str, Any]:
        """Those of ``names`` that stand here, and what they are."""
        every: dict[str, Any] = {**self.modules, **self.hooks, **self.functions}
        return {name: every[name] for name in names if name in every}


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
        for path, names in _HOOKS.items()
        for name in names
    }
    return Allowed(modules, hooks, _torch_functions())


def _torch_modules() -> dict[str, type[torch.nn.Module]]:
    from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

    found: dict[str, type[torch.nn.Module]] = {}
    for value in (*vars(torch.nn).values(), NonDynamicallyQuantizableLinear):
        is_module = isinstance(value, type) and issubclass(value, torch.nn.Module)
        if is_module and value.__module__.startswith(_ROOMS):
            found[f"{value.__module__}.{value.__qualname__}"] = value
    return found


def _torch_functions() -> dict[str, Any]:
    found = {}
    for name in _FUNCTIONS:
        function = getattr(torch.nn.functional, name)
        found[f"torch.nn.functional.{name}"] = function
        found[f"{function.__module__}.{function.__name__}"] = function
    return found | {f"torch.{n}": getattr(torch, n) for n in _BUILT_IN}


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
    except Exception as error:  # any code may stand in a module of the user's
        what = f"'{name}' fails when imported: {one_line(error)}"
        raise OptionError(what, where="--allow") from error
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

"""Which calls a pickle may make beside those of tensors, and how the others are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from gradscope.loading.pickle_machine import Built, Global
from gradscope.loading.pickle_parts import Unsafe
from gradscope.loading.pickle_tensors import NOT_READ, is_bytes, is_text_for_bytes, not_read

COMPILED = "torch._dynamo.eval_frame.OptimizedModule"
PARTIAL = "functools.partial"
_CONSTANTS = torch.dtype | torch.layout | torch.memory_format | torch.qscheme
_MOST_ARGUMENT = 4096

_ACTING = {
    "os", "posix", "nt", "sys", "subprocess", "shutil", "socket", "ctypes", "pty", "code", "pdb",
    "importlib", "runpy", "webbrowser", "urllib", "http", "asyncio", "threading", "pickle",
    "_pickle", "multiprocessing", "operator", "_operator", "builtins", "__builtin__", "types",
    "marshal", "signal", "tempfile", "torch", "numpy", "timeit", "bdb", "cProfile", "doctest",
    "site", "io",
}  # fmt: skip
_HARMLESS = {
    "builtins": {"set", "frozenset", "list", "dict", "tuple", "int", "float", "str", "bytes",
                 "bytearray", "complex", "slice", "range", "xrange", "bool",
                 "object"},
    "numpy": {"ndarray", "dtype", "_reconstruct", "scalar", "_frombuffer", "_pickle",
              "__randomstate_ctor", "__generator_ctor", "__bit_generator_ctor"},
    "torch": {"Generator", "_TorchCompileInductorWrapper",
              *(name.rpartition(".")[2] for name in NOT_READ)},
    "types": {"SimpleNamespace"},
}  # fmt: skip
_HARMLESS["__builtin__"] = _HARMLESS["builtins"]
_TRAINING = (
    "torch.optim.", "torch.amp.", "torch.cuda.amp.", "torch.utils.data.", "torch._dynamo.",
    "torch._inductor.", "numpy.random.",
)  # fmt: skip
_FIXED = "Save its state_dict() with torch.save and pass --arch."
_NOT_WHOLE = {
    "torch.nn.parallel.distributed.DistributedDataParallel": (
        "it was saved inside DistributedDataParallel, which needs its process group",
        "Save model.module, or its state_dict().",
    ),
    "torch.fx.graph_module.reduce_graph_module": ("it holds Python code of torch.fx", _FIXED),
    "torch.fx.graph_module.GraphModule": ("it holds Python code of torch.fx", _FIXED),
    "torch.nn.parameter.UninitializedParameter": (
        "it holds a lazy module that has never run",
        "Run it once on a sample, then save it again.",
    ),
}
_QUANTISED = ("torch.ao.", "torch.nn.quantized.", "torch.nn.intrinsic.", "torch.quantization.")
NAMED = {*_NOT_WHOLE, *NOT_READ}
"""What is refused with a reason of its own."""


def acts(name: Global) -> bool:
    """Whether this is from a module that acts on the machine, or rebuilds what a scan must see.

    Nothing foreign is ever run; a file that names such a thing is refused to tell the user.
    """
    root = name.module.partition(".")[0]
    if root not in _ACTING or name.path.startswith(_TRAINING):
        return False
    return name.name not in _HARMLESS.get(root, ())


def is_constant(name: str) -> bool:
    """Whether ``torch.name`` is a type, layout or format. (``getattr`` would import things.)"""
    return isinstance(vars(torch).get(name), _CONSTANTS)


def is_list_of_pairs(arguments: Any) -> bool:
    """Arguments of an OrderedDict, as old Pythons pickle it: a list of pairs, or nothing."""
    if arguments == ():
        return True
    one = isinstance(arguments, tuple) and len(arguments) == 1 and type(arguments[0]) is list
    return one and all(
        isinstance(p, list | tuple) and len(p) == 2 and isinstance(p[0], str | int)
        for p in arguments[0]
    )


def _is_size(arguments: Any) -> bool:
    if arguments == ():
        return True
    one = isinstance(arguments, tuple) and len(arguments) == 1
    return one and isinstance(arguments[0], tuple) and all(type(n) is int for n in arguments[0])


def _is_set(arguments: Any) -> bool:
    """Elements that are hashed in no time."""
    if arguments == ():
        return True
    if not isinstance(arguments, tuple) or len(arguments) != 1:
        return False
    items = arguments[0]
    return isinstance(items, list | tuple | set) and all(
        not isinstance(part, tuple | list | dict | set)
        for item in items
        for part in (item if isinstance(item, tuple) else (item,))
    )


def _is_device(arguments: Any) -> bool:
    kinds = (str, int)
    return isinstance(arguments, tuple) and 1 <= len(arguments) <= 2 and _are(arguments, kinds)


def _is_bytearray(arguments: Any) -> bool:
    if is_text_for_bytes(arguments) or arguments == ():
        return True
    one = isinstance(arguments, tuple) and len(arguments) == 1
    return one and is_bytes(arguments[0])


def _is_complex(arguments: Any) -> bool:
    return isinstance(arguments, tuple) and len(arguments) == 2 and _are(arguments, (int, float))


def _is_layout(arguments: Any) -> bool:
    return isinstance(arguments, tuple) and len(arguments) == 1 and _are(arguments, (str,))


def _are(values: tuple[Any, ...], kinds: tuple[type, ...]) -> bool:
    return all(isinstance(value, kinds) for value in values)


SMALL: dict[str, Callable[[Any], bool]] = {
    "torch.Size": _is_size,
    "torch.device": _is_device,
    "torch.serialization._get_layout": _is_layout,
    "_codecs.encode": is_text_for_bytes,
    **{
        f"{builtins}.{name}": check
        for builtins in ("builtins", "__builtin__")
        for name, check in (
            ("set", _is_set), ("frozenset", _is_set),
            ("bytearray", _is_bytearray), ("complex", _is_complex),
        )
    },
}  # fmt: skip
"""Functions that may be called, with what."""


def partial_of(value: Built) -> Global | None:
    """What ``functools.partial`` fixes arguments of, if these are small and plain."""
    arguments, states = value.arguments, value.states
    if not isinstance(arguments, tuple) or len(arguments) != 1 or value.items or len(states) != 1:
        return None
    state = states[0]
    if not isinstance(state, tuple) or len(state) != 4 or state[3] not in (None, {}):
        return None
    function, given, named, _ = state
    if not isinstance(function, Global) or function != arguments[0]:
        return None
    if not isinstance(given, tuple) or not isinstance(named, dict):
        return None
    plain = all(_is_small(v) for v in (*given, *named.values()))
    return function if plain else None


def _is_small(value: Any) -> bool:
    if isinstance(value, int):
        return abs(value) <= _MOST_ARGUMENT
    return isinstance(value, str | float | None)


def refused_class(path: str) -> Unsafe:
    """Why an object of this class is not built."""
    if path in _NOT_WHOLE:
        what, hint = _NOT_WHOLE[path]
        return Unsafe(what, path, hint=hint)
    if path.startswith(_QUANTISED):
        what = f"it is quantised ({path}), and no gradient flows through integers"
        return Unsafe(what, path, hint="Examine the model that it was made from.")
    return Unsafe(f"it holds an object of class {path}", path, is_class=True)


def refused_call(path: str) -> Unsafe:
    """Why this is not called."""
    if path in _NOT_WHOLE or path.startswith(_QUANTISED):
        return refused_class(path)
    if path in NOT_READ:
        return not_read(path)
    return Unsafe(f"it calls {path}", path)

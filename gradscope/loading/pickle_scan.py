"""Is a pickled model inert? Decided before torch sees it.

Modules only by ``cls.__new__`` and a plain state; calls only of the functions that rebuild tensors
and containers; no callable over a method; no hooks but those of weight and spectral norm; sizes
within what the file holds; no cycles.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from gradscope.loading.allowed import Allowed
from gradscope.loading.pickle_machine import Built, Global, Stored

_TENSORS = {
    "torch._utils._rebuild_tensor_v2": 7,
    "torch._utils._rebuild_tensor": 4,
}
_PARAMETERS = {"torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"}
_CONTAINERS = {"collections.OrderedDict", "torch.Size", "builtins.set", "__builtin__.set"}
_NUMPY_SCALARS = {"numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"}
_NUMBER_TYPES = re.compile(r"^[fiub][1248]$")
_SMALL = {"torch.device", "_codecs.encode", "builtins.complex", "torch.serialization._get_layout"}
_CALLABLE = {*_TENSORS, *_PARAMETERS, *_CONTAINERS, *_NUMPY_SCALARS, *_SMALL, "numpy.dtype"}
_ACTING = {
    "os", "posix", "nt", "sys", "subprocess", "shutil", "socket", "ctypes", "pty", "code", "pdb",
    "importlib", "runpy", "webbrowser", "urllib", "http", "asyncio", "threading", "pickle",
    "_pickle", "multiprocessing", "operator", "_operator", "builtins", "__builtin__", "types",
    "marshal", "signal", "tempfile", "torch", "numpy", "timeit", "bdb", "cProfile", "doctest",
    "site", "io",
}  # fmt: skip
_HARMLESS = {
    "builtins": {"set", "frozenset", "list", "dict", "tuple", "int", "float", "str", "bytes",
                 "bytearray", "complex", "slice", "range", "bool", "object"},
    "numpy": {"ndarray", "dtype", "_reconstruct", "scalar", "_frombuffer", "_pickle",
              "__randomstate_ctor", "__generator_ctor", "__bit_generator_ctor"},
    "torch": {"Generator", "_rebuild_device_tensor_from_numpy"},
}  # fmt: skip
_HARMLESS["__builtin__"] = _HARMLESS["builtins"]
_HOOKS = (
    "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks",
    "_state_dict_hooks", "_state_dict_pre_hooks", "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks", "_forward_hooks_with_kwargs",
    "_forward_pre_hooks_with_kwargs", "_forward_hooks_always_called",
)  # fmt: skip
_ITEM_BYTES = {
    "Double": 8, "Float": 4, "Half": 2, "Long": 8, "Int": 4, "Short": 2, "Char": 1, "Byte": 1,
    "Bool": 1, "BFloat16": 2, "ComplexDouble": 16, "ComplexFloat": 8, "Untyped": 1,
}  # fmt: skip
_HOOK_STATE = ("name", "dim", "eps", "n_power_iterations", "fn", "hook", "with_module")
_MAX_INT = 1 << 40
_MAX_DEPTH = 400
_EXPANDABLE = 1 << 20  # elements that a stride of 0 may stand for


class Unsafe(Exception):
    """The pickle would do more than rebuild tensors and known modules.

    Attributes:
        name: the class or function that it is about, if there is one.
        is_class: whether it would be rebuilt as a module (and may be admitted by ``--allow``).
    """

    def __init__(self, what: str, name: str | None = None, *, is_class: bool = False) -> None:
        super().__init__(what)
        self.name, self.is_class = name, is_class


@dataclass
class Scan:
    """Checks one pickle; collects what it names.

    Attributes:
        allowed: the names that may stand in it.
        room: bytes of storage that the file can hold, by key; None: only in total.
        total_room: bytes of the whole file.
        lenient: objects of foreign classes are to be left unbuilt, where they are not part of a
            module: what a training framework keeps beside the weights.
        globals: names met, for torch's own allow-list.
        foreign: names of those classes and functions.
    """

    allowed: Allowed
    room: Mapping[str, int] | None
    total_room: int
    lenient: bool = False
    globals: set[str] = field(default_factory=set)
    foreign: set[str] = field(default_factory=set)
    _storages: dict[str, int] = field(default_factory=dict)
    _done: dict[int, Any] = field(default_factory=dict)
    _open: set[int] = field(default_factory=set)
    _modules: int = 0  # how many modules stand around what is being looked at

    def check(self, root: Any) -> None:
        """Raises :class:`Unsafe` unless ``root`` is inert."""
        self._value(root, 0, "")

    def _value(self, value: Any, depth: int, where: str) -> None:
        if isinstance(value, int) and abs(value) > _MAX_INT:
            raise Unsafe(f"{where or 'it'} holds an absurd number ({value:.3g})")
        if isinstance(value, Global):
            self._global(value, where)
        if not isinstance(value, dict | list | tuple | set | Built | Stored):
            return
        if id(value) in self._open:
            raise Unsafe(f"{where or 'an object'} contains itself")
        if id(value) in self._done:
            return
        if depth > _MAX_DEPTH:
            raise Unsafe("it is nested too deeply")
        self._open.add(id(value))
        self._inside(value, depth + 1, where)
        self._open.discard(id(value))
        self._done[id(value)] = value  # kept alive, so that its id stays its own

    def _inside(self, value: Any, depth: int, where: str) -> None:
        if isinstance(value, Built):
            self._built(value, depth, where)
        elif isinstance(value, Stored):
            self._stored(value)
        elif isinstance(value, dict):
            for key, item in value.items():
                self._value(key, depth, where)
                self._value(item, depth, f"{where}.{key}" if where else str(key))
        else:
            for item in value:
                self._value(item, depth, where)

    def _global(self, value: Global, where: str) -> None:
        """A name that is stored, not called."""
        path = value.path
        known = path in self.allowed.functions or path in self.allowed.modules
        if known:
            self.globals.add(path)
            return
        constant = value.module == "torch" and _is_torch_constant(value.name)
        if not constant and not self._leaves_out(value):
            raise Unsafe(f"{where or 'it'} refers to {path}", path)

    def _leaves_out(self, name: Global) -> bool:
        """Whether an inert stand-in may take the place of what this names."""
        if not self.lenient or self._modules or _acts(name):
            return False
        self.foreign.add(name.path)
        return True

    def _foreign(self, value: Built, depth: int, where: str) -> None:
        """Nothing of it is run, yet what it holds must be as inert as the rest."""
        for part in (value.arguments, value.states, value.items):
            self._value(part, depth, where)

    def _built(self, value: Built, depth: int, where: str) -> None:
        if not isinstance(value.of, Global):
            raise Unsafe("it calls something that it computed")
        path = value.of.path
        if value.called:
            self._called(path, value, depth, where)
        elif path in self.allowed.modules:
            self.globals.add(path)
            self._module(path, value, depth, where)
        elif path in self.allowed.hooks:
            self.globals.add(path)
            self._hook(path, value, depth)
        elif path == "collections.OrderedDict" and value.arguments == ():
            self._ordered(value, depth, where)
        elif self._leaves_out(value.of):
            self._foreign(value, depth, where)
        else:
            raise Unsafe(f"it holds an object of class {path}", path, is_class=True)

    def _called(self, path: str, value: Built, depth: int, where: str) -> None:
        arguments = value.arguments
        if path in self.allowed.modules:
            raise Unsafe(f"it calls the constructor of {path}, which may take any memory", path)
        if not isinstance(arguments, tuple):
            raise Unsafe(f"it calls {path} with something odd", path)
        if path not in _CALLABLE and self._leaves_out(value.of):
            self._foreign(value, depth, where)
            return
        if path in _TENSORS:
            self._tensor(arguments, where)
        elif path in _PARAMETERS:
            self._parameter(arguments)
        elif path in _CONTAINERS:
            self._ordered(value, depth, where)
            return
        elif path == "numpy.dtype" or path in _NUMPY_SCALARS:
            self._numpy(path, value)
            return
        elif path not in _SMALL:
            raise Unsafe(f"it calls {path}", path)
        if value.states or value.items:
            raise Unsafe(f"it changes what {path} returned", path)
        for argument in arguments:
            self._value(argument, depth, where)

    def _ordered(self, value: Built, depth: int, where: str) -> None:
        """An OrderedDict, Size or set: its state may only be torch's ``_metadata``."""
        for state in value.states:
            if not isinstance(state, dict) or set(state) - {"_metadata"}:
                raise Unsafe(f"{where or 'a dictionary'} gets attributes of its own")
            self._value(state, depth, where)
        self._value(value.arguments, depth, where)
        for key, item in value.items:
            self._value(key, depth, where)
            self._value(item, depth, f"{where}.{key}" if where else str(key))

    def _tensor(self, arguments: tuple[Any, ...], where: str) -> None:
        if len(arguments) < 4 or not isinstance(arguments[0], Stored):
            raise Unsafe("it rebuilds a tensor from something odd")
        self._stored(arguments[0])
        offset, size, stride = arguments[1:4]
        if isinstance(size, Built):
            size = size.arguments[0] if size.arguments else ()
        numbers = (offset, *size, *stride)
        if not all(type(n) is int and 0 <= n <= _MAX_INT for n in numbers):
            raise Unsafe(f"tensor {where} has absurd sizes")
        if len(size) != len(stride) or len(size) > 64:
            raise Unsafe(f"tensor {where} has sizes that do not fit its strides")
        numel = math.prod(size)
        held = int(arguments[0].key[4])
        last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
        if numel and (last >= held or numel > max(held, _EXPANDABLE)):
            raise Unsafe(f"tensor {where} claims {numel} elements of a storage of {held}")
        if len(arguments) > 5 and _filled(arguments[5]):
            raise Unsafe(f"tensor {where} carries hooks")

    def _parameter(self, arguments: tuple[Any, ...]) -> None:
        if len(arguments) < 3 or not isinstance(arguments[0], Built) or _filled(arguments[2]):
            raise Unsafe("it rebuilds a parameter from something odd")
        if len(arguments) > 3 and arguments[3]:
            raise Unsafe("a parameter carries attributes of its own")

    def _numpy(self, path: str, value: Built) -> None:
        """A single number (``best_accuracy``), of a numeric type; never an object."""
        self.globals.add(path)
        arguments = value.arguments
        if path == "numpy.dtype":
            if not (arguments and _NUMBER_TYPES.match(str(arguments[0]))):
                raise Unsafe("it makes a numpy type that is no number", path)
            return
        of = arguments[0] if arguments else None
        if not isinstance(of, Built) or value.states or value.items:
            raise Unsafe("it makes a numpy object that is no number", path)
        if not isinstance(of.of, Global) or of.of.path != "numpy.dtype":
            raise Unsafe("it makes a numpy object that is no number", path)
        self._numpy("numpy.dtype", of)
        of.states.clear()

    def _stored(self, value: Stored) -> None:
        key = value.key
        odd = not isinstance(key, tuple) or len(key) < 5 or key[0] not in ("storage", b"storage")
        if odd or not isinstance(key[1], Global) or type(key[4]) is not int or key[4] < 0:
            raise Unsafe("it refers to storage in an unknown way")
        kind = key[1].name.removesuffix("Storage")
        if key[1].module not in ("torch", "torch.storage", "torch.cuda") or kind not in _ITEM_BYTES:
            raise Unsafe(f"it holds storage of an unknown type ({key[1].path})", key[1].path)
        size = key[4] * _ITEM_BYTES[kind]
        name = str(key[2])
        room = self.total_room if self.room is None else self.room.get(name, 0)
        if size > room:
            raise Unsafe(f"storage {name} claims {size} bytes, the file holds {room}")
        self._storages[name] = max(size, self._storages.get(name, 0))
        if sum(self._storages.values()) > self.total_room:
            raise Unsafe("its storages claim more bytes than the file holds")

    def _module(self, path: str, value: Built, depth: int, where: str) -> None:
        if value.arguments != () or value.items or len(value.states) != 1:
            raise Unsafe(f"{path} is not rebuilt as torch does it", path)
        state = value.states[0]
        if not isinstance(state, dict) or not all(isinstance(k, str) for k in state):
            raise Unsafe(f"the state of {path} is no dictionary of names", path)
        cls = self.allowed.modules[path]
        self._modules += 1
        for key, item in state.items():
            place = f"{where}.{key}" if where else key
            self._attribute(cls, path, key, item, place)
            self._value(item, depth, place)
        self._modules -= 1
        layers = state.get("num_layers")
        owned = state.get("_parameters")
        count = len(owned.items if isinstance(owned, Built) else owned or ())
        recurrent = "mode" in state and "_all_weights" in state
        if recurrent and isinstance(layers, int) and layers > max(count, 1):
            raise Unsafe(f"{where or path} claims {layers} layers and has {count} weights")

    def _attribute(self, cls: type, path: str, key: str, item: Any, where: str) -> None:
        if key in _HOOKS:
            self._hook_table(item, where)
            return
        if key.startswith("__"):
            raise Unsafe(f"{path} gets an attribute {key}", path)
        own = getattr(cls, key, None)
        method = callable(own) or isinstance(own, property)
        if method or (key == "_compiled_call_impl" and item is not None):
            raise Unsafe(f"it puts something in place of {path}.{key}", path)
        if key == "_modules":
            for name, child in _pairs(item):
                is_module = isinstance(child, Built) and not child.called
                if child is not None and not is_module:
                    raise Unsafe(f"{where}.{name} is no module")
        if key in ("_parameters", "_buffers"):
            for name, child in _pairs(item):
                is_tensor = isinstance(child, Built) and child.called
                if child is not None and not is_tensor:
                    raise Unsafe(f"{where}.{name} is no tensor")

    def _hook_table(self, item: Any, where: str) -> None:
        for _, hook in _pairs(item):
            if hook is not True and hook is not False and not self._is_hook(hook):
                raise Unsafe(f"{where} holds a hook that is not weight or spectral norm's")

    def _is_hook(self, item: Any) -> bool:
        known = isinstance(item, Built) and isinstance(item.of, Global) and not item.called
        return known and item.of.path in self.allowed.hooks

    def _hook(self, path: str, value: Built, depth: int) -> None:
        states = value.states
        if value.arguments != () or value.items or len(states) > 1:
            raise Unsafe(f"{path} is not rebuilt as torch does it", path)
        for state in states:
            if not isinstance(state, dict):
                raise Unsafe(f"the state of {path} is no dictionary", path)
            for key, item in state.items():
                if key not in _HOOK_STATE:
                    raise Unsafe(f"{path} gets an attribute {key}", path)
                if key in ("hook", "fn") and not self._is_hook(item):
                    raise Unsafe(f"{path} wraps something that is no hook of torch's", path)
                if isinstance(item, int) and abs(item) > 1000:
                    raise Unsafe(f"{path}.{key} is {item}", path)
                self._value(item, depth, key)


def _acts(name: Global) -> bool:
    """Whether this is from a module that acts on the machine, or rebuilds what a scan must see.

    Nothing foreign is ever run; a file that names such a thing is refused to tell the user.
    """
    root = name.module.partition(".")[0]
    return root in _ACTING and name.name not in _HARMLESS.get(root, ())


def _is_torch_constant(name: str) -> bool:
    constants = torch.dtype | torch.layout | torch.memory_format
    return isinstance(getattr(torch, name, None), constants)


def _pairs(table: Any) -> list[tuple[Any, Any]]:
    if isinstance(table, Built) and isinstance(table.of, Global):
        extra = table.arguments[0] if table.arguments else []
        return [*table.items, *(tuple(p) for p in extra if isinstance(p, list | tuple))]
    return list(table.items()) if isinstance(table, dict) else []


def _filled(table: Any) -> bool:
    """Whether a table of hooks is anything but empty."""
    if table is None or table == {}:
        return False
    empty = isinstance(table, Built) and not table.items and not table.states
    return not (empty and table.arguments == ())

"""Is a pickled model inert? Decided before torch sees it.

Modules only by ``cls.__new__`` and a plain state; calls only of the functions that rebuild tensors
and containers; no callable over a method; no hooks but those of weight norm, spectral norm and
pruning; sizes within what the file holds; no cycles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gradscope.loading.allowed import FUNCTIONS_OF_TORCH, GETATTR, Allowed
from gradscope.loading.pickle_calls import (
    COMPILED,
    PARTIAL,
    SMALL,
    acts,
    is_constant,
    is_list_of_pairs,
    partial_of,
    refused_call,
    refused_class,
)
from gradscope.loading.pickle_machine import Built, Global, Stored
from gradscope.loading.pickle_modules import check_hooks, check_state, check_visits, hook_state
from gradscope.loading.pickle_parts import MAX_INT, Unsafe, below, pairs, plain_state
from gradscope.loading.pickle_tensors import (
    NUMPY_SCALARS,
    TENSORS,
    Storages,
    check_numpy_number,
)

__all__ = ["Scan", "Unsafe"]

_MAX_DEPTH = 400
_MAX_BESIDE = 1 << 256  # seeds and states of random generators, beside the weights


@dataclass
class Scan:
    """Checks one pickle; collects what it names.

    Attributes:
        allowed: the names that may stand in it.
        room: bytes of storage that the file can hold, by key; None: only in total.
        total_room: bytes of the whole file.
        lenient: objects of foreign classes are to be left unbuilt, where they are not part of a
            module: what a training framework keeps beside the weights.
        globals: names met that may be imported.
        foreign: names of those classes and functions.
    """

    allowed: Allowed
    room: Mapping[str, int] | None
    total_room: int
    lenient: bool = False
    globals: set[str] = field(default_factory=set)
    foreign: set[str] = field(default_factory=set)
    _done: dict[int, Any] = field(default_factory=dict)
    _open: set[int] = field(default_factory=set)
    _modules: int = 0  # how many modules stand around what is being looked at
    _visits: dict[int, int] = field(default_factory=dict)  # modules that one call would run, by id

    def __post_init__(self) -> None:
        self._storages = Storages(self.room, self.total_room)

    def check(self, root: Any) -> None:
        """Raises :class:`Unsafe` unless ``root`` is inert."""
        self._value(root, 0, "")

    def _value(self, value: Any, depth: int, where: str) -> None:
        if isinstance(value, int) and abs(value) > (MAX_INT if self._modules else _MAX_BESIDE):
            raise Unsafe(f"{where or 'it'} holds an absurd number")
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
            self._storages.storage(value)
        elif isinstance(value, dict):
            for key, item in value.items():
                self._value(key, depth, where)
                self._value(item, depth, below(where, key))
        else:
            for item in value:
                self._value(item, depth, where)

    def _global(self, value: Global, where: str) -> None:
        """A name that is stored, not called."""
        path = value.path
        known = path in self.allowed.functions or path in self.allowed.modules
        if known or (value.module == "torch" and is_constant(value.name)):
            self.globals.add(path)
        elif not self._leaves_out(value):
            raise Unsafe(f"{where or 'it'} refers to {path}", path)

    def _leaves_out(self, name: Global) -> bool:
        """Whether an inert stand-in may take the place of what this names."""
        if not self.lenient or self._modules or acts(name):
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
            self._module(path, value, depth, where)
        elif path in self.allowed.hooks:
            self.globals.add(path)
            for key, item in hook_state(path, value, self.allowed.hooks).items():
                self._value(item, depth, key)
        elif path == "collections.OrderedDict" and value.arguments == ():
            self._ordered(value, depth, where)
        elif self._leaves_out(value.of):
            self._foreign(value, depth, where)
        else:
            raise refused_class(path)

    def _called(self, path: str, value: Built, depth: int, where: str) -> None:
        if path in self.allowed.modules:
            raise Unsafe(f"it calls the constructor of {path}, which may take any memory", path)
        if path in TENSORS:
            self._storages.tensor(value, where)
        elif path == "collections.OrderedDict":
            self._ordered(value, depth, where)
        elif path == "numpy.dtype" or path in NUMPY_SCALARS:
            check_numpy_number(path, value)
        elif path in SMALL:
            if value.states or value.items or not SMALL[path](value.arguments):
                raise Unsafe(f"it calls {path} with something odd", path)
            self._value(value.arguments, depth, where)
        elif path == PARTIAL and (function := partial_of(value)) is not None:
            self._global(function, where)
        elif path == COMPILED:
            self._compiled(value, depth, where)
        elif path in GETATTR and self._named(value, depth, where):
            pass
        elif isinstance(value.of, Global) and self._leaves_out(value.of):
            self._foreign(value, depth, where)
            return
        else:
            raise refused_call(path)
        self.globals.add(path)

    def _ordered(self, value: Built, depth: int, where: str) -> None:
        """An OrderedDict: its state may only be torch's ``_metadata``."""
        self.globals.add("collections.OrderedDict")
        if not is_list_of_pairs(value.arguments):
            raise Unsafe(f"{where or 'a dictionary'} is made from something odd")
        for state in value.states:
            if not isinstance(state, dict) or set(state) - {"_metadata"}:
                raise Unsafe(f"{where or 'a dictionary'} gets attributes of its own")
            self._value(state, depth, where)
        for key, item in pairs(value):
            self._value(key, depth, where)
            self._value(item, depth, below(where, key))

    def _module(self, path: str, value: Built, depth: int, where: str) -> None:
        state = plain_state(value.states)
        if value.arguments != () or value.items or state is None:
            raise Unsafe(f"{path} is not rebuilt as torch does it", path)
        self.globals.add(path)
        check_state(self.allowed.modules, path, state, where)
        check_hooks(self.allowed.hooks, state, where)
        self._modules += 1
        for key, item in state.items():
            self._value(item, depth, below(where, key))
        children = [child for _, child in pairs(state["_modules"]) if child is not None]
        visits = 1 + sum(self._visits.get(id(child), 1) for child in children)
        check_visits(self._modules, visits, where)
        self._visits[id(value)] = visits
        self._modules -= 1

    def _compiled(self, value: Built, depth: int, where: str) -> None:
        """The module inside; how it was compiled is left unbuilt."""
        arguments = value.arguments
        if not isinstance(arguments, tuple) or len(arguments) != 2 or value.states or value.items:
            raise Unsafe(f"{COMPILED} is not rebuilt as torch does it", COMPILED)
        module, context = arguments
        if not isinstance(module, Built) or module.called:
            raise Unsafe(f"{COMPILED} is not rebuilt as torch does it", COMPILED)
        self._value(module, depth, where)
        self._visits[id(value)] = self._visits.get(id(module), 1)
        before = self._modules, self.lenient
        self._modules, self.lenient = 0, True
        self._value(context, depth, where)
        self._modules, self.lenient = before

    def _named(self, value: Built, depth: int, where: str) -> bool:
        """``getattr``: a function of torch's (``torch.tanh``), or of something left unbuilt."""
        arguments = value.arguments
        if not isinstance(arguments, tuple) or len(arguments) != 2 or value.states or value.items:
            return False
        owner, name = arguments
        if isinstance(owner, Global) and owner.path == FUNCTIONS_OF_TORCH:
            known = isinstance(name, str) and f"torch.{name}" in self.allowed.functions
            self.globals.add(owner.path)
            return known
        if not self.lenient or self._modules or not isinstance(name, str) or name.startswith("_"):
            return False
        self._value(owner, depth, where)
        return True

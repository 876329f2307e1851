"""Reads a pickle without running it.

A pickle is a program. This machine follows its instructions on stand-ins: it names what would be
called and built, and calls nothing. It knows the instructions that ``torch.save`` writes, whatever
the protocol, and refuses all others.

What it hands on is the pickle's last word, while a call or a state was taken at its moment. So
nothing may change after it has been an argument or a state. And all that it makes must be part of
the result, since a call that is thrown away has been made all the same.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

MAX_INSTRUCTIONS = 10_000_000
MAX_OBJECTS = 1_000_000  # an empty dictionary is one byte in a pickle and 64 in memory


class PickleError(Exception):
    """The stream is broken or uses an instruction that no saved model needs."""


@dataclass(frozen=True)
class Global:
    """A name that the pickle would import."""

    module: str
    name: str

    @property
    def path(self) -> str:
        """``module.name``."""
        return f"{self.module}.{self.name}"


@dataclass(eq=False, slots=True, repr=False)
class Built:
    """An object that the pickle would make.

    Attributes:
        of: the class or function.
        called: True for a call (REDUCE), False for ``cls.__new__`` (NEWOBJ).
        arguments: of the call.
        states: arguments of each BUILD, in order.
        items: what SETITEM(S) would put in, APPEND(S) or ADDITEMS with None as the key.
    """

    of: Any
    called: bool
    arguments: Any
    states: list[Any] = field(default_factory=list)
    items: list[tuple[Any, Any]] = field(default_factory=list)


@dataclass(eq=False, slots=True, repr=False)
class Stored:
    """A reference to storage outside of the pickle."""

    key: Any


def read_pickles(data: bytes) -> Iterator[Any]:
    """The objects of consecutive pickles in ``data``, as stand-ins, until data end or break.

    Raises:
        PickleError: broken, or an unknown instruction.
    """
    stream = BytesIO(data)
    while stream.tell() < len(data):
        yield run(stream)


def run(stream: BytesIO) -> Any:
    """The object of one pickle; the stream then stands behind it.

    Raises:
        PickleError: broken, or an unknown instruction.
    """
    machine = _Machine(len(stream.getbuffer()))
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if count > MAX_INSTRUCTIONS:
                raise PickleError("the pickle is too long")
            if opcode.name == "STOP":
                return machine.result()
            machine.step(opcode.name, argument)
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, UnicodeError) as error:
        raise PickleError(f"the pickle is broken ({error})") from error
    raise PickleError("the pickle is truncated")


_NATIVE: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set,
}  # fmt: skip
_LITERALS = {
    "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE",
    "BINUNICODE8", "SHORT_BINSTRING", "BINSTRING", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8",
    "BYTEARRAY8",
}  # fmt: skip
_KEYS = (str, int, float, bytes, Global, Built, type(None))


class _Machine:
    """A stack of what stands before each mark, as the unpicklers keep it."""

    def __init__(self, size: int) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self._size = size
        self._steps = self._objects = 0
        self._used: dict[int, Any] = {}  # by id; kept alive, so that the id stays its own

    def result(self) -> Any:
        """What STOP returns."""
        if self.below or len(self.stack) != 1:
            raise PickleError("the pickle is broken (something is left over)")
        return self.stack.pop()

    def step(self, name: str, argument: Any) -> None:
        self._steps += 1
        if name in _LITERALS:
            self.stack.append(argument)
        elif name in _NATIVE:
            self._made(name.startswith("EMPTY_"))
            self.stack.append(_NATIVE[name]())
        elif name in ("BINPUT", "LONG_BINPUT"):
            # Readers keep a table up to the largest index: a forged one takes any memory.
            if argument > self._steps:
                raise PickleError("the pickle is broken (memo)")
            self.memo[argument] = self.stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name == "MARK":
            self.below.append(self.stack)
            self.stack = []
        elif name == "GLOBAL":
            module, _, attribute = argument.partition(" ")
            self.stack.append(Global(module, attribute))
        elif name == "FRAME":
            if argument > self._size:
                raise PickleError("the pickle is truncated")
        elif name != "PROTO":
            self._compose(name)

    def _compose(self, name: str) -> None:
        stack = self.stack
        if name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            n = int(name[-1])
            if len(stack) < n:
                raise PickleError("the pickle is broken (empty stack)")
            stack[-n:] = [tuple(stack[-n:])]
        elif name == "TUPLE":
            values = self._to_mark()
            self.stack.append(tuple(values))
        elif name == "FROZENSET":
            values = self._to_mark()
            self.stack.append(Built(Global("builtins", "frozenset"), True, self._fixed((values,))))
        elif name in ("APPEND", "APPENDS", "ADDITEMS"):
            values = [stack.pop()] if name == "APPEND" else self._to_mark()
            self._extend(self.stack[-1], values, set if name == "ADDITEMS" else list)
        elif name in ("SETITEM", "SETITEMS"):
            values = [stack.pop(-2), stack.pop()] if name == "SETITEM" else self._to_mark()
            self._set_items(self.stack[-1], values)
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            if type(attribute) is not str or type(module) is not str:
                raise PickleError("it imports something that it computed")
            stack.append(Global(module, attribute))
        else:
            self._build(name)

    def _build(self, name: str) -> None:
        stack = self.stack
        if name in ("REDUCE", "NEWOBJ", "NEWOBJ_EX"):
            if name == "NEWOBJ_EX" and stack.pop() != {}:
                raise PickleError("makes an object with named arguments")
            self._made(1)
            arguments, of = stack.pop(), stack.pop()
            stack.append(Built(of, name == "REDUCE", self._fixed(arguments)))
        elif name == "BUILD":
            state = stack.pop()
            if not isinstance(stack[-1], Built):
                raise PickleError("sets the state of what it did not make")
            self._used[id(state)] = state
            stack[-1].states.append(state)
        elif name == "BINPERSID":
            key = self._fixed(stack.pop())
            # Files of before 2020 refer to classes in this way, with their source text.
            stack.append(key[1] if _is_class(key) else Stored(key))
        else:
            raise PickleError(f"instruction {name}, which no saved model needs")

    def _made(self, count: int) -> None:
        self._objects += count
        if self._objects > MAX_OBJECTS:
            raise PickleError("the pickle makes too many objects")

    def _fixed(self, arguments: Any) -> Any:
        """Arguments, none of which may be changed any more."""
        todo = [arguments]
        while todo:
            value = todo.pop()
            if isinstance(value, tuple | list | dict | set) and id(value) not in self._used:
                self._used[id(value)] = value
                todo.extend(value.values() if isinstance(value, dict) else value)
        return arguments

    def _extend(self, target: Any, values: list[Any], kind: type) -> None:
        if isinstance(target, Built):
            target.items.extend((None, value) for value in values)
        elif type(target) is not kind:
            raise PickleError(f"adds to what is no {kind.__name__}")
        elif id(target) in self._used:
            raise PickleError("changes what it has used already")
        elif isinstance(target, list):
            target.extend(values)
        elif isinstance(target, set):
            for value in values:
                _check_key(value)
                target.add(value)

    def _set_items(self, target: Any, values: list[Any]) -> None:
        if len(values) % 2:
            raise PickleError("the pickle is broken (odd items)")
        pairs = list(zip(values[::2], values[1::2], strict=True))
        if isinstance(target, Built):
            target.items.extend(pairs)
        elif type(target) is not dict:
            raise PickleError("sets items of what is no dictionary")
        elif id(target) in self._used:
            raise PickleError("changes what it has used already")
        else:
            for key, value in pairs:
                _check_key(key)
                if key in target:
                    raise PickleError("makes an entry of a dictionary twice, one to be lost")
                target[key] = value

    def _to_mark(self) -> list[Any]:
        if not self.below:
            raise PickleError("the pickle is broken (no mark)")
        values, self.stack = self.stack, self.below.pop()
        return values


def _is_class(key: Any) -> bool:
    fits = isinstance(key, tuple) and len(key) == 4 and key[0] == "module"
    return fits and isinstance(key[1], Global) and all(isinstance(k, str | None) for k in key[2:])


def _check_key(key: Any) -> None:
    """Nested tuples that share their parts take forever to be hashed."""
    parts = key if isinstance(key, tuple) else (key,)
    if len(parts) > 100 or not all(isinstance(part, _KEYS) for part in parts):
        raise PickleError("a key of a dictionary is an object")

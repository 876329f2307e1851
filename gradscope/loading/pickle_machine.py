"""Reads a pickle without running it.

A pickle is a program. This machine follows its instructions on stand-ins: it names what would be
called and built, and calls nothing. It knows the instructions that torch's own restricted unpickler
knows, and refuses all others.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

MAX_INSTRUCTIONS = 20_000_000
_MEMO_GAP = 1 << 16
_MARK = object()


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


@dataclass(eq=False)
class Built:
    """An object that the pickle would make.

    Attributes:
        of: the class or function.
        called: True for a call (REDUCE), False for ``cls.__new__`` (NEWOBJ).
        arguments: of the call.
        states: arguments of each BUILD, in order.
        items: what SETITEM(S) would put in.
    """

    of: Any
    called: bool
    arguments: Any
    states: list[Any] = field(default_factory=list)
    items: list[tuple[Any, Any]] = field(default_factory=list)


@dataclass(eq=False)
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
    machine = _Machine()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if count > MAX_INSTRUCTIONS:
                raise PickleError("the pickle is too long")
            if opcode.name == "STOP":
                return machine.stack.pop()
            machine.step(opcode.name, argument)
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, UnicodeError) as error:
        raise PickleError(f"the pickle is broken ({error})") from error
    raise PickleError("the pickle is truncated")


_NATIVE: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set,
}  # fmt: skip
_LITERALS = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING",
}  # fmt: skip


class _Machine:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        if name in _LITERALS:
            self.stack.append(argument)
        elif name in _NATIVE:
            self.stack.append(_NATIVE[name]())
        elif name == "PROTO":
            pass
        elif name in ("BINPUT", "LONG_BINPUT"):
            # Readers keep a table: a forged place takes any memory.
            if argument > len(self.memo) + _MEMO_GAP:
                raise PickleError("the pickle is broken (memo)")
            self.memo[argument] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name == "MARK":
            self.stack.append(_MARK)
        elif name == "GLOBAL":
            module, _, attribute = argument.partition(" ")
            self.stack.append(Global(module, attribute))
        else:
            self._compose(name)

    def _compose(self, name: str) -> None:
        stack = self.stack
        if name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            n = int(name[-1])
            if len(stack) < n:
                raise PickleError("the pickle is broken (empty stack)")
            stack[-n:] = [tuple(stack[-n:])]
        elif name == "TUPLE":
            stack.append(tuple(self._to_mark()))
        elif name in ("APPEND", "APPENDS"):
            values = [stack.pop()] if name == "APPEND" else self._to_mark()
            if type(stack[-1]) is not list:
                raise PickleError("appends to what is no list")
            stack[-1].extend(values)
        elif name in ("SETITEM", "SETITEMS"):
            values = [stack.pop(-2), stack.pop()] if name == "SETITEM" else self._to_mark()
            self._set_items(stack[-1], values)
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, of = stack.pop(), stack.pop()
            stack.append(Built(of, name == "REDUCE", arguments))
        elif name == "BUILD":
            state = stack.pop()
            if not isinstance(stack[-1], Built):
                raise PickleError("sets the state of what it did not make")
            stack[-1].states.append(state)
        elif name == "BINPERSID":
            key = stack.pop()
            # Files of before 2020 refer to classes in this way, with their source text.
            is_class = isinstance(key, tuple) and len(key) == 4 and key[0] == "module"
            stack.append(key[1] if is_class else Stored(key))
        else:
            raise PickleError(f"instruction {name}, which no saved model needs")

    def _set_items(self, target: Any, values: list[Any]) -> None:
        if len(values) % 2:
            raise PickleError("the pickle is broken (odd items)")
        pairs = list(zip(values[::2], values[1::2], strict=True))
        if isinstance(target, Built):
            target.items.extend(pairs)
        elif type(target) is dict:
            for key, value in pairs:
                if not isinstance(key, str | int | float | bytes | tuple | Global | type(None)):
                    raise PickleError("a key of a dictionary is an object")
                target[key] = value
        else:
            raise PickleError("sets items of what is no dictionary")

    def _to_mark(self) -> list[Any]:
        for i in range(len(self.stack) - 1, -1, -1):
            if self.stack[i] is _MARK:
                values = self.stack[i + 1 :]
                del self.stack[i:]
                return values
        raise PickleError("the pickle is broken (no mark)")

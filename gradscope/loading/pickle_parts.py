"""What the checks of a pickle share: the refusal, and how to look into stand-ins."""

from __future__ import annotations

from typing import Any, TypeGuard

from gradscope.loading.pickle_machine import Built, Global

MAX_INT = 1 << 40
_SHOWN = 60


class Unsafe(Exception):
    """The pickle would do more than rebuild tensors and known modules.

    Attributes:
        name: the class or function that it is about, if there is one.
        is_class: whether it would be rebuilt as a module (and may be admitted by ``--allow``).
        hint: what to do instead of trusting the file, where that is known.
    """

    def __init__(
        self, what: str, name: str | None = None, *, is_class: bool = False, hint: str | None = None
    ) -> None:
        super().__init__(what)
        self.name, self.is_class, self.hint = name, is_class, hint


def below(where: str, key: object) -> str:
    """The place of an entry. Keys are the file's: of any length and depth."""
    if isinstance(key, str):
        text = key if len(key) <= _SHOWN else f"{key[:_SHOWN]}..."
    else:
        small = isinstance(key, bool | float) or (isinstance(key, int) and abs(key) <= MAX_INT)
        text = str(key) if small else f"({type(key).__name__})"
    if len(where) > 3 * _SHOWN:
        where = f"...{where[-2 * _SHOWN :]}"
    return f"{where}.{text}" if where else text


def pairs(table: Any) -> list[tuple[Any, Any]]:
    """Keys and values of a dictionary or OrderedDict."""
    if isinstance(table, Built):
        given_all = table.arguments if isinstance(table.arguments, tuple) else ()
        first = given_all[0] if given_all else []
        extra = first if isinstance(first, list | tuple) else []
        given = [tuple(p) for p in extra if isinstance(p, list | tuple) and len(p) == 2]
        return [*given, *table.items]
    return list(table.items()) if isinstance(table, dict) else []


def is_table(value: Any) -> bool:
    """Whether this would be a dictionary or OrderedDict."""
    return isinstance(value, dict) or is_made_by(value, {"collections.OrderedDict"})


def filled(table: Any) -> bool:
    """Whether a table of hooks is anything but empty."""
    if table is None or (type(table) is dict and not table):
        return False
    empty = is_table(table) and isinstance(table, Built) and not table.items and not table.states
    return not (empty and table.arguments == ())


def is_made_by(value: Any, paths: set[str]) -> TypeGuard[Built]:
    """Whether this would be the result of one of these functions or classes."""
    return isinstance(value, Built) and isinstance(value.of, Global) and value.of.path in paths


def plain_state(states: list[Any]) -> dict[str, Any] | None:
    """The one state of an object, if it is a dictionary of names."""
    if len(states) != 1 or not isinstance(states[0], dict):
        return None
    state = states[0]
    return state if all(isinstance(key, str) for key in state) else None

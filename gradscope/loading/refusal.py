"""The one line that refuses a file, with the option that would admit it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gradscope.errors import LoadError, UntrustedError
from gradscope.loading.allowed import Allowed
from gradscope.loading.pickle_machine import Built, Global, PickleError
from gradscope.loading.pickle_parts import Unsafe, is_table, plain_state

_AGAIN = "Save or copy the file again."
_OTHERS = ("torch.", "numpy.", "builtins.", "__builtin__.", "collections.", "os.", "posix.")
_MOST = 12


@contextmanager
def understood(file: Path) -> Iterator[None]:
    """What a scan can make nothing of, as one line: forged parts can have any type, and are not
    opened.

    Raises:
        LoadError: in place of all that reading and scanning a pickle may raise but :class:`Unsafe`.
    """
    where = str(file)
    try:
        yield
    except PickleError as error:
        raise LoadError(f"cannot be read: {error}", where=where, hint=_AGAIN) from error
    except RecursionError as error:
        raise LoadError("cannot be read: nested too deeply", where=where) from error
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        what = f"cannot be read: its parts do not fit ({error})"
        raise LoadError(what, where=where, hint=_AGAIN) from error
    except MemoryError as error:
        raise LoadError("does not fit into memory", where=where) from error


def refusal(
    file: Path, error: Unsafe, root: Any = None, known: Allowed | None = None
) -> UntrustedError:
    """What the file would do.

    Args:
        file: the file.
        error: what was found first.
        root: all of the pickle, in which more classes of the user's own may stand.
        known: what is admitted already.
    """
    hint = "Nothing was run. Only if you trust whoever made it, add --trust-model."
    if error.hint is not None:
        hint = error.hint
    elif error.is_class and error.name is not None:
        own = _own(root, known) | {error.name}
        options = sorted({option for name in own if (option := _option(name))})
        hint = "If you trust whoever made it, add --trust-model."
        if _option(error.name) and len(options) <= _MOST:
            kind = "it is yours" if error.name.startswith("__main__.") else "it is one of yours"
            hint = f"If {kind}, add {' '.join(options)}"
    return UntrustedError(f"not opened: {error}", where=str(file), hint=hint)


def _option(name: str) -> str | None:
    """What would admit a class of modules."""
    if name in _WRAPPERS:
        return f"--allow {name}"
    if not all(part.isidentifier() for part in name.split(".")) or name.startswith(_OTHERS):
        return None
    module, _, own = name.rpartition(".")
    if module == "__main__":
        return f"--allow {name}=FILE.py:{own}"
    return f"--allow {module}" if module else None


_WRAPPERS = ("torch.optim.swa_utils.AveragedModel",)
"""Modules of torch's own outside of torch.nn, which call what they are given."""


def _own(root: Any, known: Allowed | None) -> set[str]:
    """Classes of modules in a pickle that nobody has admitted."""
    found: set[str] = set()
    seen: dict[int, Any] = {}
    todo = [root]
    while todo:
        value = todo.pop()
        if id(value) in seen or not isinstance(value, Built | dict | list | tuple):
            continue
        seen[id(value)] = value
        if isinstance(value, dict):
            todo += value.values()
        elif isinstance(value, list | tuple):
            todo += value
        else:
            todo += [value.arguments, value.states, value.items]
            state = plain_state(value.states)
            is_module = state is not None and is_table(state.get("_modules"))
            if is_module and not value.called and isinstance(value.of, Global):
                found.add(value.of.path)
    return found - set(known.modules if known is not None else ())

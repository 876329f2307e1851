"""Errors that a user can act on.

Every error says *what* went wrong, *where* (file, layer, parameter, option), and *what to do*.
The command line prints it as one line and ends with :attr:`GradscopeError.exit_status`.
"""

from __future__ import annotations

import re

DEBUG = "GRADSCOPE_DEBUG"
"""Environment variable that brings tracebacks and warnings back."""

_LONG_WORD = re.compile(r"\S{300,}")
_SHOWN = 60
_MOST = 1000


def _one_line(text: str) -> str:
    """``text`` on one line, control characters (which could rewrite a terminal) made visible."""
    flat = " ".join(text.split())
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in flat)


def _cut(text: str) -> str:
    """``text`` with its endless words, and its end, cut: a file may hold names of any length."""
    text = _LONG_WORD.sub(lambda found: f"{found[0][:_SHOWN]}...{found[0][-_SHOWN:]}", text)
    return text if len(text) <= _MOST else f"{text[:_MOST]}..."


class GradscopeError(Exception):
    """A request that cannot be served.

    Args:
        what: what is wrong, without a final full stop.
        where: the file, layer, parameter, node or option it is about.
        hint: what the user can do about it; a command that can be pasted where there is one.
    """

    exit_status = 2

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        self.what, self.where, self.hint = _cut(what), where, _cut(hint) if hint else hint
        super().__init__(str(self))

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return _one_line(f"{text}. {self.hint}" if self.hint else text)


class LoadError(GradscopeError):
    """A model file that cannot be read as a model."""


class UntrustedError(LoadError):
    """A model file that would run code which the user has not admitted."""


class DataError(GradscopeError):
    """A data sample that cannot be read, or that does not fit the model."""


class OptionError(GradscopeError):
    """An option whose value makes no sense."""


class OutputError(GradscopeError):
    """An output file that cannot be written."""


class ProbeError(GradscopeError):
    """The model was loaded, but nothing could be measured."""

    exit_status = 3


class Interrupted(BaseException):
    """The user pressed Ctrl-C.

    Args:
        go_on: the command that goes on from here; None: nothing has begun.
    """

    def __init__(self, go_on: str | None = None) -> None:
        self.go_on = go_on
        super().__init__(str(self))

    def __str__(self) -> str:
        return f"interrupted; go on with: {self.go_on}" if self.go_on else "interrupted"

"""What a report format is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from gradscope.checking import CheckResult
from gradscope.comparing import Comparison
from gradscope.diagnosis import Inspection


@dataclass(frozen=True)
class Canvas:
    """Where a report will be read.

    Attributes:
        width: columns.
        colour: whether escape sequences are understood.
        unicode: whether block characters can be shown.
        all_layers: show every layer, fold none.
    """

    width: int = 80
    colour: bool = False
    unicode: bool = True
    all_layers: bool = False


class Format(Protocol):
    """Turns an inspection into text."""

    name: str

    def render(self, inspection: Inspection, canvas: Canvas) -> str:
        """The report, ending with a newline."""


class CheckFormat(Protocol):
    """Turns the result of a check into text.

    ``document``: what it writes is a whole document (JSON, XML): nothing else may stand beside it
    on the same stream.
    """

    name: str
    document: bool

    def render(self, result: CheckResult, canvas: Canvas) -> str:
        """The report, ending with a newline; same result, same bytes."""


class CompareFormat(Protocol):
    """Turns a comparison into text; ``document`` as in :class:`CheckFormat`."""

    name: str
    document: bool

    def render(self, comparison: Comparison, canvas: Canvas) -> str:
        """The report, ending with a newline; same comparison, same bytes."""

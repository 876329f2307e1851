"""What a report format is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

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

"""A page for a terminal: lines of text with styles, cut or wrapped to its width."""

from __future__ import annotations

import io
from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from gradscope.diagnosis import Verdict
from gradscope.findings import Finding, Severity
from gradscope.report.base import Canvas
from gradscope.report.text import lines_of, safe, shorten_places

COLOURS = {
    Verdict.HEALTHY: "bold green",
    Verdict.WARNING: "bold yellow",
    Verdict.UNHEALTHY: "bold red",
    Verdict.UNDETERMINED: "bold cyan",
    Severity.ERROR: "red",
    Severity.WARNING: "yellow",
    Severity.INFORMATION: "cyan",
}


class Page:
    """Lines of plain text with styles, cut to the width: layer names are never markup."""

    def __init__(self, canvas: Canvas) -> None:
        self.canvas = canvas
        self._lines: list[Text] = []

    @property
    def width(self) -> int:
        """Columns to fill."""
        return max(min(self.canvas.width, 140), 40)

    def line(self, *parts: str | tuple[str, str]) -> None:
        """One line of pieces, each plain or (text, style)."""
        text = Text(no_wrap=True, overflow="ellipsis")
        for part in parts:
            content, style = part if isinstance(part, tuple) else (part, "")
            text.append(self.encodable(safe(content)), style)
        text.truncate(self.width, overflow="crop")
        text.rstrip()
        self._lines.append(text)

    def uncut(self, text: str, style: str) -> None:
        """A command: never cut, so that it can be pasted."""
        self._lines.append(Text(safe(text), style, no_wrap=True))

    def wrapped(self, first: str, style: str, text: str) -> None:
        """A long sentence behind a word, on as many lines as it takes."""
        lead: tuple[str, str] = (first, style)
        for line in lines_of(" ".join(safe(text).split()), self.width - len(first)):
            self.line(lead, line)
            lead = (" " * len(first), "")

    def packed(self, first: str, pieces: Iterable[str]) -> None:
        """Pieces behind a word, each whole, on as many lines as they take."""
        line = ""
        for piece in pieces:
            if line and len(first) + len(line) + 3 + len(piece) > self.width:
                self.line(first, line)
                first, line = " " * len(first), ""
            line = f"{line}   {piece}" if line else piece
        self.line(first, line)

    def title(self, left: str, right: str = "") -> None:
        """A heading, with something at the right edge."""
        self.line("")
        gap = " " * max(self.width - len(left) - len(right), 2)
        self.line((left, "bold"), gap if right else "", (right, "dim"))

    def encodable(self, text: str) -> str:
        """ASCII only, where the stream knows no more."""
        return text if self.canvas.unicode else text.encode("ascii", "replace").decode()

    def text(self) -> str:
        """All lines, with or without escape sequences."""
        stream = io.StringIO()
        console = Console(
            file=stream,
            width=self.width,
            force_terminal=self.canvas.colour,
            color_system="standard" if self.canvas.colour else None,
            no_color=not self.canvas.colour,
            highlight=False,
            legacy_windows=False,
        )
        for line in self._lines:
            console.print(line, soft_wrap=True)
        return stream.getvalue()


def show_finding(page: Page, finding: Finding, where: str) -> None:
    """Its rule and place, and what it says below."""
    lead = f"  {finding.severity.value:<11}  {finding.code} {finding.name}"
    colour = COLOURS[finding.severity]
    page.line((lead, colour), "  ", shorten_places(where, page.width - len(lead) - 2))
    page.wrapped(" " * 15, "", finding.message)


def show_commands(page: Page, commands: Iterable[tuple[str, str]]) -> None:
    """Commands to paste, each with what it is good for."""
    for command, why in commands:
        page.uncut("  " + command, "bold")
        page.line("      ", (why, "dim"))

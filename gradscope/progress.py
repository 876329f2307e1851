"""Progress is an object passed in; only the command line knows how to draw it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told about long work as it happens."""

    def start(self, what: str, total: int | None) -> None:
        """Begin a stage of ``total`` steps (None: unknown)."""

    def advance(self, steps: int = 1) -> None:
        """Some steps of the stage are done."""

    def finish(self) -> None:
        """The stage is done."""


class Silent:
    """Progress that nobody watches."""

    def start(self, what: str, total: int | None) -> None:
        """Ignore it."""

    def advance(self, steps: int = 1) -> None:
        """Ignore it."""

    def finish(self) -> None:
        """Ignore it."""

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


class Named:
    """Progress on one of several things, which is named before every stage."""

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress, self._name = progress, name

    def start(self, what: str, total: int | None) -> None:
        """Begin a stage."""
        self._progress.start(f"{self._name}: {what}", total)

    def advance(self, steps: int = 1) -> None:
        """Some steps are done."""
        self._progress.advance(steps)

    def finish(self) -> None:
        """The stage is done."""
        self._progress.finish()

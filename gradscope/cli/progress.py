"""Progress on stderr: only on a terminal, and only for work that lasts."""

from __future__ import annotations

import threading

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Progress as RichProgress

from gradscope.report.text import safe

DELAY = 1.0
"""Seconds before anything is drawn; what is quicker needs no progress bar."""


class TerminalProgress:
    """A context manager that is a :class:`gradscope.progress.Progress`.

    Args:
        console: where to draw; nothing is drawn if it is no terminal.
        delay: seconds before the first drawing.
    """

    def __init__(self, console: Console, delay: float = DELAY) -> None:
        self._bar = RichProgress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._lock = threading.Lock()
        self._closed = not console.is_terminal
        self._shown = False
        self._timer = threading.Timer(delay, self._show)
        self._timer.daemon = True

    def __enter__(self) -> TerminalProgress:
        if not self._closed:
            self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        # The lock keeps the timer from opening a bar that nobody would close.
        with self._lock:
            self._closed = True
            self._timer.cancel()
            if self._shown:  # a bar that was never shown would end a line that was never begun
                self._bar.stop()

    def start(self, what: str, total: int | None) -> None:
        """Begin a stage of ``total`` steps; the one before it is over."""
        self.finish()
        self._bar.add_task(safe(what), total=total)

    def advance(self, steps: int = 1) -> None:
        """Some steps of the stage are done."""
        for task in self._bar.task_ids:
            self._bar.advance(task, steps)

    def finish(self) -> None:
        """The stage is done."""
        for task in self._bar.task_ids:
            self._bar.remove_task(task)

    def _show(self) -> None:
        with self._lock:
            if not self._closed:
                self._shown = True
                self._bar.start()

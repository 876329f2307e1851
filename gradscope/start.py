"""Where the command starts: Ctrl-C is answered in one line from the first moment on."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType

INTERRUPTED = 130
"""As a shell reports a command that SIGINT ended."""


def run() -> int:
    """The command line, with an answer to Ctrl-C at any moment of it.

    While modules are imported there is nothing to be put in order, and the process ends at once.
    After that KeyboardInterrupt is raised; a second Ctrl-C waits for nothing. At the very end the
    result stands, and nothing stops it from being handed over.
    """
    answers = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if answers:
        signal.signal(signal.SIGINT, _leave)
    from gradscope.cli.main import main

    if answers:
        signal.signal(signal.SIGINT, _interrupt)
        sys.unraisablehook = _unraisable
    status = main()
    if answers:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return status


def _leave(number: int, frame: FrameType | None) -> None:
    os.write(2, b"gradscope: interrupted.\n")
    os._exit(INTERRUPTED)


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, _leave)
    raise KeyboardInterrupt


def _unraisable(args: sys.UnraisableHookArgs, /) -> None:
    """Python drops what is raised in some callbacks: there it is raised again, a little later."""
    if args.exc_type is KeyboardInterrupt:
        signal.signal(signal.SIGINT, _interrupt)
        # Not from here: this callback would swallow it as well.
        threading.Timer(0.01, signal.raise_signal, [signal.SIGINT]).start()
        return
    sys.__unraisablehook__(args)

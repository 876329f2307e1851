"""Where the command starts: Ctrl-C and SIGTERM are answered in one line from the first moment."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from types import FrameType

_RANK = "RANK"  # in the environment of several processes
INTERRUPTED = 130
"""As a shell reports a command that SIGINT ended."""
DEAF = 5.0
"""Seconds after which one of several processes that has not heard a signal is ended by it."""

_ANSWERED = 0.5
"""Seconds that an answer takes at most where Python is running."""


def run() -> int:
    """The command line, with an answer to Ctrl-C and to SIGTERM at any moment of it.

    While modules are imported there is nothing to be put in order, and the process ends at once.
    After that KeyboardInterrupt is raised, so that what is half written is taken away; a second
    signal waits for nothing. At the very end the result stands, and nothing stops it from being
    handed over.
    """
    answers = _Answers(_answered())
    answers.put(answers.leave)
    _end_if_deaf(answers)
    from gradscope.cli.main import main

    answers.put(answers.interrupt)
    if answers.numbers:
        sys.unraisablehook = answers.unraisable
    status = main()
    answers.put(signal.SIG_IGN)
    return answers.status if status == INTERRUPTED and answers.status else status


def _end_if_deaf(answers: _Answers) -> None:
    """What runs past Python answers no signal until it is over: processes that wait for others,
    a loop of a TorchScript program. Of a signal that nobody has answered a thread hears through the
    pipe that Python's own part of a signal writes to. One of several processes is ended by the
    first, as the others wait for it; a single one, which may be in a long step, by the second.
    """
    heard, told = os.pipe()
    os.set_blocking(told, False)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))

    def listen() -> None:
        before = _RANK in os.environ
        while number := os.read(heard, 1)[0]:
            if number in answers.numbers:
                time.sleep(DEAF if _RANK in os.environ else _ANSWERED)
                if before and not answers.status:
                    answers.leave(number, None)
                before = True

    threading.Thread(target=listen, daemon=True).start()


def _answered() -> list[int]:
    """The signals that nobody else has an answer to."""
    found: list[int] = []
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        found.append(signal.SIGINT)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        found.append(signal.SIGTERM)
    return found


class _Signalled(KeyboardInterrupt):
    """As what a signal is raised.

    Python ends a process by SIGINT, whatever its status, once a KeyboardInterrupt itself has
    passed through a call of ``exec``, as modules make dozens of while they are imported; also
    where it was caught (``run_eval_code_obj`` in pythonrun.c compares types by identity).
    """


class _Answers:
    """What signals are answered with.

    Args:
        numbers: of the signals.

    Attributes:
        status: the exit status that the last one asks for; 0: none has come.
    """

    def __init__(self, numbers: list[int]) -> None:
        self.numbers, self.status, self._last = numbers, 0, int(signal.SIGINT)

    def put(self, answer: signal._HANDLER) -> None:
        """Answer each of the signals so from now on."""
        for number in self.numbers:
            signal.signal(number, answer)

    def leave(self, number: int, frame: FrameType | None) -> None:
        """At once."""
        if os.environ.get(_RANK, "0") == "0":  # of several the first one speaks
            os.write(2, b"gradscope: interrupted.\n")
        os._exit(128 + number)

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """By an exception; the next one leaves at once."""
        self.put(self.leave)
        self.status, self._last = 128 + number, number
        raise _Signalled

    def unraisable(self, args: sys.UnraisableHookArgs, /) -> None:
        """Python drops what is raised in some callbacks: there it is raised again, a bit later."""
        if issubclass(args.exc_type, KeyboardInterrupt):
            self.put(self.interrupt)
            # Not from here: this callback would swallow it as well.
            threading.Timer(0.01, signal.raise_signal, [self._last]).start()
            return
        sys.__unraisablehook__(args)

"""What ``torchrun`` starts: several processes, of which the first one speaks."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

import typer

from gradscope.cli.status import CLEAN, INTERRUPTED
from gradscope.errors import GradscopeError
from gradscope.ranks import ALONE, Place, Ranks


def ranks_of(context: typer.Context) -> Ranks:
    """The processes of this run, as they were handed to the command."""
    return context.obj if context.obj is not None else ALONE


def serve_as(place: Place, serve: Callable[[Ranks], int], refuse: Callable[[str, int], int]) -> int:
    """The exit status of one of several processes.

    Only the first one prints, and only its status tells how it went; the others end with 0, unless
    they were left alone or interrupted.

    Args:
        place: of this process.
        serve: does the work, and prints what is wrong.
        refuse: prints a line and returns the status that it is given.
    """
    # Here and not above: it imports torch.
    from gradscope.group import Group

    with _mute() if place.rank else contextlib.nullcontext():
        group = Group(place)
        try:
            with group.joined():
                found = serve(group)
        except GradscopeError as error:
            found = refuse(str(error), error.exit_status)
    tells = place.rank == 0 or group.lost or found == INTERRUPTED
    return found if tells else CLEAN


@contextlib.contextmanager
def _mute() -> Iterator[None]:
    with (
        open(os.devnull, "w", encoding="utf-8") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield

"""Whether events for TensorBoard can be written, asked before any work."""

from __future__ import annotations

import os
import tempfile
from importlib.util import find_spec

from gradscope.errors import OptionError, OutputError

_OPTION = "--tensorboard"


def check_package() -> None:
    """Raises :class:`OptionError` where the package is missing."""
    if find_spec("tensorboard") is None:
        hint = "pip install 'gradscope-cli[tensorboard]'"
        raise OptionError("needs the package tensorboard", where=_OPTION, hint=hint)


def check_events(folder: str | None) -> None:
    """Refuse a folder that is none, or cannot be made.

    Raises:
        OptionError: the package is missing.
        OutputError: it cannot be written there.
    """
    if folder is None:
        return
    check_package()
    nearest = os.path.abspath(folder)
    while not os.path.lexists(nearest):
        nearest = os.path.dirname(nearest)
    if not os.path.isdir(nearest):
        hint = "Name a folder, new or old."
        raise OutputError(f"'{nearest}' is no folder", where=_OPTION, hint=hint)
    try:
        with tempfile.TemporaryDirectory(dir=nearest):
            pass  # some file systems say so only when they are asked
    except OSError as error:
        what = f"'{nearest}' cannot be written to ({error.strerror or error})"
        hint = "Choose a folder that you may write to."
        raise OutputError(what, where=_OPTION, hint=hint) from error

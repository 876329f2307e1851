"""Layers and parameters that the user names by globs."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable

from gradscope.errors import OptionError


def is_named(name: str, globs: Iterable[str]) -> bool:
    """Whether a glob names this parameter or the layer that owns it."""
    owner = name.rpartition(".")[0]
    return any(fnmatch.fnmatchcase(n, g) for n in (name, owner) if n for g in globs)


def check_globs(option: str, globs: Iterable[str], names: Iterable[str]) -> None:
    """Refuse a glob that names nothing, and say what it may have been meant for.

    Args:
        option: that the globs were given to.
        globs: as the user wrote them.
        names: of the parameters.

    Raises:
        OptionError: a glob matches neither a parameter nor a layer.
    """
    known = list(names)
    for glob in globs:
        if any(is_named(name, (glob,)) for name in known):
            continue
        near = difflib.get_close_matches(glob, known, 1, 0.0)
        hint = f"The nearest parameter is '{near[0]}'." if near else "The model has no parameters."
        what = f"'{glob}' matches no parameter and no layer"
        raise OptionError(what, where=option, hint=hint)

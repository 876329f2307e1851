"""Code of the user's own, named on the command line: ``FILE.py:name``, ``package.module:name``."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from gradscope.errors import OptionError


def load_object(text: str, *, option: str) -> Any:
    """What ``text`` names. Its file or module is run, as the user asked for.

    Args:
        text: ``FILE.py:name`` or ``package.module:name``.
        option: for error messages.

    Raises:
        OptionError: no such file, module or name, or it fails when run.
    """
    source, _, name = text.rpartition(":")
    if not source or not name:
        hint = f"Write {option} FILE.py:NAME or package.module:NAME."
        raise OptionError(f"'{text}' names nothing", where=option, hint=hint)
    module = (
        _from_file(Path(source), option) if source.endswith(".py") else _by_name(source, option)
    )
    value: object = module
    for part in name.split("."):
        if not hasattr(value, part):
            known = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
            has = f"It has: {', '.join(known[:8])}." if known else None
            raise OptionError(f"'{source}' has no '{name}'", where=option, hint=has)
        value = getattr(value, part)
    return value


def _from_file(path: Path, option: str) -> ModuleType:
    if not path.is_file():
        raise OptionError(f"there is no file '{path}'", where=option)
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    name = f"_gradscope_user_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)  # its neighbours are importable, as when it is run as a script
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, KeyboardInterrupt):
            raise
        what = f"'{path}' fails when run: {one_line(error)}"
        raise OptionError(what, where=option) from error
    finally:
        sys.path.remove(folder)
    return module


def _by_name(name: str, option: str) -> ModuleType:
    here = str(Path.cwd())
    sys.path.insert(0, here)  # as ``python -m`` does
    try:
        return importlib.import_module(name)
    except Exception as error:  # any code may stand in a module of the user's
        hint = "Is it installed, or on PYTHONPATH?"
        what = f"cannot import '{name}': {one_line(error)}"
        raise OptionError(what, where=option, hint=hint) from error
    finally:
        sys.path.remove(here)


def one_line(error: BaseException) -> str:
    """``ValueError: text (file.py:12)``: what was raised, and where in the user's code."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "importlib" not in f.filename and "gradscope" not in f.filename]
    place = f" ({Path(own[-1].filename).name}:{own[-1].lineno})" if own else ""
    try:
        said = str(error)
    except Exception as worse:  # an error of the user's may fail even at this
        said = f"(its text fails: {type(worse).__name__})"
    return f"{type(error).__name__}: {said}{place}"

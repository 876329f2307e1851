"""Opens what ``torch.save`` wrote: scanned first, then loaded with torch's restricted unpickler."""

from __future__ import annotations

import pickle
import shlex
import warnings
import zipfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch._utils import IMPORT_MAPPING
from torch._weights_only_unpickler import _get_allowed_globals

from gradscope.config import LoadSettings
from gradscope.errors import LoadError, UntrustedError
from gradscope.loading.allowed import Allowed, allowed
from gradscope.loading.checkpoint import holds_weights
from gradscope.loading.detect import FileKind
from gradscope.loading.pickle_machine import PickleError, read_pickles
from gradscope.loading.pickle_scan import Scan, Unsafe

MAX_PICKLE = 256 << 20
_AGAIN = "Save or copy the file again."
_LEGACY_MAGIC = torch.serialization.MAGIC_NUMBER


@dataclass(frozen=True)
class Opened:
    """What a file held.

    Attributes:
        value: the object.
        foreign: classes whose objects were left unbuilt; inert stand-ins are in their place.
    """

    value: Any
    foreign: tuple[str, ...] = ()


class Unbuilt:
    """Stands where an object of a foreign class stood; takes everything, does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Unbuilt:
        """Whatever the arguments."""
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Whatever the arguments."""

    def __setstate__(self, state: Any) -> None:
        """Nothing is set."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Nothing is set."""

    def append(self, value: Any) -> None:
        """Nothing is kept."""

    def extend(self, values: Any) -> None:
        """Nothing is kept."""


def open_checkpoint(file: Path, kind: FileKind, settings: LoadSettings) -> Opened:
    """Like :func:`load_pickled`, for what training frameworks write: beside the weights may stand
    objects of classes that are not known. They are left unbuilt; nothing of theirs runs.

    Raises:
        UntrustedError: it would run code that the user has not admitted.
        LoadError: it is broken.
    """
    try:
        return Opened(load_pickled(file, kind, settings))
    except UntrustedError as refused:
        known = allowed(settings.allow)
        try:
            scan = _scanned(file, kind, known, lenient=True)
        except UntrustedError:
            raise refused from None
        names = _names(known, scan)
        value = _load(file, lambda: _restricted(file, names, scan.foreign))
        if not isinstance(value, Mapping) or not holds_weights(value, Unbuilt):
            raise
        return Opened(value, tuple(sorted(scan.foreign)))


def load_pickled(file: Path, kind: FileKind, settings: LoadSettings) -> Any:
    """The object in a file that ``torch.save`` wrote: a module, a dictionary, tensors.

    Args:
        file: an existing file.
        kind: TORCH_ZIP or TORCH_LEGACY.
        settings: what the user admits.

    Raises:
        UntrustedError: it would run code that the user has not admitted.
        LoadError: it is broken.
    """
    known = allowed(settings.allow)
    if settings.trust_model:
        return _load(file, lambda: _trusting(file, known))
    scan = _scanned(file, kind, known)
    admitted = known.globals_for(scan.globals)

    def restricted() -> Any:
        with torch.serialization.safe_globals(admitted):
            return torch.load(file, map_location="cpu", weights_only=True)

    modules = any(name in known.modules for name in scan.globals)
    if kind is FileKind.TORCH_LEGACY and modules:
        # torch's restricted unpickler does not know how old files refer to classes
        return _load(file, lambda: _restricted(file, _names(known, scan), frozenset()))
    return _load(file, restricted)


def _names(known: Allowed, scan: Scan) -> dict[str, Any]:
    """What a file that passed the scan may import, by name."""
    own = {pair[1]: pair[0] for pair in known.globals_for(scan.globals) if isinstance(pair, tuple)}
    return {**_get_allowed_globals(), **own}


def _load(file: Path, load: Callable[[], Any]) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return load()
    except pickle.UnpicklingError as error:
        first = str(error).split("\n")[0]
        raise LoadError(f"cannot be loaded: {first}", where=str(file)) from error
    except MemoryError as error:
        raise LoadError("does not fit into memory", where=str(file)) from error
    except Exception as error:  # a broken file makes torch raise almost anything
        first = str(error).strip().split("\n")[0][:300]
        what = f"is broken: {type(error).__name__}: {first}"
        raise LoadError(what, where=str(file), hint=_AGAIN) from error


def _restricted(file: Path, known: Mapping[str, Any], foreign: Collection[str]) -> Any:
    """The scan has read every instruction; this can import the same names and no others."""

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if f"{module}.{name}" in foreign:
                return Unbuilt
            path = f"{IMPORT_MAPPING.get(module, module)}.{name}"
            if path not in known:
                raise pickle.UnpicklingError(f"refers to {path}")
            return known[path]

    return _load_with(file, Unpickler)


def _load_with(file: Path, unpickler: type[pickle.Unpickler]) -> Any:
    """``torch.load`` with an unpickler of ours."""

    def load(stream: Any, **kwargs: Any) -> Any:
        return unpickler(stream, **kwargs).load()

    module = SimpleNamespace(__name__="pickle", Unpickler=unpickler, load=load)
    return torch.load(file, map_location="cpu", weights_only=False, pickle_module=module)


def _trusting(file: Path, known: Allowed) -> Any:
    """Everything in the file runs: the user said so. Classes mapped by ``--allow`` still apply."""

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            path = f"{module}.{name}"
            return (
                known.modules[path] if path in known.modules else super().find_class(module, name)
            )

    return _load_with(file, Unpickler)


def _scanned(file: Path, kind: FileKind, known: Allowed, *, lenient: bool = False) -> Scan:
    scan = _scan_zip if kind is FileKind.TORCH_ZIP else _scan_legacy
    return scan(file, known, lenient)


def _scan_zip(file: Path, known: Allowed, lenient: bool) -> Scan:
    size = file.stat().st_size
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            _check_entries(file, entries)
            main = next(e for e in entries if e.filename.partition("/")[2] == "data.pkl")
            if main.file_size > MAX_PICKLE:
                raise LoadError("its pickle is absurdly large", where=str(file))
            data = archive.read(main)
            room = {e.filename.partition("/data/")[2]: e.file_size for e in entries}
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise LoadError(
            f"is broken or truncated ({error})", where=str(file), hint=_AGAIN
        ) from error
    scan = Scan(known, room, size, lenient)
    _scan(file, data, scan, stop_after=1)
    return scan


def _check_entries(file: Path, entries: list[zipfile.ZipInfo]) -> None:
    """torch stores its records uncompressed and once; anything else is a trick."""
    seen: set[str] = set()
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            what = f"record '{entry.filename}' is compressed, which torch.save never does"
            raise UntrustedError(what, where=str(file), hint="Save it again with torch.save.")
        if entry.filename in seen:
            raise UntrustedError(f"holds record '{entry.filename}' twice", where=str(file))
        seen.add(entry.filename)


def _scan_legacy(file: Path, known: Allowed, lenient: bool) -> Scan:
    """Magic number, protocol, system, the object, keys of storages; then raw numbers."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        data = stream.read(MAX_PICKLE)
    scan = Scan(known, None, size, lenient)
    _scan(file, data, scan, stop_after=5)
    return scan


def _scan(file: Path, data: bytes, scan: Scan, *, stop_after: int) -> None:
    try:
        for count, root in enumerate(read_pickles(data), 1):
            if root != _LEGACY_MAGIC:
                scan.check(root)
            if count == stop_after:
                return
        raise PickleError("the pickle is truncated")
    except PickleError as error:
        raise LoadError(f"cannot be read: {error}", where=str(file), hint=_AGAIN) from error
    except RecursionError as error:
        raise LoadError("cannot be read: nested too deeply", where=str(file)) from error
    except Unsafe as error:
        raise refusal(file, error) from error


def refusal(file: Path, error: Unsafe) -> UntrustedError:
    """What it would do, and the very command that would admit it."""
    command = f"gradscope inspect {shlex.quote(str(file))}"
    if error.is_class and error.name is not None:
        module, _, name = error.name.rpartition(".")
        plain = all(part.isidentifier() for part in error.name.split("."))
        if module == "__main__" and plain:
            hint = f"If it is yours: {command} --allow {error.name}=FILE.py:{name}"
        elif plain and not module.startswith(("torch.", "numpy.", "builtins")):
            hint = f"If it is an nn.Module of yours: {command} --allow {module}"
        else:
            hint = f"If you trust whoever made it: {command} --trust-model"
        return UntrustedError(f"not opened: {error}", where=str(file), hint=hint)
    hint = f"Nothing was run. Only if you trust whoever made it: {command} --trust-model"
    return UntrustedError(f"not opened: {error}", where=str(file), hint=hint)

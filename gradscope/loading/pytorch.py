"""Opens what ``torch.save`` wrote: scanned first, then loaded by an unpickler that knows no more
than the scan has admitted, from the very bytes that were scanned."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch._utils import IMPORT_MAPPING

from gradscope.config import LoadSettings
from gradscope.errors import LoadError, UntrustedError
from gradscope.loading.allowed import Allowed, allowed
from gradscope.loading.checkpoint import holds_weights
from gradscope.loading.detect import FileKind
from gradscope.loading.held import Held, held
from gradscope.loading.pickle_machine import run
from gradscope.loading.pickle_scan import Scan, Unsafe
from gradscope.loading.rebuilders import Unbuilt, rebuilders
from gradscope.loading.refusal import refusal, understood
from gradscope.loading.torch_zip import MAX_PICKLE, read_contents

MAPPED = 256 << 20
"""From this size on a model's file is mapped into memory: a page is read when it is needed."""

_AGAIN = "Save or copy the file again."
_LEGACY_MAGIC = torch.serialization.MAGIC_NUMBER
_LEGACY_PICKLES = 5  # magic number, protocol, system, the object, keys of its storages


@dataclass(frozen=True)
class Opened:
    """What a file held.

    Attributes:
        value: the object.
        foreign: classes whose objects were left unbuilt; inert stand-ins are in their place.
    """

    value: Any
    foreign: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Scanned:
    """A file's pickles, found inert.

    Attributes:
        scan: what they name.
        pickle: the bytes that were scanned: of ``data.pkl``, or the head of a legacy file.
    """

    scan: Scan
    pickle: bytes


def open_checkpoint(file: Path, kind: FileKind, settings: LoadSettings) -> Opened:
    """Like :func:`load_pickled`, for what training frameworks write: beside the weights may stand
    objects of classes that are not known. They are left unbuilt; nothing of theirs runs.

    Raises:
        UntrustedError: it would run code that the user has not admitted.
        LoadError: it is broken.
    """
    mapped = kind is FileKind.TORCH_ZIP and file.stat().st_size >= MAPPED
    try:
        return Opened(load_pickled(file, kind, settings, mapped=mapped))
    except UntrustedError as refused:
        known = allowed(settings.allow)
        with held(file) as opened:
            try:
                scanned = _scanned(opened, kind, known, lenient=True)
            except UntrustedError:
                raise refused from None
            value = _load(opened, kind, known, scanned, mapped=mapped)
        if isinstance(value, list | tuple):
            value = {str(i): v for i, v in enumerate(value)}
        if not isinstance(value, Mapping) or not holds_weights(value, Unbuilt):
            raise
        return Opened(value, tuple(ascii(n)[1:-1] for n in sorted(scanned.scan.foreign)))


def load_pickled(
    file: Path, kind: FileKind, settings: LoadSettings, *, mapped: bool = False
) -> Any:
    """The object in a file that ``torch.save`` wrote: a module, a dictionary, tensors.

    Args:
        file: an existing file.
        kind: TORCH_ZIP or TORCH_LEGACY.
        settings: what the user admits.
        mapped: storages of a zip file are mapped into memory, not read.

    Raises:
        UntrustedError: it would run code that the user has not admitted.
        LoadError: it is broken.
    """
    known = allowed(settings.allow)
    if settings.trust_model:
        return _guarded(file, str(file), _trusting(known), mapped=mapped)
    with held(file) as opened:
        return _load(opened, kind, known, _scanned(opened, kind, known), mapped=mapped)


def _load(
    opened: Held, kind: FileKind, known: Allowed, scanned: _Scanned, *, mapped: bool = False
) -> Any:
    """The scan has read every instruction; this can import the same names and no others."""
    zipped = kind is FileKind.TORCH_ZIP
    names = {**rebuilders(), **known.importable(scanned.scan.globals)}
    unpickler = _restricted(names, scanned.scan.foreign, scanned.pickle if zipped else None)
    stream = opened.stream() if zipped else opened.stream(scanned.pickle)
    source = str(opened.file) if mapped else stream
    value = _guarded(opened.file, source, unpickler, mapped=mapped)
    opened.check_unchanged()
    return value


def _restricted(
    known: Mapping[str, Any], foreign: Collection[str], data: bytes | None
) -> type[pickle.Unpickler]:
    """An unpickler of ``data``, or of what torch hands it."""

    class Unpickler(pickle.Unpickler):
        def __init__(self, stream: Any, **kwargs: Any) -> None:
            super().__init__(stream if data is None else BytesIO(data), **kwargs)

        def find_class(self, module: str, name: str) -> Any:
            path = f"{module}.{name}"
            if path in foreign:
                return Unbuilt
            if path not in known:
                path = f"{IMPORT_MAPPING.get(module, module)}.{name}"
            if path not in known:
                raise pickle.UnpicklingError(f"refers to {path}")
            return known[path]

    return Unpickler


def _trusting(known: Allowed) -> type[pickle.Unpickler]:
    """Everything in the file runs: the user said so. Classes mapped by ``--allow`` still apply."""

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            path = f"{module}.{name}"
            if path in known.modules:
                return known.modules[path]
            try:
                return super().find_class(module, name)
            except (ImportError, AttributeError) as error:
                raise pickle.UnpicklingError(_unknown_class(module, name)) from error

    return Unpickler


def _unknown_class(module: str, name: str) -> str:
    """A trusted file may name what cannot be imported here."""
    if module == "__main__":
        return (
            f"it was saved by a script that defined '{name}': name that script with "
            f"--allow __main__.{name}=FILE.py:{name}"
        )
    return f"'{module}.{name}' cannot be imported: is it installed, or on PYTHONPATH?"


def _guarded(
    file: Path, source: Any, unpickler: type[pickle.Unpickler], *, mapped: bool = False
) -> Any:
    """``torch.load`` with an unpickler of ours, its errors in one line."""

    def load(stream: Any, **kwargs: Any) -> Any:
        return unpickler(stream, **kwargs).load()

    module = SimpleNamespace(__name__="pickle", Unpickler=unpickler, load=load)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(
                source, map_location="cpu", weights_only=False, pickle_module=module, mmap=mapped
            )
    except pickle.UnpicklingError as error:
        first = str(error).split("\n")[0]
        raise LoadError(f"cannot be loaded: {first}", where=str(file)) from error
    except MemoryError as error:
        raise LoadError("does not fit into memory", where=str(file)) from error
    except Exception as error:  # a broken file makes torch raise almost anything
        first = str(error).strip().split("\n")[0][:300]
        what = f"is broken: {type(error).__name__}: {first}"
        raise LoadError(what, where=str(file), hint=_AGAIN) from error


def _scanned(opened: Held, kind: FileKind, known: Allowed, *, lenient: bool = False) -> _Scanned:
    if kind is FileKind.TORCH_ZIP:
        contents = read_contents(opened)
        scan = Scan(known, contents.room, opened.size, lenient)
        _scan(opened, contents.pickle, scan, pickles=1)
        return _Scanned(scan, contents.pickle)
    data = opened.read(MAX_PICKLE)
    scan = Scan(known, None, opened.size, lenient)
    end = _scan(opened, data, scan, pickles=_LEGACY_PICKLES)
    return _Scanned(scan, data[:end])


def _scan(opened: Held, data: bytes, scan: Scan, *, pickles: int) -> int:
    """Check the first pickles in ``data``; where they end."""
    stream, root = BytesIO(data), None
    try:
        with understood(opened.file):
            for _ in range(pickles):
                root = run(stream)
                if root != _LEGACY_MAGIC:
                    scan.check(root)
        return stream.tell()
    except Unsafe as error:
        raise refusal(opened.file, error, root, scan.allowed) from error

"""Checks a TorchScript archive before torch opens it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from gradscope.errors import LoadError, UntrustedError
from gradscope.loading.archive import MAX_TEXT, Archive, opened
from gradscope.loading.pickle_machine import read_pickles
from gradscope.loading.pickle_scan import Unsafe
from gradscope.loading.refusal import refusal, understood
from gradscope.loading.script_objects import ScriptScan
from gradscope.loading.script_source import Source, read_source

_MAX_CODE, _MAX_FILE = 32 << 20, 8 << 20
_SMALL = ("version", "byteorder", ".data/version")
_AGAIN = "Save or copy the file again."
_HINT = "Save the eager model or its state_dict with torch.save, or torch.jit.save the script."
# What may run while attributes are restored, if a class overloads it.
_OVERLOADS = frozenset({
    "__getitem__", "__setitem__", "__neg__", "__not__", "__int__", "__float__", "__bool__",
    "__pos__", "__invert__", "__getattr__", "__setattr__", "__del__",
})  # fmt: skip


@dataclass(frozen=True)
class Checked:
    """An archive that was found harmless.

    Attributes:
        stream: written anew, for torch.
        traced: it was recorded from one run.
        assigned: attributes that its methods assign: what it may remember between calls.
        calls: operations and methods that it calls.
        devices: other than the CPU, named in its code.
        trains: whether it runs dropout or batch norm in train mode, come what may.
    """

    stream: IO[bytes] | None
    traced: bool
    assigned: frozenset[str]
    calls: frozenset[str]
    devices: frozenset[str]
    trains: bool


def check(file: Path, *, on_cpu: bool) -> Checked:
    """Scan a TorchScript archive.

    Args:
        file: what ``torch.jit.save`` wrote.
        on_cpu: its code is to run on the CPU, whatever devices it names.

    Raises:
        UntrustedError: it would do more than rebuild tensors and compile calculations.
        LoadError: it is broken, or of a form that cannot be examined.
    """
    with opened(file) as archive:
        _check_form(file, archive)
        try:
            sources = dict(_sources(file, archive, on_cpu))
            changed = _pickles(file, archive)
        except Unsafe as error:
            raise refusal(file, error) from error
        _check_state(file, sources)
        texts = {name: source.text.encode() for name, source in sources.items()}
        stream = archive.rewritten({**changed, **texts}, _numbers(archive))
        return Checked(
            stream,
            any(n.startswith("traced_inputs") for n in archive.sizes),
            frozenset[str]().union(*(s.assigned for s in sources.values())),
            frozenset[str]().union(*(s.calls for s in sources.values())),
            frozenset[str]().union(*(s.devices for s in sources.values())),
            any(s.trains for s in sources.values()),
        )


def _check_form(file: Path, archive: Archive) -> None:
    names = archive.sizes
    if "bytecode.pkl" in names:
        raise LoadError("is mobile bytecode (lite interpreter)", where=str(file), hint=_HINT)
    if "model.json" in names:
        what = "is TorchScript of a form that PyTorch wrote before 1.4"
        raise LoadError(what, where=str(file), hint=_HINT)
    for needed in ("data.pkl", "constants.pkl"):
        if needed not in names:
            what = f"is no whole TorchScript archive: it lacks {needed}"
            raise LoadError(what, where=str(file), hint=_AGAIN)
    version = archive.read("version", most=20) if "version" in names else b""
    if ".data/version" in names and not version:
        version = archive.read(".data/version", most=20)
    if not version.strip().isdigit():
        raise LoadError("does not say its version", where=str(file), hint=_AGAIN)


def _sources(file: Path, archive: Archive, on_cpu: bool) -> Iterator[tuple[str, Source]]:
    total = 0
    for name, size in archive.sizes.items():
        if not name.startswith("code/") or not name.endswith(".py"):
            continue
        total += size
        if total > _MAX_CODE:
            raise LoadError("its code is absurdly long", where=str(file))
        try:
            text = archive.read(name, most=_MAX_FILE).decode()
        except UnicodeDecodeError as error:
            what = f"its code ({name}) is no text"
            raise LoadError(what, where=str(file), hint=_AGAIN) from error
        yield name, read_source(text, name.removeprefix("code/"), on_cpu=on_cpu)


def _check_state(file: Path, sources: dict[str, Source]) -> None:
    defined = frozenset[str]().union(*(s.defines for s in sources.values()))
    if "__setstate__" in defined and defined & _OVERLOADS:
        what = f"not opened: its __setstate__ may run {min(defined & _OVERLOADS)}"
        raise UntrustedError(what, where=str(file), hint="Nothing was run.")


def _pickles(file: Path, archive: Archive) -> dict[str, bytes]:
    """data.pkl and constants.pkl, whose tensors lie in the folders of the same names."""
    found = {}
    for name in ("data.pkl", "constants.pkl"):
        folder = name.removesuffix(".pkl")
        prefix = f"{folder}/"
        room = {n.removeprefix(prefix): s for n, s in archive.sizes.items() if n.startswith(prefix)}
        data = archive.read(name, most=MAX_TEXT)
        scan = ScriptScan(room, sum(room.values()))
        with understood(file):
            scan.check(next(read_pickles(data), None))
        found[name] = data
    return found


def _numbers(archive: Archive) -> Iterator[str]:
    for name in archive.sizes:
        if name.startswith(("data/", "constants/")) or name in _SMALL:
            yield name

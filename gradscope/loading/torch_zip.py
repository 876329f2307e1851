"""The zip archive that ``torch.save`` writes, refused if two readers could see two things in it."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from gradscope.errors import LoadError, UntrustedError
from gradscope.loading.held import Held

MAX_PICKLE = 256 << 20
_AGAIN = "Save or copy the file again."
_MOST_RECORDS = 1_000_000
_HEADER = struct.Struct("<4s5H3L2H")
_END = 22  # bytes of the last record of a zip archive without a comment
_ZIP64 = 0xFFFFFFFF
_FOREIGN = ("constants.pkl", "bytecode.pkl", "code/", "models/")


@dataclass(frozen=True)
class Contents:
    """What an archive holds.

    Attributes:
        pickle: the bytes of ``data.pkl``.
        room: bytes of each storage, by key.
    """

    pickle: bytes
    room: Mapping[str, int]


def read_contents(file: Held) -> Contents:
    """The pickle and the directory of an archive.

    Raises:
        UntrustedError: it is made to be read in two ways.
        LoadError: it is broken.
    """
    try:
        with zipfile.ZipFile(file.stream()) as archive:
            entries = archive.infolist()
            root = _check_entries(file, entries)
            _check_places(file, entries, archive.start_dir)
            main = archive.getinfo(f"{root}/data.pkl")
            if main.file_size > MAX_PICKLE:
                raise LoadError("its pickle is absurdly large", where=str(file.file))
            data = archive.read(main)
    except KeyError as error:
        raise LoadError("has no data.pkl", where=str(file.file), hint=_AGAIN) from error
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, struct.error) as error:
        raise _broken(file, error) from error
    except (NotImplementedError, RuntimeError, OverflowError) as error:
        raise _broken(file, error) from error
    _compare(file, root, entries)
    start = f"{root}/data/"
    names = {e.filename: e.file_size for e in entries}
    room = {n.removeprefix(start): size for n, size in names.items() if n.startswith(start)}
    return Contents(data, room)


def _broken(file: Held, error: Exception) -> LoadError:
    return LoadError(f"is broken or truncated ({error})", where=str(file.file), hint=_AGAIN)


def _check_entries(file: Held, entries: list[zipfile.ZipInfo]) -> str:
    """torch stores its records uncompressed, once, in one folder; anything else is a trick."""
    where = str(file.file)
    if len(entries) > _MOST_RECORDS:
        raise LoadError(f"has {len(entries):,} records", where=where)
    seen: set[str] = set()
    roots = {e.filename.partition("/")[0] for e in entries}
    if len(roots) != 1:
        raise UntrustedError("its records do not lie in one folder", where=where)
    for entry in entries:
        name = entry.filename
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            what = f"record '{name}' is compressed, which torch.save never does"
            raise UntrustedError(what, where=where, hint="Save it again with torch.save.")
        if name.casefold() in seen:
            raise UntrustedError(f"holds record '{name}' twice", where=where)
        seen.add(name.casefold())
        if not _is_sound(entry):
            raise UntrustedError(f"holds a record of an odd name ({name!r:.80})", where=where)
    return roots.pop()


def _is_sound(entry: zipfile.ZipInfo) -> bool:
    """A plain file inside of the archive's folder, that makes it no other kind of archive."""
    name = entry.filename
    parts = name.removesuffix("/").split("/")
    plain = name == entry.orig_filename and name.isascii() and name.isprintable()
    inside = not any(part in ("", ".", "..") for part in parts) and not set(name) & set("\\:")
    foreign = "/".join(parts[1:]).casefold().startswith(_FOREIGN)
    kind = (entry.external_attr >> 16) & 0o170000
    encrypted = entry.flag_bits & 1
    return plain and inside and not foreign and kind in (0, 0o100000, 0o040000) and not encrypted


def _check_places(file: Held, entries: Iterable[zipfile.ZipInfo], end: int) -> None:
    """Each record lies behind the one before, and its own header says the same of it."""
    stream, where = file.stream(), str(file.file)
    at = 0
    for entry in sorted(entries, key=lambda e: e.header_offset):
        if entry.header_offset < at or (at == 0 and entry.header_offset != 0):
            raise UntrustedError(f"record '{entry.filename}' overlaps another", where=where)
        stream.seek(entry.header_offset)
        header = _HEADER.unpack(stream.read(_HEADER.size))
        name = stream.read(header[9])
        if header[0] != b"PK\x03\x04" or name != entry.filename.encode("ascii"):
            what = f"record '{entry.filename}' has another name in its own header"
            raise UntrustedError(what, where=where)
        if header[3] != entry.compress_type or not _sizes_agree(header, entry):
            what = f"record '{entry.filename}' has another size in its own header"
            raise UntrustedError(what, where=where)
        at = entry.header_offset + _HEADER.size + header[9] + header[10] + entry.file_size
    stream.seek(file.size - _END)
    last = stream.read(_END)
    if at > end or last[:4] != b"PK\x05\x06" or last[-2:] != b"\0\0":
        raise UntrustedError("something stands between or behind its records", where=where)


def _sizes_agree(header: tuple[Any, ...], entry: zipfile.ZipInfo) -> bool:
    later = header[2] & 8  # sizes stand behind the record: what torch itself writes
    return bool(later) or header[8] in (entry.file_size, _ZIP64)


def _compare(file: Held, root: str, entries: Iterable[zipfile.ZipInfo]) -> None:
    """torch's own reader of archives must see the same records in the same places."""
    try:
        reader: Any = torch._C.PyTorchFileReader(file.stream())
        theirs = {
            n: (reader.get_record_header_offset(n), reader.get_record_size(n))
            for n in reader.get_all_records()
        }
    except (
        RuntimeError,
        ValueError,
        IndexError,
        OverflowError,
    ) as error:  # C++'s, as pybind has it
        first = str(error).split("\n")[0][:200]
        what = f"is broken or truncated ({first})"
        raise LoadError(what, where=str(file.file), hint=_AGAIN) from error
    ours = {e.filename.removeprefix(f"{root}/"): (e.header_offset, e.file_size) for e in entries}
    if theirs != ours:
        raise UntrustedError("its directory can be read in two ways", where=str(file.file))

"""The zip archives of TorchScript and ``torch.export``, read with bounded sizes and written anew.

Two readers of one zip file can see different things in it (records twice, other names in the local
headers, a second directory). So torch is never given the file: what was read and checked here is
written to a new archive in memory, and that is what torch opens.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from gradscope.errors import LoadError, UntrustedError

MAX_TEXT = 256 << 20
_MAX_RECORDS = 200_000
_RATIO = 1100  # deflate cannot do better than about 1030 to 1
_AGAIN = "Save or copy the file again."


class Archive:
    """An open archive whose directory has been found sound.

    Args:
        file: for messages.
        archive: open for reading.

    Attributes:
        sizes: bytes of each record, by its path below the archive's root.

    Raises:
        UntrustedError: it is made to be read in two ways, or its names leave the archive.
        LoadError: it claims more than it can hold.
    """

    def __init__(self, file: Path, archive: zipfile.ZipFile) -> None:
        self._file, self._archive = file, archive
        self._entries = _checked(file, archive.infolist())
        self.sizes: Mapping[str, int] = {n: e.file_size for n, e in self._entries.items()}

    def read(self, name: str, *, most: int = MAX_TEXT) -> bytes:
        """One record.

        Raises:
            LoadError: it is larger than ``most``, or broken.
        """
        entry = self._entries[name]
        if entry.file_size > most:
            what = f"record '{name}' is absurdly large ({entry.file_size:,} bytes)"
            raise LoadError(what, where=str(self._file))
        data = self._archive.read(entry)
        if len(data) != entry.file_size:
            raise LoadError(f"record '{name}' is broken", where=str(self._file), hint=_AGAIN)
        return data

    def rewritten(self, changed: Mapping[str, bytes], copied: Iterator[str]) -> BytesIO:
        """A new archive of some records as they are, and some in another form."""
        stream = BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as target:
            for name, data in changed.items():
                target.writestr(f"model/{name}", data)
            for name in copied:
                target.writestr(f"model/{name}", self.read(name, most=1 << 62))
        stream.seek(0)
        return stream


@contextmanager
def opened(file: Path) -> Iterator[Archive]:
    """The archive in a file.

    Raises:
        UntrustedError: it is made to be read in two ways.
        LoadError: it is broken.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            yield Archive(file, archive)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError) as error:
        what = f"is broken or truncated ({error})"
        raise LoadError(what, where=str(file), hint=_AGAIN) from error
    except (RuntimeError, ValueError, UnicodeError) as error:
        if isinstance(error, RuntimeError) and "encrypted" not in str(error):
            raise
        raise LoadError(f"cannot be read ({error})", where=str(file), hint=_AGAIN) from error


def _checked(file: Path, entries: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    if len(entries) > _MAX_RECORDS:
        raise LoadError(f"has {len(entries):,} records", where=str(file))
    found: dict[str, zipfile.ZipInfo] = {}
    folded: set[str] = set()
    roots: set[str] = set()
    total, size = 0, file.stat().st_size
    for entry in entries:
        root, _, name = entry.filename.partition("/")
        roots.add(root)
        _check_name(file, entry.filename)
        if entry.flag_bits & 1:
            raise UntrustedError(f"record '{name}' is encrypted", where=str(file))
        if name.casefold() in folded:
            raise UntrustedError(f"holds record '{name}' twice", where=str(file))
        folded.add(name.casefold())
        stored = entry.compress_type == zipfile.ZIP_STORED
        limit = entry.compress_size if stored else _RATIO * entry.compress_size + 4096
        if entry.file_size > limit or entry.compress_size > size:
            raise UntrustedError(f"record '{name}' claims more than it holds", where=str(file))
        total += entry.compress_size
        found[name] = entry
    if len(roots) != 1:
        raise UntrustedError("its records have no common root", where=str(file))
    if total > size:
        raise UntrustedError("its records claim more bytes than the file has", where=str(file))
    return found


def _check_name(file: Path, name: str) -> None:
    parts = name.split("/")
    sound = name.isprintable() and "\\" not in name and ":" not in name
    if not sound or len(name) > 1000 or any(p in ("", ".", "..") for p in parts):
        raise UntrustedError(f"holds a record of an odd name ({name!r:.80})", where=str(file))

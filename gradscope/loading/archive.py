"""The zip archives of TorchScript and ``torch.export``, read with bounded sizes and written anew.

Two readers of one zip file can see different things in it (records twice, other names in the local
headers, a second directory). So torch is never given the file: what was read and checked here is
written to a new archive, and that is what torch opens.
"""

from __future__ import annotations

import errno
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any

from gradscope.errors import LoadError, UntrustedError

MAX_TEXT = 256 << 20
_IN_MEMORY = 32 << 20
_LARGE = 1 << 31
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

    def rewritten(self, changed: Mapping[str, bytes], copied: Iterator[str]) -> IO[bytes]:
        """A new archive of some records as they are, and some in another form.

        Returns:
            in memory if it is small; else a temporary file, deleted when it is closed.
        """
        names = list(copied)
        size = sum(self.sizes[n] for n in names)
        stream: IO[bytes] = BytesIO()
        if size > _IN_MEMORY:
            stream = NamedTemporaryFile()  # noqa: SIM115  (whoever gets it closes it)
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as target:
            for name, data in changed.items():
                target.writestr(f"model/{name}", data)
            for name in names:
                self._copy(name, target)
        stream.flush()
        stream.seek(0)
        return stream

    def _copy(self, name: str, target: zipfile.ZipFile) -> None:
        entry = self._entries[name]
        large = entry.file_size >= _LARGE
        with (
            self._archive.open(entry) as source,
            target.open(f"model/{name}", "w", force_zip64=large) as copy,
        ):
            shutil.copyfileobj(source, copy, 1 << 20)


def for_torch(stream: IO[bytes]) -> Any:
    """What torch opens: the stream, or the name of its file, which it reads without a copy."""
    return stream if isinstance(stream, BytesIO) else stream.name


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
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            what, hint = "there is no room for a temporary copy", "Set TMPDIR to a larger disk."
            raise LoadError(what, where=str(file), hint=hint) from error
        what = f"is broken or truncated ({error})"
        raise LoadError(what, where=str(file), hint=_AGAIN) from error
    except RecursionError as error:
        raise LoadError("is nested too deeply", where=str(file)) from error
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
        root, below, name = entry.filename.partition("/")
        if not below:  # the form of PyTorch 2.7 and earlier
            root, name = "", entry.filename
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

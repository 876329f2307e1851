"""Archives that say one thing to one reader and another to the next, or more than they hold."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch

from tests.pickle_assembler import (
    P2,
    STOP,
    archive,
    dictionary,
    number,
    storage,
    system,
    tensor,
    text,
)

GOOD = P2 + dictionary(w=tensor()) + STOP


def evil(folder: Path) -> bytes:
    """A pickle that leaves the canary."""
    return P2 + system(f"touch {folder / 'canary'}") + STOP


def added(*records: tuple[str, bytes], pickle: bytes = GOOD) -> Callable[[Path], Path]:
    """A good archive with more records, by their full names."""

    def build(folder: Path) -> Path:
        path = archive(folder / "model.pt", pickle)
        with zipfile.ZipFile(path, "a", zipfile.ZIP_STORED) as target, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for record, content in records:
                target.writestr(record, content)
        return path

    return build


def edited(change: Callable[[bytes], bytes]) -> Callable[[Path], Path]:
    """A good archive, its bytes changed."""

    def build(folder: Path) -> Path:
        path = archive(folder / "model.pt", GOOD)
        before = path.read_bytes()
        after = change(before)
        assert after != before
        path.write_bytes(after)
        return path

    return build


def _last(data: bytes, old: bytes, new: bytes) -> bytes:
    """``old`` replaced where it stands last: in the central directory."""
    at = data.rindex(old)
    return data[:at] + new + data[at + len(old) :]


def _first(data: bytes, old: bytes, new: bytes) -> bytes:
    return data.replace(old, new, 1)


def _entry(data: bytes, record: str, offset: int, value: bytes) -> bytes:
    """A field of a record's entry in the central directory, which begins 46 before its name."""
    at = data.rindex(record.encode()) - 46 + offset
    return data[:at] + value + data[at + len(value) :]


def _symlink(folder: Path) -> Path:
    path = archive(folder / "model.pt", GOOD)
    entry = zipfile.ZipInfo("model/link")
    entry.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "a") as target:
        target.writestr(entry, "/etc/passwd")
    return path


def _overlapping(data: bytes) -> bytes:
    """The second record's entry points to the first record."""
    return _entry(data, "model/byteorder", 42, struct.pack("<L", 0))


def _two_directories(folder: Path) -> Path:
    """A good archive as the comment of a hostile one, with an end of its own."""
    path = archive(folder / "model.pt", evil(folder))
    good = archive(folder / "good.pt", GOOD)
    inner = good.read_bytes()
    good.unlink()
    outer = bytearray(path.read_bytes())
    outer[-2:] = struct.pack("<H", len(inner))
    path.write_bytes(bytes(outer) + inner)
    return path


def _prefixed(folder: Path) -> Path:
    path = archive(folder / "model.pt", GOOD)
    path.write_bytes(b"PK\x03\x04" + bytes(100) + path.read_bytes())
    return path


def _quoted_overlap(folder: Path) -> Path:
    """Many entries in the directory that share one large record: more than the file holds."""
    path = archive(folder / "model.pt", GOOD, {f"data/{i}": bytes(100_000) for i in range(1, 4)})
    data = path.read_bytes()
    for i in (2, 3):
        at = data.index(b"model/data/1")
        data = _entry(data, f"model/data/{i}", 42, struct.pack("<L", at - 30))
    path.write_bytes(data)
    return path


def _legacy(*pickles: bytes, rest: bytes = b"") -> bytes:
    magic = pickle.dumps(torch.serialization.MAGIC_NUMBER, protocol=2)
    return magic + b"".join(pickles) + rest


def legacy(make: Callable[[Path], bytes]) -> Callable[[Path], Path]:
    """A file as torch wrote it before 1.6."""

    def build(folder: Path) -> Path:
        path = folder / "model.pt"
        path.write_bytes(make(folder))
        return path

    return build


def _plain(value: object) -> bytes:
    return pickle.dumps(value, protocol=2)


PROTOCOL, SYSTEM = _plain(1001), _plain({"little_endian": True})
OLD_STORAGE = storage().replace(b"tQ", b"NtQ")
OLD = P2 + dictionary(w=tensor(of=OLD_STORAGE)) + STOP
NUMBERS = struct.pack("<q", 3) + bytes(12)


def _viewed(offset: int, size: int) -> bytes:
    view = b"(" + text("1") + number(offset) + number(size) + b"t"
    return P2 + dictionary(w=tensor(of=storage().replace(b"tQ", view + b"tQ"))) + STOP


def _tar(folder: Path) -> bytes:
    """A legacy file that is a tar archive as well: torch tries tar first, and unpacks it.

    The pickle of the system's description runs through the header of the tar archive, as bytes.
    """
    member = io.BytesIO()
    with tarfile.open(fileobj=member, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for file in ("storages", "tensors", "pickle"):
            content = evil(folder)
            entry = tarfile.TarInfo(file)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    inner = member.getvalue()
    head = bytearray(512)
    begin = _legacy(PROTOCOL, b"\x80\x02B" + struct.pack("<I", 0))
    room = 512 - len(begin) + len(inner)
    begin = _legacy(PROTOCOL, b"\x80\x02B" + struct.pack("<I", room))
    head[: len(begin)] = begin
    head[124:136] = b"00000000000\0"
    head[156:157] = b"0"
    head[257:265] = b"ustar\00000"
    head[148:156] = b"        "
    head[148:156] = f"{sum(head):06o}\0 ".encode()
    return bytes(head) + inner + STOP + OLD + _plain(["0"]) + NUMBERS


ARCHIVES: dict[str, Callable[[Path], Path]] = {
    "name that leaves the folder": added(("model/../../canary", b"")),
    "absolute name": added(("/model/data/1", b"")),
    "name with a backslash": added(("model/..\\canary", b"")),
    "name of a drive": added(("model/C:canary", b"")),
    "name with a NUL": edited(
        lambda d: d.replace(b"model/version", b"model/versi\0n"),
    ),
    "version of thirty digits": lambda f: archive(
        f / "model.pt", GOOD, {"version": b"9" * 30 + b"\n"}
    ),
    "name in no encoding": edited(lambda d: d.replace(b"model/version", b"model/versi\xb3n")),
    "symbolic link": _symlink,
    "pickle in capitals": lambda f: added(("model/DATA.PKL", evil(f)))(f),
    "TorchScript in capitals": added(("model/CONSTANTS.PKL", b"")),
    "storage in another folder": added(("other/data/7", bytes(10**6))),
    "pickle in another folder": lambda f: added(("other/data.pkl", evil(f)))(f),
    "data before the archive": _prefixed,
    "data behind the archive": edited(lambda d: d + bytes(100)),
    "two directories": _two_directories,
    "other name in the record's header": edited(
        lambda d: _first(d, b"model/data.pkl", b"model/data.pkx"),
    ),
    "other name in the directory": edited(
        lambda d: _last(d, b"model/version", b"model/versiox"),
    ),
    "overlapping records": edited(_overlapping),
    "records that share one": _quoted_overlap,
    "forged size in the directory": edited(
        lambda d: _entry(d, "model/data/0", 20, struct.pack("<LL", 1 << 30, 1 << 30)),
    ),
    "forged zip64 size": edited(
        lambda d: _entry(d, "model/data/0", 20, struct.pack("<LL", 0xFFFFFFFF, 0xFFFFFFFF)),
    ),
    "encrypted": edited(lambda d: _entry(d, "model/data.pkl", 8, struct.pack("<H", 1))),
    "wrong checksum": edited(lambda d: _entry(d, "model/data.pkl", 16, bytes(4))),
    "byte order that is none": lambda f: archive(f / "model.pt", GOOD, {"byteorder": b"middle"}),
    "version that is a text": lambda f: archive(f / "model.pt", GOOD, {"version": b"x" * 10_000}),
    "version of 2 ** 63": lambda f: archive(f / "model.pt", GOOD, {"version": b"9" * 19}),
    "alignment that is a text": lambda f: archive(
        f / "model.pt", GOOD, {".storage_alignment": b"x"}
    ),
    "storage larger than its record": lambda f: archive(
        f / "model.pt", P2 + dictionary(w=tensor(of=storage(1000))) + STOP
    ),
    "legacy: system's description": legacy(
        lambda f: _legacy(PROTOCOL, evil(f), OLD, _plain(["0"]), rest=NUMBERS)
    ),
    "legacy: keys of storages": legacy(
        lambda f: _legacy(PROTOCOL, SYSTEM, OLD, evil(f), rest=NUMBERS)
    ),
    "legacy: protocol": legacy(
        lambda f: _legacy(evil(f), SYSTEM, OLD, _plain(["0"]), rest=NUMBERS)
    ),
    "legacy: forged count": legacy(
        lambda f: _legacy(
            PROTOCOL, SYSTEM, OLD, _plain(["0"]), rest=struct.pack("<q", 1 << 40) + bytes(12)
        )
    ),
    "legacy: part beyond the storage": legacy(
        lambda f: _legacy(PROTOCOL, SYSTEM, _viewed(2, 3), _plain(["0"]), rest=NUMBERS)
    ),
    "legacy: part of a part": legacy(
        lambda f: _legacy(PROTOCOL, SYSTEM, _viewed(-1, 3), _plain(["0"]), rest=NUMBERS)
    ),
}

HARMLESS_ARCHIVES: dict[str, Callable[[Path], Path]] = {
    "pickle as another record": lambda f: added(("model/other.pkl", evil(f)))(f),
    "pickle as a storage": lambda f: archive(f / "model.pt", GOOD, {"data/1": evil(f)}),
    "serialization id of a megabyte": lambda f: archive(
        f / "model.pt", GOOD, {".data/serialization_id": b"9" * 1_000_000}
    ),
    "legacy: tar archive as well": legacy(_tar),
    "legacy: a sixth pickle": legacy(
        lambda f: _legacy(PROTOCOL, SYSTEM, OLD, _plain(["0"]), rest=NUMBERS + evil(f))
    ),
}
"""Opened: what is in them beside the weights is never read."""

"""What a file is, told by its content and never by its name."""

from __future__ import annotations

import codecs
import stat
import zipfile
import zlib
from enum import StrEnum
from pathlib import Path
from typing import IO

from gradscope.errors import LoadError

_LEGACY_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


class FileKind(StrEnum):
    """Kinds of file that gradscope knows, whether or not it opens them as a model."""

    TORCH_ZIP = "PyTorch file"
    TORCH_LEGACY = "legacy PyTorch file"
    TORCHSCRIPT = "TorchScript"
    EXPORTED = "torch.export program"
    SAFETENSORS = "safetensors"
    ONNX = "ONNX"
    INDEX = "index of shards"
    NPZ = "npz"
    NPY = "npy"
    TEXT = "text"
    PARQUET = "Parquet"
    PICKLE = "plain pickle"
    TAR = "tar archive"
    UNKNOWN = "unknown"


def check_file(path: str) -> Path:
    """The path, if it is a readable, non-empty file.

    Raises:
        LoadError: it is not.
    """
    file = Path(path)
    if file.is_dir():
        raise LoadError("is a folder, not a file", where=path, hint=_within(file))
    try:
        if stat.S_ISFIFO(file.stat().st_mode):
            raise LoadError("is a pipe, which cannot be read twice", where=path,
                            hint="Write it to a file first.")  # fmt: skip
        with file.open("rb") as stream:
            empty = not stream.read(1)
    except OSError as error:
        hint = "Check the name." if isinstance(error, FileNotFoundError) else None
        raise LoadError(f"cannot be read: {error.strerror}", where=path, hint=hint) from error
    except ValueError as error:  # a NUL byte in the name
        raise LoadError(f"is no file name: {error}", where=repr(path)) from error
    if empty:
        raise LoadError("is empty", where=path, hint="Save or copy it again.")
    return file


def detect(file: Path) -> FileKind:
    """Kind of an existing, non-empty file.

    Raises:
        LoadError: it is a zip archive that cannot be listed.
    """
    with file.open("rb") as stream:
        head = stream.read(4096)
    if head[:4] == b"PK\x03\x04":
        return _detect_zip(file)
    if head[:6] == b"\x93NUMPY":
        return FileKind.NPY
    if head[:1] == b"\x80" and _LEGACY_MAGIC in head[:32]:
        return FileKind.TORCH_LEGACY
    if len(head) > 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 100_000_000:
        return FileKind.SAFETENSORS
    if head[:1] == b"\x80":
        return FileKind.PICKLE
    if head.lstrip()[:1] == b"{" and b'"weight_map"' in head:
        return FileKind.INDEX
    if head[257:262] == b"ustar":
        return FileKind.TAR
    if head[:4] == b"PAR1":
        return FileKind.PARQUET
    if not _looks_like_text(head) and _looks_like_onnx(file):
        return FileKind.ONNX
    if head[:2] == b"\x1f\x8b":
        head = _inflated(head)
    if _looks_like_text(head):
        return FileKind.TEXT
    return FileKind.UNKNOWN


def _detect_zip(file: Path) -> FileKind:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        what = f"is a broken or truncated archive ({error})"
        raise LoadError(what, where=str(file), hint="Save or copy it again.") from error
    bases = {n.partition("/")[2] for n in names}
    exported = "archive_format" in bases or "serialized_exported_program.json" in names
    if exported or any(b.startswith(("models/", "data/aotinductor/")) for b in bases):
        return FileKind.EXPORTED
    if (
        "constants.pkl" in bases
        or "bytecode.pkl" in bases
        or any(b.startswith("code/") for b in bases)
    ):
        return FileKind.TORCHSCRIPT
    if "data.pkl" in bases:
        return FileKind.TORCH_ZIP
    if names and all(n.endswith(".npy") for n in names):
        return FileKind.NPZ
    return FileKind.UNKNOWN


_ONNX_FIELDS = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26})
"""Of a ModelProto, in any order; 7 is the graph."""


def _looks_like_onnx(file: Path) -> bool:
    """Whether the file reads as protobuf fields of a ModelProto, as far as its graph."""
    with file.open("rb") as stream:
        for _ in range(1000):
            tag = _varint(stream)
            if tag is None or tag >> 3 not in _ONNX_FIELDS or tag & 7 not in (0, 2):
                return False
            size = _varint(stream)
            if size is None:
                return False
            if tag >> 3 == 7:
                return tag & 7 == 2
            if tag & 7 == 2:
                stream.seek(size, 1)
    return False


def _varint(stream: IO[bytes]) -> int | None:
    """Seven bits a byte, the lowest first; None at the end of the file or beyond 64 bits."""
    value = 0
    for shift in range(0, 70, 7):
        byte = stream.read(1)
        if not byte:
            return None
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value if value < 1 << 62 else None
    return None


def _inflated(head: bytes) -> bytes:
    """As much as the first bytes of a gzip file tell."""
    try:
        return zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(head, 4096)
    except zlib.error:
        return b""


def _looks_like_text(head: bytes) -> bool:
    """Lines in UTF-8 or another superset of ASCII, or in UTF-16 with its mark; no JSON, no XML."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return True
    control = set(range(32)) - set(b"\t\n\r\f") | {127}
    return bool(head) and not control & set(head) and head.lstrip()[:1] not in (b"{", b"[", b"<")


_MODELS = (
    "model.safetensors.index.json", "model.safetensors", "pytorch_model.bin.index.json",
    "pytorch_model.bin", "model.onnx", "diffusion_pytorch_model.safetensors",
    "adapter_model.safetensors",
)  # fmt: skip


def _within(folder: Path) -> str:
    """Which file of a folder to name."""
    if (folder / ".metadata").is_file():
        return (
            "It is a distributed checkpoint: python -m torch.distributed.checkpoint.format_utils "
            f"dcp_to_torch {folder} model.pt makes a file of it."
        )
    found = next((folder / name for name in _MODELS if (folder / name).is_file()), None)
    return f"Name the model file in it: {found}" if found else "Name the model file in it."

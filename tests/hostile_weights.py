"""Files of weights without code that claim what they do not hold: safetensors, indices of shards.

And samples of data: numpy's formats can hold pickles.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from tests.pickle_assembler import P2, STOP, archive, dictionary, system, tensor


def _entry(shape: object = (3,), begin: int = 0, end: int = 12, dtype: str = "F32") -> object:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def header(text: bytes, data: bytes = bytes(12), length: int | None = None) -> bytes:
    """A safetensors file."""
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def safetensors(
    tensors: object, data: bytes = bytes(12), length: int | None = None
) -> Callable[[Path], Path]:
    """A builder of such a file, of what its header says."""

    def build(folder: Path) -> Path:
        path = folder / "model.safetensors"
        text = tensors if isinstance(tensors, bytes) else json.dumps(tensors).encode()
        path.write_bytes(header(text, data, length))
        return path

    return build


def index(weight_map: object, **files: bytes) -> Callable[[Path], Path]:
    """A builder of an index of shards, and of files beside it."""

    def build(folder: Path) -> Path:
        path = folder / "model.safetensors.index.json"
        whole = {"metadata": {}, "weight_map": weight_map}
        text = weight_map if isinstance(weight_map, bytes) else json.dumps(whole).encode()
        path.write_bytes(text)
        for file, content in files.items():
            (folder / file).write_bytes(content)
        return path

    return build


def _hostile_shard(folder: Path) -> Path:
    evil = P2 + dictionary(w=tensor(), x=system(f"touch {folder / 'canary'}")) + STOP
    archive(folder / "a.bin", evil)
    return index({"w": "a.bin"})(folder)


def _fifo(folder: Path) -> Path:
    os.mkfifo(folder / "a.safetensors")
    return index({"w": "a.safetensors"})(folder)


def _linked(folder: Path) -> Path:
    """As the cache of a model hub keeps them."""
    (folder / "blobs").mkdir()
    save_file({"w": torch.zeros(3)}, folder / "blobs" / "1234")
    (folder / "a.safetensors").symlink_to(folder / "blobs" / "1234")
    return index({"w": "a.safetensors"})(folder)


def _looped(folder: Path) -> Path:
    (folder / "a.safetensors").symlink_to(folder / "a.safetensors")
    return index({"w": "a.safetensors"})(folder)


DEEP = b"[" * 200_000 + b"]" * 200_000

WEIGHTS: dict[str, Callable[[Path], Path]] = {
    "header of 2 ** 62 bytes": safetensors({"w": _entry()}, length=1 << 62),
    "header longer than the file": safetensors({"w": _entry()}, length=10_000),
    "header of 90 MB that is missing": safetensors({"w": _entry()}, length=90_000_000),
    "header nested without end": safetensors(b'{"w":' + DEEP + b"}"),
    "header that is no JSON": safetensors(b"{" + b"x" * 50),
    "overlapping tensors": safetensors({"a": _entry(), "b": _entry()}),
    "tensor beyond the file": safetensors({"w": _entry((1 << 20,), 0, 1 << 22)}),
    "bytes that are no tensor's": safetensors({"w": _entry((1,), 0, 4)}),
    "shape of 2 ** 80": safetensors({"w": _entry((1 << 40, 1 << 40))}),
    "shape with a negative size": safetensors({"w": _entry((-3,))}),
    "end before its begin": safetensors({"w": _entry((3,), 12, 0)}),
    "unknown type": safetensors({"w": _entry(dtype="OBJECT")}),
    "metadata that is no text": safetensors({"__metadata__": {"a": [1]}, "w": _entry()}),
    "shard in another folder": index({"w": "../a.safetensors"}),
    "shard with an absolute name": index({"w": "/etc/passwd"}),
    "shard that is the index": index({"w": "model.safetensors.index.json"}),
    "shard that is a folder": index({"w": "."}),
    "shard that is a pipe": _fifo,
    "shard that is a link to itself": _looped,
    "shard with a NUL": index({"w": "a\0b"}),
    "shard with an endless name": index({"w": "x" * 5000}),
    "shard that runs code": _hostile_shard,
    "shard that lacks a tensor": index(
        {"v": "a.safetensors"}, **{"a.safetensors": header(json.dumps({"w": _entry()}).encode())}
    ),
    "index that names a key twice": index(
        b'{"weight_map": {"w": "a.safetensors", "w": "b.safetensors"}}'
    ),
    "index nested without end": index(b'{"weight_map": ' + DEEP + b"}"),
    "index of numbers": index({"w": 5}),
    "index of nothing": index({}),
    "index that is a list": index(b'{"weight_map": []}'),
}

HARMLESS_WEIGHTS: dict[str, Callable[[Path], Path]] = {"shard that is a link": _linked}


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def _npz(folder: Path, **members: bytes) -> Path:
    path = folder / "data.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in members.items():
            archive.writestr(f"{member}.npy", content)
    return path


def _written(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def _npy_header(text: str, data: bytes = b"") -> bytes:
    body = text.encode("latin1") + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(body)) + body + data


class _Touch:
    def __init__(self, folder: Path) -> None:
        self.command = f"touch {folder / 'canary'}"

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self.command,)


def _objects(folder: Path) -> bytes:
    return _npy(np.array([_Touch(folder)], dtype=object))


SHAPE = "{{'descr': '{}', 'fortran_order': False, 'shape': {}}}"
SAMPLES: dict[str, Callable[[Path], Path]] = {
    "npy of objects": lambda f: _written(f, "data.npy", _objects(f)),
    "npz of objects": lambda f: _npz(f, x=_objects(f)),
    "npy whose header is code": lambda f: _written(
        f, "data.npy", _npy_header(f"__import__('os').system('touch {f / 'canary'}')")
    ),
    "npy of 2 ** 60 numbers": lambda f: _written(
        f, "data.npy", _npy_header(SHAPE.format("<f4", f"({1 << 60},)"), bytes(8))
    ),
    "npy of a negative shape": lambda f: _written(
        f, "data.npy", _npy_header(SHAPE.format("<f4", "(-5, -5)"), bytes(100))
    ),
    "npy whose header has no end": lambda f: _written(
        f, "data.npy", _npy_header("(" * 5000 + ")" * 5000)
    ),
    "npz whose array has no end": lambda f: _npz(
        f, x=_npy_header(SHAPE.format("<f4", "(1000000, 5)"), bytes(8))
    ),
    "npz with a pickle inside": lambda f: _npz(f, x=pickle.dumps(_Touch(f))),
    "pt that runs code": lambda f: archive(
        f / "data.pt",
        P2 + dictionary(x=tensor(), y=system(f"touch {f / 'canary'}")) + STOP,
    ),
}
"""For ``--data``."""

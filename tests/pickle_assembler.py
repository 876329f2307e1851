"""An assembler of pickles: instructions that no pickler would write, in an archive of torch's."""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

P2, P4 = b"\x80\x02", b"\x80\x04"
MARK, REDUCE, NEWOBJ, BUILD, SETITEM, STOP = b"(", b"R", b"\x81", b"b", b"s", b"."
NONE, TRUE, FALSE, EMPTY, DICT, LIST = b"N", b"\x88", b"\x89", b")", b"}", b"]"
PERSID, TUPLE = b"Q", b"t"


def name(module: str, attribute: str) -> bytes:
    """GLOBAL."""
    return f"c{module}\n{attribute}\n".encode()


def text(value: str) -> bytes:
    """BINUNICODE."""
    data = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    """BININT, or LONG1 where that is too small."""
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    data = pickle.encode_long(value)
    return b"\x8a" + bytes([len(data)]) + data


def put(index: int) -> bytes:
    """BINPUT."""
    return b"q" + bytes([index])


def get(index: int) -> bytes:
    """BINGET."""
    return b"h" + bytes([index])


def call(function: bytes, *arguments: bytes) -> bytes:
    """REDUCE."""
    return function + MARK + b"".join(arguments) + TUPLE + REDUCE


def dictionary(**items: bytes) -> bytes:
    """EMPTY_DICT and SETITEM."""
    return DICT + b"".join(text(k) + v + SETITEM for k, v in items.items())


def storage(count: int = 3, kind: str = "FloatStorage", key: bytes = text("0")) -> bytes:
    """A reference to storage."""
    parts = (text("storage"), name("torch", kind), key, text("cpu"), number(count))
    return MARK + b"".join(parts) + TUPLE + PERSID


def numbers(*values: int) -> bytes:
    """A tuple."""
    return MARK + b"".join(number(v) for v in values) + TUPLE


HOOKS = call(name("collections", "OrderedDict"))
V2 = name("torch._utils", "_rebuild_tensor_v2")


def tensor(
    *,
    of: bytes | None = None,
    offset: int = 0,
    size: bytes | None = None,
    stride: bytes | None = None,
    meta: bytes = b"",
) -> bytes:
    """A call of ``_rebuild_tensor_v2``."""
    extent = (number(offset), size or numbers(3), stride or numbers(1))
    return call(V2, of or storage(), *extent, FALSE, HOOKS, meta)


FIRST = {
    "training": TRUE, "_parameters": DICT, "_buffers": DICT, "_modules": DICT,
    "_forward_hooks": DICT, "_backward_hooks": DICT,
}  # fmt: skip
"""What the state of every module has."""


def module(cls: bytes = name("torch.nn.modules.linear", "Identity"), **state: bytes) -> bytes:
    """A module of torch's with a state; tables that are not given are empty."""
    whole = FIRST | state
    return cls + EMPTY + NEWOBJ + dictionary(**{k: v for k, v in whole.items() if v}) + BUILD


def system(command: str) -> bytes:
    """A call of ``os.system``."""
    return call(name("posix", "system"), text(command))


RELU = name("torch.nn.functional", "relu")
LINEAR = name("torch.nn.modules.linear", "Linear")
SEQUENTIAL = name("torch.nn.modules.container", "Sequential")
ENCODE = name("_codecs", "encode")
DTYPE = name("numpy", "dtype")
SCALAR = name("numpy._core.multiarray", "scalar")


def weights(value: bytes) -> bytes:
    """A pickle of weights, and something beside them."""
    return P2 + dictionary(w=tensor(), x=value) + STOP


def archive(
    path: Path, data: bytes, records: Mapping[str, bytes] | None = None, root: str = "model"
) -> Path:
    """An archive as ``torch.save`` writes it, with this pickle."""
    every = {"data.pkl": data, "byteorder": b"little", "data/0": bytes(12), "version": b"3\n"}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as target:
        for record, content in (every | dict(records or {})).items():
            target.writestr(f"{root}/{record}", content)
    return path

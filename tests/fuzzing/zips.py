"""Damage to archives: records renamed, repeated, or changed inside with a right checksum."""

from __future__ import annotations

import io
import json
import random
import re
import struct
import warnings
import zipfile

from tests.fuzzing import pickles, raw, trees

_NAMES = ("../../x", "/etc/x", "a\\b", "", "x" * 300, "model/version", "model/data.pkl", "a/../b")
Records = list[tuple[str, bytes, int]]  # name, content, method


def _read(data: bytes) -> Records:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(e.filename, archive.read(e), e.compress_type) for e in archive.infolist()]


def _write(records: Records) -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w") as archive:
        warnings.simplefilter("ignore")  # a name twice: that is the point
        for name, content, method in records:
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return out.getvalue()


def archive(data: bytes, rng: random.Random) -> bytes:
    """A damaged archive."""
    if rng.random() < 0.15:
        return raw.damaged(data, rng)
    records = _read(data)
    for _ in range(rng.choice((1, 1, 2))):
        if records:
            _change(records, rng)
    whole = _write(records)
    return _forged(whole, rng) if rng.random() < 0.2 else whole


def _change(records: Records, rng: random.Random) -> None:
    i = _chosen(records, rng)
    name, content, method = records[i]
    action = rng.randrange(10)
    if action < 5:
        records[i] = (name, _inside(name, content, rng), method)
    elif action == 5:
        other = rng.choice((*_NAMES, rng.choice(records)[0], name.upper(), f"{name}x"))
        records[i] = (other, content, method)
    elif action == 6:
        records.insert(rng.randrange(len(records) + 1), (name, _inside(name, content, rng), method))
    elif action == 7:
        del records[i]
    elif action == 8:
        records[i] = (name, rng.choice(records)[1], method)
    else:
        bulk = rng.choice((content, b"", content * 50, bytes(1 << 22)))
        records[i] = (name, bulk, rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))


def _chosen(records: Records, rng: random.Random) -> int:
    """Rather a record that is read as a program than one of numbers."""
    telling = [
        i for i, (n, *_) in enumerate(records) if n.endswith((".pkl", ".json", ".py", ".npy"))
    ]
    return rng.choice(telling) if telling and rng.random() < 0.8 else rng.randrange(len(records))


def _inside(name: str, content: bytes, rng: random.Random) -> bytes:
    if name.endswith(".pkl") and content:
        return pickles.changed(content, rng)
    if name.endswith(".json") and content and rng.random() < 0.9:
        try:
            return json.dumps(trees.changed(json.loads(content), rng)).encode()
        except (ValueError, UnicodeError):
            return raw.damaged(content, rng)
    if name.endswith(".npy"):
        return npy(content, rng)
    if name.endswith(".py"):
        return source(content, rng)
    return raw.damaged(content, rng)


_SHAPES = (
    "()", "(-1,)", "(1 << 60,)", f"({1 << 62}, 4)", "(0, 4)", "[3]", "(2.5,)", "(True, 4)",
    "(" * 300, "(1,)*9", "(4, 4, 4, 4)",
)  # fmt: skip
_TYPES = (
    "'<f8'", "'|O'", "'>i4'", "'<U9'", "'<c8'", "'|V7'", "'<M8[s]'", "'<f2'", "[('a', '<f4')]",
    "'<f999'", "7", "'|b1'", "'<u8'", "'<f16'",
)  # fmt: skip
_HEADERS = (
    *((r"\(.*\)", shape) for shape in _SHAPES),
    *((r"'descr': [^,]*", f"'descr': {type_}") for type_ in _TYPES),
    *(("False", "True"), ("'shape'", "'shap'"), ("}", "}}"), ("'fortran_order': False, ", "")),
)


def npy(data: bytes, rng: random.Random) -> bytes:
    """An array whose header says something else."""
    if rng.random() < 0.3 or not data.startswith(b"\x93NUMPY\x01\x00"):
        return raw.damaged(data, rng)
    (length,) = struct.unpack("<H", data[8:10])
    text, rest = data[10 : 10 + length].decode("latin-1"), data[10 + length :]
    old, new = rng.choice(_HEADERS)
    text = re.sub(old, lambda _: new, text, count=1)
    head = text.encode("latin-1")
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", min(len(head), 0xFFFF)) + head + rest


_TOKENS = (
    b"9999999999999999999", b"-1", b"torch.from_file", b"import os", b"self", b"return",
    b"while True:",
    b"def __setstate__(self, x):\n    return None\n", b"uninitialized(Tensor)",
    b"annotate(int, 1)",
    b"ops.aten.zeros([100000, 100000])", b"\t", b"(", b")", b"1e400", b"None", b"forward", b"",
)  # fmt: skip


def source(data: bytes, rng: random.Random) -> bytes:
    """The code of a script, with other words."""
    words = re.split(rb"(\W+)", data)
    for _ in range(rng.randint(1, 4)):
        i = rng.randrange(len(words))
        words[i] = rng.choice((rng.choice(_TOKENS), rng.choice(words), words[i] * 2))
    return b"".join(words)


def _forged(data: bytes, rng: random.Random) -> bytes:
    """A size, an offset or a flag in one of the archive's own headers."""
    marks = [m.start() for m in re.finditer(rb"PK\x01\x02|PK\x03\x04|PK\x05\x06", data)]
    if not marks:
        return data
    at = rng.choice(marks) + rng.randrange(4, 46)
    width = rng.choice((2, 4))
    number = rng.choice(raw.SIZES) & ((1 << 8 * width) - 1)
    return data[:at] + number.to_bytes(width, "little") + data[at + width :]

"""Damage to protocol buffers, safetensors and Parquet by what their bytes mean."""

from __future__ import annotations

import json
import random
import struct

from tests.fuzzing import raw, trees

VARINTS = (0, 1, 2, 7, 127, 1 << 20, (1 << 31) - 1, 1 << 40, (1 << 63) - 1, (1 << 64) - 1)
Field = list[object]  # number, wire type, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError


def _as_varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def fields(data: bytes) -> list[Field] | None:
    """A message's fields; None: this is no message."""
    found: list[Field] = []
    at = 0
    try:
        while at < len(data):
            key, at = _varint(data, at)
            number, wire = key >> 3, key & 7
            if number == 0:
                return None
            if wire == 0:
                value: object
                value, at = _varint(data, at)
            elif wire in (1, 5):
                width = 8 if wire == 1 else 4
                value, at = data[at : at + width], at + width
            elif wire == 2:
                length, at = _varint(data, at)
                value, at = data[at : at + length], at + length
            else:
                return None
            if at > len(data):
                return None
            found.append([number, wire, value])
    except (IndexError, ValueError):
        return None
    return found


def _joined(found: list[Field]) -> bytes:
    out = bytearray()
    for number, wire, value in found:
        out += _as_varint(int(number) << 3 | int(wire))  # type: ignore[call-overload]
        if isinstance(value, int):
            out += _as_varint(value)
        else:
            assert isinstance(value, bytes)
            out += (_as_varint(len(value)) if wire == 2 else b"") + value
    return bytes(out)


def message(data: bytes, rng: random.Random, depth: int = 0) -> bytes:
    """A field of a message, or of one inside it, is another; the lengths around it stay right."""
    found = fields(data)
    if not found:
        return raw.damaged(data, rng)
    i = rng.randrange(len(found))
    value = found[i][2]
    if found[i][1] == 2 and isinstance(value, bytes) and depth < 9 and rng.random() < 0.8:
        found[i][2] = message(value, rng, depth + 1) if fields(value) else _text(value, rng)
        return _joined(found)
    action = rng.randrange(6)
    if action < 3 and isinstance(value, int):
        found[i][2] = rng.choice(VARINTS)
    elif action < 3:
        found[i][0] = rng.choice((int(found[i][0]) % 20 + 1, rng.randint(1, 30)))  # type: ignore[call-overload]
    elif action == 3:
        del found[i]
    elif action == 4:
        found.insert(rng.randrange(len(found) + 1), list(found[i]))
    else:
        j = rng.randrange(len(found))
        found[i][1:] = found[j][1:]
    return _joined(found)


_WORDS = (
    b"", b"x", b"y", b"Loop", b"If", b"Conv", b"Reshape", b"Scan", b"NoSuchOp", b"\xff\xfe",
    b"com.evil",    b"../../x", b"axis", b"Tile", b"Cast", b"GRU", b"Gather", b"ConstantOfShape",
)  # fmt: skip


def _text(value: bytes, rng: random.Random) -> bytes:
    return rng.choice((rng.choice(_WORDS), raw.damaged(value, rng), value * 2))


def onnx_file(data: bytes, rng: random.Random) -> bytes:
    """An ONNX file."""
    if rng.random() < 0.15:
        return raw.damaged(data, rng)
    for _ in range(rng.randint(1, 3)):
        data = message(data, rng)
    return data


def safetensors(data: bytes, rng: random.Random) -> bytes:
    """A header that says something else, or a wrong length of it."""
    if rng.random() < 0.2:
        return raw.damaged(data, rng)
    (length,) = struct.unpack("<Q", data[:8])
    header, rest = json.loads(data[8 : 8 + length]), data[8 + length :]
    text = json.dumps(trees.changed(header, rng)).encode()
    size = len(text) if rng.random() < 0.8 else rng.choice(raw.SIZES)
    return struct.pack("<Q", size) + text + rest


def parquet(data: bytes, rng: random.Random) -> bytes:
    """The footer or a page is damaged, the frame around it is whole."""
    if rng.random() < 0.2:
        return raw.damaged(data, rng)
    (length,) = struct.unpack("<I", data[-8:-4])
    pages, footer = data[4 : -8 - length], data[-8 - length : -8]
    if rng.random() < 0.7:
        footer = rng.choice(raw.KINDS)(footer, rng)
    else:
        pages = rng.choice((raw.flipped, raw.forged, raw.blanked))(pages, rng)
    size = len(footer) if rng.random() < 0.9 else rng.choice(raw.SIZES) & 0xFFFFFFFF
    return b"PAR1" + pages + footer + struct.pack("<I", size) + b"PAR1"


_CELLS = (
    "nan", "inf", "1e999", "9" * 400, "", " ", '"', '""', '"a', "0x1F", "1,5", "\0", "\ufeff", "é",
    "-", "True", "None", "1_000", "x" * 3000, "\r", "'", ";", "\t", "=1+1", "1e-999", "2020-01-01",
)  # fmt: skip


def csv_text(data: bytes, rng: random.Random) -> bytes:
    """Cells, rows and separators of a table are others."""
    if rng.random() < 0.2:
        return raw.damaged(data, rng)
    rows = [line.split(",") for line in data.decode().splitlines()]
    for _ in range(rng.choice((1, 1, 2))):
        i = rng.choice((0, rng.randrange(len(rows))))
        j = rng.randrange(max(1, len(rows[i])))
        action = rng.randrange(6)
        if action < 3 and rows[i]:
            rows[i][j] = rng.choice(_CELLS)
        elif action == 3:
            rows[i] = rng.choice((rows[i][:j], rows[i] * 40, [], [""]))
        elif action == 4:
            rows.insert(i, rng.choice((["#"], rows[0], ["a"], ['"unclosed'])))
        else:
            rows = [row[:j] + row[j + 1 :] for row in rows]
    between, end = rng.choice(((",", "\n"), (",", "\n"), (";", "\r\n"), ("\t", "\n"), (",", "\r")))
    joined = end.join(between.join(row) for row in rows)
    return joined.encode(rng.choice(("utf-8", "utf-8", "utf-8", "utf-16", "utf-8-sig")), "replace")

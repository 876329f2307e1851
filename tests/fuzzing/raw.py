"""Damage that knows nothing of the format: bits, pieces, and numbers that look like lengths."""

from __future__ import annotations

import random
import struct

SIZES = (0, 1, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1, (1 << 64) - 1)
_MOST = 1 << 20  # bytes that a damaged file has: chunks are repeated, not without end


def damaged(data: bytes, rng: random.Random) -> bytes:
    """One to three changes, each of a kind that is drawn."""
    for _ in range(rng.randint(1, 3)):
        data = rng.choice(KINDS)(data, rng)
    return data[:_MOST]


def flipped(data: bytes, rng: random.Random) -> bytes:
    """One to eight bits turned over."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 8) if out else 0):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def truncated(data: bytes, rng: random.Random) -> bytes:
    """The end is missing; now and then the beginning."""
    at = rng.randrange(len(data) + 1)
    return data[at:] if rng.random() < 0.1 else data[:at]


def spliced(data: bytes, rng: random.Random) -> bytes:
    """A piece of the file over, or into, another place of it."""
    one, length = rng.randrange(len(data) + 1), rng.choice((1, 8, 64, 512, 4096))
    two = rng.randrange(len(data) + 1)
    return data[:one] + data[two : two + length] + data[one + rng.choice((0, length)) :]


def repeated(data: bytes, rng: random.Random) -> bytes:
    """A piece two to two hundred times."""
    at, length = rng.randrange(len(data) + 1), rng.choice((1, 16, 256, 1024))
    piece = data[at : at + length]
    return data[:at] + piece * rng.choice((2, 5, 200)) + data[at + length :]


def forged(data: bytes, rng: random.Random) -> bytes:
    """Some of the bytes become a number, small, large or absurd."""
    form = rng.choice(("<B", "<H", "<I", "<Q", ">H", ">I", ">Q"))
    width = struct.calcsize(form)
    if len(data) < width:
        return data
    place = rng.choice((rng.randrange(len(data)), rng.randrange(min(len(data), 96))))
    at = min(rng.choice((place, len(data) - 1 - place)), len(data) - width)
    number = rng.choice(SIZES) & ((1 << 8 * width) - 1)
    return data[:at] + struct.pack(form, number) + data[at + width :]


def removed(data: bytes, rng: random.Random) -> bytes:
    """A piece is missing."""
    at = rng.randrange(len(data) + 1)
    return data[:at] + data[at + rng.choice((1, 4, 32, 300)) :]


def blanked(data: bytes, rng: random.Random) -> bytes:
    """A piece is all zeros, or all ones."""
    at, length = rng.randrange(len(data) + 1), rng.choice((4, 64, 1024))
    piece = data[at : at + length]
    return data[:at] + rng.choice((b"\0", b"\xff")) * len(piece) + data[at + len(piece) :]


KINDS = (flipped, truncated, spliced, repeated, forged, removed, blanked)

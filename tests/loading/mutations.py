"""Seeded damage to files."""

from __future__ import annotations

import random

PIECES = (b'"', b"\n", b",", b"\0", b"\xff", b";;", b"\r", b"\x80\x80")


def mutated(whole: bytes, seed: int) -> bytes:
    """Some bytes changed, taken out, put in, or everything after a place cut off."""
    rng = random.Random(seed)
    data = bytearray(whole)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data)) if data else 0
        action = rng.randrange(8)
        if action < 4 and data:
            data[at] = rng.randrange(256)
        elif action < 5:
            del data[at : at + rng.randint(1, 20)]
        elif action < 7:
            data[at:at] = rng.choice(PIECES)
        else:
            data = data[: at + 1]
    return bytes(data)

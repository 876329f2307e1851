"""Damage to pickles: opcodes put in, taken out, repeated, and numbers and names that are others."""

from __future__ import annotations

import pickletools
import random
import struct

from tests.fuzzing import raw

NAMES = (
    b"os\nsystem\n", b"builtins\neval\n", b"torch\nload\n", b"torch\nzeros\n",
    b"builtins\ngetattr\n",
    b"collections\nOrderedDict\n", b"torch._utils\n_rebuild_tensor_v2\n", b"torch\nFloatStorage\n",
    b"torch.nn.modules.linear\nLinear\n", b"numpy\nndarray\n",
    b"torch._utils\n_rebuild_parameter\n",
)  # fmt: skip
_BARE = b"()]}tRbuseaN\x88\x890120.l" + bytes((0x81, 0x85, 0x86, 0x87, 0x8F, 0x90, 0x93, 0x94))
_TYPED = {b"K": 1, b"M": 2, b"J": 4, b"h": 1, b"q": 1, b"r": 4, b"j": 4}  # opcode: bytes behind it
_INSERTED = (
    *(bytes((b,)) for b in _BARE),
    *(b"c" + name for name in NAMES),
    b"K\xff", b"J\xff\xff\xff\x7f", b"J\x00\x00\x00\x80", b"h\x00", b"h\xff", b"q\x00", b"Q",
    b"X\x03\x00\x00\x00abc", b"X\xff\xff\xff\x7f", b"\x8a\xff" + b"\xff" * 255, b"\x80\x02",
    b"\x8b\xff\xff\xff\x7f", b"G\x7f\xf8\x00\x00\x00\x00\x00\x00", b"(" * 500,
    b"]" * 500 + b"a" * 499, b"I99999999999999999999\n", b"Pname\n", b"2" * 300,
    b"\x95\xff\xff\xff\xff\xff\xff\xff\x7f",
)  # fmt: skip


def _cuts(data: bytes) -> list[int]:
    """Where each opcode of the first pickle begins, and its end."""
    places = []
    try:
        for _, _, at in pickletools.genops(data):
            places.append(int(at or 0))
    except Exception:  # damaged already: what was read until there
        pass
    return [*places, len(data)] if places else [0, len(data)]


def changed(data: bytes, rng: random.Random) -> bytes:
    """A pickle with one or two opcodes that it should not have, or lacks."""
    for _ in range(rng.choice((1, 1, 2))):
        cuts = _cuts(data)
        i = rng.randrange(max(1, len(cuts) - 1))
        begin, end = cuts[i], cuts[min(i + 1, len(cuts) - 1)]
        opcode = data[begin:end]
        action = rng.randrange(7)
        if action < 2:
            data = data[:begin] + rng.choice(_INSERTED) + data[begin:]
        elif action == 2:
            data = data[:begin] + data[end:]
        elif action == 3:
            data = data[:begin] + opcode * rng.choice((2, 3, 50)) + data[end:]
        elif action == 4:
            j = rng.randrange(len(cuts))
            last = cuts[min(j + 1, len(cuts) - 1)]
            data = data[:begin] + data[cuts[j] : last] + data[end:]
        else:
            data = data[:begin] + _other(opcode, rng) + data[end:]
    return data


def _other(opcode: bytes, rng: random.Random) -> bytes:
    """The same opcode of another argument."""
    head = opcode[:1]
    if head in _TYPED:
        number = rng.choice((0, 1, 2, 127, 255, rng.randrange(256)))
        wide = rng.random() < 0.3 and head in b"KMJ"
        if wide:
            return b"J" + struct.pack("<i", rng.choice((-1, -(1 << 31), (1 << 31) - 1, 1 << 20)))
        return head + number.to_bytes(_TYPED[head], "little")
    if head == b"c":
        return b"c" + rng.choice(NAMES)
    if head == b"X":
        text = rng.choice((b"", b"0", b"../../x", b"weight", b"_modules", b"__class__", b"forward"))
        return b"X" + struct.pack("<I", len(text)) + text
    return raw.flipped(opcode, rng)


def legacy(data: bytes, rng: random.Random) -> bytes:
    """A file of several pickles and numbers behind them, as torch.save wrote it at first."""
    if rng.random() < 0.2:
        return raw.damaged(data, rng)
    begins, at = [0], 0
    for _ in range(4):  # magic number, protocol, system, the object, keys of the storages
        try:
            *_, (_, _, stop) = pickletools.genops(data[at:])
        except Exception:  # of damaged bytes genops raises what its readers do; they stay whole
            break
        at += int(stop or 0) + 1
        begins.append(at)
    i = rng.choice((3, 3, 3, 4, 0, 1, 2)) % max(1, len(begins) - 1)
    end = begins[i + 1] if i + 1 < len(begins) else len(data)
    return data[: begins[i]] + changed(data[begins[i] : end], rng) + data[end:]

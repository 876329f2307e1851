"""Tables, samples, settings and baselines that claim too much, or are made to be misread. Each
builder writes one file."""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.hostile_weights import SAMPLES as ARRAYS
from tests.hostile_weights import header

Builder = Callable[[Path], Path]


def written(name: str, make: Callable[[], bytes] | bytes | str) -> Builder:
    """A file of this content."""

    def build(folder: Path) -> Path:
        content = make() if callable(make) else make
        path = folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return build


def _rows(row: str, head: str = "a,b,c,d,e,y") -> str:
    return "\n".join([head, *["1,2,3,4,5,0"] * 3, row, "5,4,3,2,1,1", ""])


TABLES: dict[str, Builder] = {
    "csv: a quote that never closes": written("d.csv", _rows('1,2,3,4,"5,0')),
    "csv: a cell of 3 MB": written("d.csv", _rows("1,2,3,4," + "9" * 3_000_000 + ",0")),
    "csv: a million columns": written("d.csv", ",".join(["1"] * 1_000_000) + "\n"),
    "csv: NUL bytes": written("d.csv", _rows("1,2,3\0,4,5,0")),
    "csv: a formula": written("d.csv", _rows("=cmd|' /C calc'!A0,2,3,4,5,0")),
    "csv: rows of other lengths": written("d.csv", _rows("1,2,3")),
    "csv: text in the middle": written("d.csv", _rows("1,2,three,4,5,0")),
    "csv: half of UTF-16": written("d.csv", _rows("1,2,3,4,5,0").encode("utf-16")[:-1] + b"\xd8"),
    "csv: bytes of no encoding": written("d.csv", _rows("1,2,3,4,5,").encode() + b"\xff\xfe\xfa\n"),
    "csv: a path in place of numbers": written("d.csv", _rows("/etc/passwd,2,3,4,5,0")),
    "csv: only a header": written("d.csv", "a,b,c,d,e,y\n"),
}


def _parquet(**options: object) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: np.arange(30, dtype="f4") for name in "abcde"}
    out = io.BytesIO()
    pq.write_table(pa.table({**columns, "y": np.arange(30) % 2}), out, **options)
    return out.getvalue()


def _footer(change: Callable[[bytes], bytes]) -> Callable[[], bytes]:
    def make() -> bytes:
        whole = _parquet()
        (length,) = struct.unpack("<I", whole[-8:-4])
        after = change(whole[-8 - length : -8])
        return whole[: -8 - length] + after + struct.pack("<I", len(after)) + b"PAR1"

    return make


def _odd_column(make: Callable[[object], object]) -> Callable[[], bytes]:
    def build() -> bytes:
        import pyarrow as pa
        import pyarrow.parquet as pq

        out = io.BytesIO()
        pq.write_table(pa.table({"x": make(pa)}), out)  # type: ignore[dict-item]
        return out.getvalue()

    return build


def _claiming(whole: bytes) -> bytes:
    """30 rows in thrift's zigzag numbers become 2^62."""
    many = (1 << 63) - 2
    varint = bytearray()
    while many > 127:
        varint.append(many & 127 | 128)
        many >>= 7
    varint.append(many)
    assert b"\x16\x3c" in whole
    return whole.replace(b"\x16\x3c", b"\x16" + bytes(varint))


PARQUET: dict[str, Builder] = {
    "parquet: a footer of 4 GB": written(
        "d.parquet", lambda: _parquet()[:-8] + b"\xff\xff\xff\xffPAR1"
    ),
    "parquet: a footer of zeros": written("d.parquet", _footer(lambda d: bytes(len(d)))),
    "parquet: half a footer": written("d.parquet", _footer(lambda d: d[: len(d) // 2])),
    "parquet: 2^62 rows": written("d.parquet", _footer(_claiming)),
    "parquet: encrypted": written("d.parquet", lambda: _parquet()[:-4] + b"PARE"),
    "parquet: pages of noise": written(
        "d.parquet", lambda: b"PAR1" + b"\xaa" * 60 + _parquet(compression="none")[64:]
    ),
    "parquet: texts": written("d.parquet", _odd_column(lambda pa: ["a", "b"])),
    "parquet: lists of other lengths": written("d.parquet", _odd_column(lambda pa: [[1.0], []])),
    "parquet: nested 60 deep": written("d.parquet", _odd_column(lambda pa: _nested(60))),
    "parquet: only its mark": written("d.parquet", b"PAR1PAR1PAR1"),
}


def _nested(depth: int) -> list[object]:
    value: object = 1.0
    for _ in range(depth):
        value = [value]
    return [value, value]


def _tensor(shape: list[int], end: int, dtype: str = "F32") -> bytes:
    return json.dumps({"x": {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}}).encode()


def _array_bomb() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.zeros((1, 5), np.float32))
    text = stream.getvalue().replace(b"(1, 5), }   ", b"(40000000, 5), }", 1)[:128]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", text + bytes(100_000_000))
    return out.getvalue()


OTHERS: dict[str, Builder] = {
    "safetensors of samples: 10^12 numbers": written(
        "d.safetensors", header(_tensor([10**6, 10**6], 4 * 10**12))
    ),
    "safetensors of samples: a header of 2^60": written(
        "d.safetensors", header(_tensor([1, 3], 12), length=1 << 60)
    ),
    "safetensors of samples: past the end": written("d.safetensors", header(_tensor([4, 5], 80))),
    "npz: 800 MB claimed, 100 MB packed": written("d.npz", _array_bomb),
    "npy: a structure": written(
        "d.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", 70)
        + b"{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (3,), }".ljust(69) + b"\n"
        + bytes(24),
    ),
    "jsonl: objects": written("d.jsonl", '{"x": [1, 2, 3, 4, 5]}\n' * 5),
    "html": written("d.csv", "<html><script>alert(1)</script></html>\n"),
}  # fmt: skip

SAMPLES = TABLES | PARQUET | OTHERS
"""For ``--data``, with a model that takes five numbers; each is refused."""

SETTINGS: dict[str, Builder] = {
    f"settings: {name}": written("gradscope.toml", text)
    for name, text in {
        "nested 5000 deep": "data = " + "[" * 5000,
        "a number of 5000 digits": "[rules]\nGS101.total = " + "9" * 5000,
        "a key of 100,000 parts": ".".join(["a"] * 100_000) + " = 1",
        "2 MB": "# " + "x" * (2 << 20),
        "a code to run": 'loss = "os:system"\nrun = "touch canary"',
        "no UTF-8": b"data = '\xff\xfe'",
        "a table in place of a path": "[data]\nx = 1",
        "a NUL": "data = 'a'\0",
    }.items()
}


def _baseline(**changes: object) -> bytes:
    entry = {
        "fingerprint": "0" * 16, "code": "GS101", "name": "n", "where": "w", "severity": "error",
        "value": 1.0, **changes,
    }  # fmt: skip
    return json.dumps({"schema": "gradscope.baseline/1", "models": {"m": [entry]}}).encode()


BASELINES: dict[str, Builder] = {
    f"baseline: {name}": written("baseline.json", text)
    for name, text in {
        "nested 100,000 deep": b'{"schema": ' + b"[" * 100_000,
        "NaN": _baseline(value=float("nan")),
        "a number of 400 digits": _baseline(value=10**400),
        "a number of 5000 digits": _baseline().replace(b"1.0", b"1" * 5000),
        "a value that is text": _baseline(value="__import__('os')"),
        "more than it should have": _baseline(more=1),
        "17 MB": b" " * (17 << 20),
        "no UTF-8": b"\xff" + _baseline(),
        "an unknown severity": _baseline(severity="fatal" * 500),
        "another schema": _baseline().replace(b"baseline/1", b"baseline/9"),
        "a list": b"[]",
    }.items()
}


def _linked(folder: Path) -> Path:
    os.symlink("baseline.json", folder / "baseline.json")
    return folder / "baseline.json"


def _piped(folder: Path) -> Path:
    os.mkfifo(folder / "baseline.json")
    return folder / "baseline.json"


BASELINES["baseline: a link to itself"] = _linked
BASELINES["baseline: a pipe"] = _piped

DATA = ARRAYS | SAMPLES

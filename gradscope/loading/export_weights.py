"""The tensors in an exported program's archive: raw numbers, described in JSON."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from gradscope.loading.export_names import check_path
from gradscope.loading.pickle_scan import Unsafe

_FILE = re.compile(r"^(weight|tensor)_\d{1,7}$")
_BYTES = {
    1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 2, 7: 4, 8: 8, 9: 4, 10: 8, 11: 16, 12: 1, 13: 2, 28: 2,
    29: 1, 30: 1, 31: 1, 32: 1, 33: 1, 34: 4, 35: 8,
}  # fmt: skip
_STRIDED = 7
_EXPANDABLE = 1 << 20
_MAX_INT = 1 << 40


def read_config(value: Any, sizes: Mapping[str, int], folder: str) -> dict[str, Any]:
    """Descriptions of tensors, written anew, all on the CPU.

    Args:
        value: the JSON.
        sizes: bytes of the archive's records.
        folder: where the records of these tensors lie.

    Raises:
        Unsafe: a tensor is more than numbers, or larger than its record.
    """
    held = value.get("config") if isinstance(value, dict) else None
    if not isinstance(held, dict):
        raise Unsafe("the list of its weights cannot be read")
    return {"config": {name: _payload(name, v, sizes, folder) for name, v in held.items()}}


def _payload(name: str, value: Any, sizes: Mapping[str, int], folder: str) -> dict[str, Any]:
    check_path(name, "a weight")
    meta = value.get("tensor_meta") if isinstance(value, dict) else None
    if not isinstance(meta, dict):
        raise Unsafe(f"'{name}' is no tensor")
    if value.get("use_pickle") is not False:
        raise Unsafe(f"'{name}' is a pickle, not plain numbers")
    record = value.get("path_name")
    if not isinstance(record, str) or not _FILE.match(record) or folder + record not in sizes:
        raise Unsafe(f"'{name}' lies in an unknown record")
    if not isinstance(value.get("is_param"), bool):
        raise Unsafe(f"'{name}' is neither parameter nor buffer")
    return {
        "path_name": record,
        "is_param": value["is_param"],
        "use_pickle": False,
        "tensor_meta": _meta(name, meta, sizes[folder + record]),
    }


def _meta(name: str, meta: Mapping[str, Any], held: int) -> dict[str, Any]:
    size, stride = _numbers(name, meta.get("sizes")), _numbers(name, meta.get("strides"))
    offset = _numbers(name, [meta.get("storage_offset")])[0]
    dtype = meta.get("dtype")
    width = _BYTES.get(dtype) if type(dtype) is int else None
    known = width is not None and meta.get("layout") == _STRIDED and len(size) == len(stride)
    if not known or type(meta.get("requires_grad")) is not bool:
        raise Unsafe(f"'{name}' is of an unknown type or layout")
    assert width is not None
    numel = math.prod(size)
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if numel and ((last + 1) * width > held or numel * width > max(held, _EXPANDABLE)):
        raise Unsafe(f"'{name}' claims {numel} elements of a record of {held} bytes")
    return {
        "dtype": dtype,
        "sizes": [{"as_int": n} for n in size],
        "strides": [{"as_int": n} for n in stride],
        "storage_offset": {"as_int": offset},
        "requires_grad": meta["requires_grad"],
        "layout": _STRIDED,
        "device": {"type": "cpu", "index": None},
    }


def _numbers(name: str, values: Any) -> list[int]:
    if not isinstance(values, list) or len(values) > 64:
        raise Unsafe(f"'{name}' has sizes of an unknown form")
    found = [v.get("as_int") if isinstance(v, dict) else None for v in values]
    if not all(type(n) is int and 0 <= n <= _MAX_INT for n in found):
        raise Unsafe(f"'{name}' has absurd sizes")
    return [n for n in found if n is not None]

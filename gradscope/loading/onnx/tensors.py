"""TensorProto to torch, with sizes checked against the bytes that are there."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto

from gradscope.errors import LoadError

# Types that torch has no arithmetic for are held in a wider one of the same values.
DTYPES: dict[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16,
    TensorProto.INT8: torch.int8,
    TensorProto.INT16: torch.int16,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.UINT8: torch.uint8,
    TensorProto.UINT16: torch.int64,
    TensorProto.UINT32: torch.int64,
    TensorProto.UINT64: torch.int64,
    TensorProto.INT4: torch.int8,
    TensorProto.UINT4: torch.uint8,
    TensorProto.BOOL: torch.bool,
    TensorProto.COMPLEX64: torch.complex64,
    TensorProto.COMPLEX128: torch.complex128,
}
FLOATS = frozenset(
    (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
)
_AGAIN = "Export or copy it again."


def type_name(code: int) -> str:
    """``FLOAT``, ``INT64``; a number that ONNX does not know as it stands."""
    try:
        return str(TensorProto.DataType.Name(code))
    except ValueError:
        return f"type {code}"


def to_torch(proto: TensorProto, where: str) -> torch.Tensor:
    """The values of a tensor that is held inside the model file.

    Raises:
        LoadError: its type is not served, or its size and its bytes disagree.
    """
    dtype = DTYPES.get(proto.data_type)
    if dtype is None:
        what = f"tensor '{proto.name}' is of {type_name(proto.data_type)}, which has no gradient"
        raise LoadError(what, where=where, hint="Export the model with float weights.")
    shape = tuple(int(d) for d in proto.dims)
    if any(d < 0 for d in shape):
        raise LoadError(f"tensor '{proto.name}' has the shape {shape}", where=where, hint=_AGAIN)
    held, wanted = _held(proto), math.prod(shape)
    if held is not None and held != wanted:
        what = f"tensor '{proto.name}' has the shape {shape} but {held} elements"
        raise LoadError(what, where=where, hint=_AGAIN)
    try:
        array = onnx.numpy_helper.to_array(proto)
    except (ValueError, TypeError) as error:
        raise LoadError(f"tensor '{proto.name}': {error}", where=where, hint=_AGAIN) from error
    return from_array(array).to(dtype)


def from_array(array: np.ndarray[Any, Any]) -> torch.Tensor:
    """A tensor of its own memory; types unknown to torch widened as in :data:`DTYPES`."""
    name = array.dtype.name
    if name == "bfloat16":
        return torch.from_numpy(array.astype(np.float32)).to(torch.bfloat16)
    if name in ("int4", "uint4"):
        return torch.from_numpy(array.astype(np.int8 if name == "int4" else np.uint8))
    if array.dtype in (np.uint16, np.uint32, np.uint64):
        return torch.from_numpy(array.astype(np.int64))
    return torch.from_numpy(np.array(array, order="C"))


def _held(proto: TensorProto) -> int | None:
    """Elements that the fields of a tensor hold; None where the type packs several in one."""
    if proto.data_type in (TensorProto.INT4, TensorProto.UINT4):
        return None
    if proto.HasField("raw_data"):
        width = onnx.helper.tensor_dtype_to_np_dtype(proto.data_type).itemsize
        count, rest = divmod(len(proto.raw_data), width)
        return count if not rest else -1
    field = onnx.helper.tensor_dtype_to_field(proto.data_type)
    count = len(getattr(proto, field))
    pairs = proto.data_type in (TensorProto.COMPLEX64, TensorProto.COMPLEX128)
    return count // 2 if pairs else count

"""onnxruntime, as the reference that outputs are compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime
import torch
from onnx import ModelProto
from onnxruntime.capi import onnxruntime_pybind11_state

from gradscope.loading.onnx.tensors import from_array

VERSION = f"onnxruntime {onnxruntime.__version__}"

# What onnxruntime raises: its own exceptions have no common base but Exception.
_OWN: tuple[type[Exception], ...] = tuple(
    kind
    for kind in vars(onnxruntime_pybind11_state).values()
    if isinstance(kind, type) and issubclass(kind, Exception)
)
ERRORS: tuple[type[Exception], ...] = (
    *_OWN,
    RuntimeError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
)
_NUMPY = {
    "tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16,
    "tensor(int8)": np.int8, "tensor(int16)": np.int16, "tensor(int32)": np.int32,
    "tensor(int64)": np.int64, "tensor(uint8)": np.uint8, "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32, "tensor(uint64)": np.uint64, "tensor(bool)": np.bool_,
}  # fmt: skip


class Session:
    """One thread, deterministic, no operators of anybody's own, silent.

    Args:
        model: the whole model, its external data read in.
        optimise: False runs the nodes as they stand.

    Raises:
        RuntimeError and others of :data:`ERRORS`: onnxruntime cannot run the model.
    """

    def __init__(self, model: ModelProto, *, optimise: bool = True) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.use_deterministic_compute = True
        options.log_severity_level = 4
        if not optimise:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._types = {i.name: i.type for i in self._session.get_inputs()}
        self.outputs = [o.name for o in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Outputs by name, as torch tensors (or lists of them)."""
        feeds = {n: _to_runtime(v, self._types.get(n, "")) for n, v in inputs.items()}
        results = self._session.run(None, feeds)
        return {n: _to_torch(r) for n, r in zip(self.outputs, results, strict=True)}


def _to_runtime(value: Any, kind: str) -> Any:
    if isinstance(value, list):
        return [_to_runtime(v, kind) for v in value]
    if not isinstance(value, torch.Tensor):
        return value
    value = value.detach().cpu()
    array = value.float().numpy() if value.dtype is torch.bfloat16 else value.numpy()
    return array.astype(_NUMPY[kind]) if kind in _NUMPY else array


def _to_torch(value: Any) -> Any:
    if isinstance(value, list):
        return [_to_torch(v) for v in value]
    return from_array(value) if isinstance(value, np.ndarray) else value

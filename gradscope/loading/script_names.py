"""Which operations a script may call.

TorchScript calls operations as ``torch.NAME``, ``ops.NAMESPACE.NAME`` and ``value.NAME``; a method
that the archive does not define is looked up among the operations as well, whatever the value is
(``"path".from_file(True, 8)``). So what is forbidden is forbidden as the name of anything.
"""

from __future__ import annotations

import re
from functools import cache

import torch

BUILTINS = frozenset({
    "abs", "all", "annotate", "any", "bool", "chr", "complex", "dict", "divmod", "enumerate",
    "float", "fork", "getattr", "hasattr", "hash", "hex", "int", "isinstance", "len", "list",
    "max", "min", "oct", "bin", "ord", "pow", "print", "range", "rangelist", "reversed", "round",
    "set", "sorted", "str", "sum", "tuple", "type", "unchecked_cast", "uninitialized", "zip",
})  # fmt: skip
PRIMITIVES = frozenset({
    "abs", "ConstantChunk", "data", "device", "dtype", "EnumName", "EnumValue", "grad", "H", "id",
    "IfThenElse", "imag", "index", "is_cpu", "is_cuda", "is_maia", "is_meta", "is_mkldnn",
    "is_mps", "is_mtia", "is_nested", "is_quantized", "is_sparse", "is_sparse_csr", "is_vulkan",
    "is_xla", "is_xpu", "isinstance", "itemsize", "layout", "max", "mH", "min",
    "ModuleContainerIndex", "mT", "name", "nbytes", "ndim", "NumToTensor", "RaiseException",
    "rangelist", "real", "requires_grad", "shape", "StringIndex", "T", "tolist", "TupleIndex",
    "TupleUnpack", "type", "unchecked_cast", "unchecked_unwrap_optional", "Uninitialized",
})  # fmt: skip
_FORBIDDEN = re.compile(
    r"""^( save | from_file | load | _?set_data | _print | pin_memory | _pin_memory | record_stream
      | _test_\w* | _foobar | _cufft_\w* | _cslt_\w* | _nested_view\w* | _sparse_\w*(unsafe|semi)\w*
      | _convert_weight\w* | _dyn_quant\w* | _fused_(sgd|adam|adamw|adagrad)_? | _amp_\w*
      | _copy_from\w* | _lazy_clone | _fw_primal\w* | _(add|remove)_batch_dim | _make_dep_token
      | rpc_\w* | PythonOp | IgnoredPythonOp | __(class|dict|globals|builtins|import)__ )$""",
    re.VERBOSE,
)
_FILES = {"filename", "file_name", "file", "shm_name"}


@cache
def is_forbidden(name: str) -> bool:
    """Whether an operation of this name leaves the model: files, printing, raw memory."""
    if _FORBIDDEN.match(name):
        return True
    schemas = torch._C._jit_get_schemas_for_operator(f"aten::{name}")
    return any(a.name in _FILES for s in schemas for a in s.arguments)


def unknown_operation(namespace: str, name: str) -> str | None:
    """Why ``ops.namespace.name`` is refused; None if it may be called."""
    full = f"ops.{namespace}.{name}"
    if namespace in ("quantized", "_quantized"):
        return f"it is quantized (calls {full}): a quantized model has no gradients"
    if "mkldnn" in name.lower() or namespace in ("mkldnn", "mkldnn_prepacked", "onednn"):
        return f"it was optimised for inference with oneDNN (calls {full}), which has no gradients"
    if namespace == "prim":
        known = name in PRIMITIVES
    else:
        known = namespace == "aten" and not is_forbidden(name)
    return None if known else f"it calls {full}, which is not one of PyTorch's own calculations"

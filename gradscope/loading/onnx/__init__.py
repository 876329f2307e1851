"""ONNX models: read, lowered onto torch, compared with onnxruntime. See README.md.

onnx and onnxruntime are imported here and nowhere else, and only when an ONNX file is opened.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradscope.model import LoadedModel


def open_onnx(path: str, file: Path) -> LoadedModel:
    """An ONNX file as a model whose gradients can be measured.

    Raises:
        LoadError: broken, unsafe, or with nodes that have no gradient; names them.
    """
    from gradscope.loading.onnx.opening import open_model

    return open_model(path, file)

"""ONNX models: read, lowered onto torch, compared with onnxruntime. See README.md.

onnx and onnxruntime are imported here and nowhere else, and only when an ONNX file is opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from gradscope.loading.rows import Source
    from gradscope.model import Edit, LoadedModel


def open_onnx(path: str, file: Path) -> LoadedModel:
    """An ONNX file as a model whose gradients can be measured.

    Raises:
        LoadError: broken, unsafe, or with nodes that have no gradient; names them.
    """
    from gradscope.loading.onnx.opening import open_model

    return open_model(path, file)


def save_onnx(
    original: Path, target: Path, changed: Mapping[str, torch.Tensor], edit: Edit
) -> None:
    """A copy of an ONNX file with other values for some of its weights, and with products and
    activations as ``edit`` says.

    Raises:
        LoadError: a weight cannot be set in the file.
    """
    from gradscope.loading.onnx.saving import save_onnx as save

    save(original, target, changed, edit)


def external_files(file: Path) -> set[str]:
    """Names of the files that a model keeps tensors in, relative to its folder."""
    from gradscope.loading.onnx.external import external_files as names

    return names(file)


def open_test_data(folder: Path) -> Source:
    """Samples in ONNX's own form, ``test_data_set_N/input_K.pb``.

    Raises:
        DataError: broken, or of inputs that cannot be joined.
    """
    from gradscope.loading.onnx.data_sets import open_data_sets

    return open_data_sets(folder)

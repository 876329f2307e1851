"""What saving asks of ONNX: a copy of a file with other weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from gradscope.loading.onnx.graph import read_graph
from gradscope.loading.onnx.proto import read_proto
from gradscope.loading.onnx.weights import find_weights
from gradscope.loading.onnx.writing import Changes, write_patched


def save_onnx(original: Path, target: Path, changed: Mapping[str, torch.Tensor]) -> None:
    """A copy of ``original`` in which some parameters have new values.

    Args:
        original: not changed.
        target: written over.
        changed: by the names of :class:`gradscope.loading.onnx.module.OnnxModule`.

    Raises:
        LoadError: a parameter cannot be set in the file.
    """
    places = find_weights(read_graph(read_proto(original), str(original))).places
    write_patched(original, target, places, Changes(changed))

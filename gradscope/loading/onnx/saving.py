"""What saving asks of ONNX: a copy of a file with other weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from gradscope.loading.onnx.execute import is_logistic
from gradscope.loading.onnx.fusions import fused
from gradscope.loading.onnx.graph import read_graph
from gradscope.loading.onnx.proto import read_proto
from gradscope.loading.onnx.weights import find_weights
from gradscope.loading.onnx.writing import Changes, write_patched
from gradscope.model import Edit


def save_onnx(
    original: Path, target: Path, changed: Mapping[str, torch.Tensor], edit: Edit
) -> None:
    """A copy of ``original`` in which some parameters have new values.

    Args:
        original: not changed.
        target: written over.
        changed: by the names of :class:`gradscope.loading.onnx.module.OnnxModule`.
        edit: whether the logistic activations become tanh; products at nodes.

    Raises:
        LoadError: a parameter cannot be set in the file.
    """
    graph = read_graph(read_proto(original), str(original))
    places = find_weights(graph).places
    logistic = (n for g in fused(graph).walk() for n in g.nodes if is_logistic(n))
    tanh = tuple(n.where for n in logistic) if edit.tanh else ()
    write_patched(original, target, places, Changes(changed, edit.products, tanh))

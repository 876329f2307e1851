"""Backward passes from given cotangents.

``torch.autograd.backward(outputs, cotangents)`` compares their shapes symbolically, and for that
imports sympy: half a second, once a process, for shapes that the probe made to fit. The engine
itself checks them again, in C++. It is called directly where torch has it under the name known
here, and through the front door otherwise: the same passes either way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd.graph import GradientEdge

_ENGINE = getattr(torch.autograd.graph, "_engine_run_backward", None)


def accumulate(
    edges: Sequence[GradientEdge],
    cotangents: Sequence[torch.Tensor],
    inputs: Sequence[Any],
    *,
    keep: bool,
) -> None:
    """One backward pass; what arrives at ``inputs`` is added to their ``.grad``.

    Args:
        edges: where it starts.
        cotangents: one for each, of its shape, dtype and device.
        inputs: tensors, or edges to end at; not empty.
        keep: whether the graph is needed again.

    Raises:
        RuntimeError: a shape that does not fit, or an operation that has no derivative.
    """
    if _ENGINE is None:
        torch.autograd.backward(edges, cotangents, retain_graph=keep, inputs=inputs)
        return
    _ENGINE(
        tuple(edges), tuple(cotangents), keep, False, tuple(inputs),
        allow_unreachable=True, accumulate_grad=True,
    )  # fmt: skip


def gradients(
    edges: Sequence[GradientEdge],
    cotangents: Sequence[torch.Tensor],
    inputs: Sequence[torch.Tensor],
    *,
    keep: bool,
) -> tuple[torch.Tensor | None, ...]:
    """What arrives at ``inputs``, None where nothing does; their ``.grad`` is left alone.

    Args and errors: as of :func:`accumulate`.
    """
    if _ENGINE is None:
        return torch.autograd.grad(edges, inputs, cotangents, retain_graph=keep, allow_unused=True)
    found: tuple[torch.Tensor | None, ...] = _ENGINE(
        tuple(edges), tuple(cotangents), keep, False, tuple(inputs),
        allow_unreachable=True, accumulate_grad=False,
    )  # fmt: skip
    return found

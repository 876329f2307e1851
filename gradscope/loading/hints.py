"""What would help where a sample does not fit the model."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch


def hint_for(
    module: torch.nn.Module, shapes: Iterable[tuple[int, ...]], *, labels: bool
) -> str | None:
    """Options for columns of numbers: images out of them, or one of them as the label.

    Args:
        module: which does not run on them.
        shapes: of one sample's inputs.
        labels: whether there are labels.
    """
    every = list(shapes)
    flat = [shape[0] for shape in every if len(shape) == 1]
    if len(flat) != 1 or len(every) != 1:
        return None
    layout = _image(module, flat[0])
    if layout is not None:
        return f"--input-shape {layout} makes images of the {flat[0]} columns."
    if not labels:
        return f"If one of the {flat[0]} columns is the label: --label-column NAME or NUMBER."
    return None


def _image(module: torch.nn.Module, columns: int) -> str | None:
    """Square images of as many channels as the first convolution takes."""
    first = next((m for m in module.modules() if isinstance(m, torch.nn.Conv2d)), None)
    channels = getattr(first, "in_channels", 0)
    if not isinstance(channels, int) or channels < 1:  # a file may say anything
        return None
    side = math.isqrt(columns // channels)
    return f"{channels}x{side}x{side}" if channels * side * side == columns and side > 1 else None

"""What would help where a sample does not fit the model."""

from __future__ import annotations

import math

import torch

from gradscope.model import Sample


def hint_for(module: torch.nn.Module, sample: Sample) -> str | None:
    """Options for columns of numbers: images out of them, or one of them as the label."""
    flat = [shape[0] for shape in sample.inputs.values() if len(shape) == 1]
    if sample.synthetic or len(flat) != 1:
        return None
    layout = _image(module, flat[0])
    if layout is not None:
        return f"--input-shape {layout} makes images of the {flat[0]} columns."
    if not sample.labels:
        return f"If one of the {flat[0]} columns is the label: --label-column NAME or NUMBER."
    return None


def _image(module: torch.nn.Module, columns: int) -> str | None:
    """Square images of as many channels as the first convolution takes."""
    first = next((m for m in module.modules() if isinstance(m, torch.nn.Conv2d)), None)
    if first is None or columns % first.in_channels:
        return None
    side = math.isqrt(columns // first.in_channels)
    fits = first.in_channels * side * side == columns and side > 1
    return f"{first.in_channels}x{side}x{side}" if fits else None

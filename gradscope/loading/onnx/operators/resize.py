"""Resize and Upsample, as one weight matrix for each axis: exact in every mode."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from gradscope.loading.onnx.operators.shape import bounded
from gradscope.loading.onnx.registry import Call, Refusal, ints, operator

Tensor = torch.Tensor


@dataclass(frozen=True)
class _Options:
    """How coordinates and neighbours are chosen; as the attributes of Resize."""

    mode: str = "nearest"
    coordinates: str = "half_pixel"
    nearest: str = "round_prefer_floor"
    cubic: float = -0.75
    exclude_outside: bool = False
    antialias: bool = False
    outside: float = 0.0


@operator("Upsample", since=7)
def upsample(call: Call, x: Tensor, scales: Tensor | None = None) -> Tensor:
    """Larger by factors: an attribute in opset 7, an input in 9."""
    given = call.get("scales") if scales is None else scales.tolist()
    mode = call.get("mode", "nearest")
    options = _Options(mode.replace("bilinear", "linear"), "asymmetric", "floor")
    return _resized(x, [float(s) for s in given], None, None, options)


@operator("Resize", since=10)
def resize_10(call: Call, x: Tensor, scales: Tensor) -> Tensor:
    """The form of opset 10: like Upsample, and smaller as well."""
    options = _Options(call.get("mode", "nearest"), "asymmetric", "floor")
    return _resized(x, scales.tolist(), None, None, options)


@operator("Resize", since=11)
def resize(call: Call, x: Tensor, roi: Any = None, scales: Any = None, sizes: Any = None) -> Tensor:
    """To other sizes, by scales or sizes, on all or some axes."""
    axes = call.get("axes")
    which = [a % x.dim() for a in axes] if axes is not None else list(range(x.dim()))
    factors = None if scales is None or not scales.numel() else [float(s) for s in scales]
    wanted = None if sizes is None or not sizes.numel() else ints(sizes)
    options = _Options(
        call.get("mode", "nearest"),
        call.get("coordinate_transformation_mode", "half_pixel"),
        call.get("nearest_mode", "round_prefer_floor"),
        call.get("cubic_coeff_a", -0.75),
        bool(call.get("exclude_outside", 0)),
        bool(call.get("antialias", 0)),
        call.get("extrapolation_value", 0.0),
    )
    if wanted is not None:
        wanted, factors = _fitted(
            [x.shape[a] for a in which], wanted, call.get("keep_aspect_ratio_policy", "stretch")
        )
    region = None if roi is None or not roi.numel() else [float(v) for v in roi]
    return _resized(x, _full(x, factors or [], which, 1.0),
                    None if wanted is None else _full(x, wanted, which, None),
                    None if region is None else _regions(x, region, which), options)  # fmt: skip


def _fitted(have: Sequence[int], wanted: list[int], policy: str) -> tuple[list[int], list[float]]:
    ratios = [w / h for w, h in zip(wanted, have, strict=True)]
    if policy == "stretch":
        return wanted, ratios
    ratio = min(ratios) if policy == "not_larger" else max(ratios)
    # Halves are rounded up.
    return [math.floor(h * ratio + 0.5) for h in have], [ratio] * len(have)


def _full(x: Tensor, values: Sequence[Any], which: Sequence[int], other: Any) -> list[Any]:
    full: list[Any] = [other if other is not None else s for s in x.shape]
    for axis, value in zip(which, values, strict=True):
        full[axis] = value
    return full


def _regions(x: Tensor, roi: list[float], which: Sequence[int]) -> list[tuple[float, float]]:
    full = [(0.0, 1.0)] * x.dim()
    for i, axis in enumerate(which):
        full[axis] = (roi[i], roi[i + len(which)])
    return full


def _resized(
    x: Tensor,
    scales: Sequence[float],
    sizes: Sequence[int] | None,
    roi: Sequence[tuple[float, float]] | None,
    options: _Options,
) -> Tensor:
    out = sizes or [math.floor(s * f + 1e-9) for s, f in zip(x.shape, scales, strict=True)]
    bounded(list(out), x)
    outside = torch.zeros((), dtype=torch.bool)
    for axis in range(x.dim()):
        region = roi[axis] if roi is not None else (0.0, 1.0)
        crops = options.coordinates == "tf_crop_and_resize"
        if out[axis] == x.shape[axis] and scales[axis] == 1.0 and not crops:
            continue
        bounded([x.shape[axis], out[axis]])
        at = _source(x.shape[axis], out[axis], scales[axis], region, options)
        matrix = _matrix(x.shape[axis], at, scales[axis], options).to(x)
        x = torch.movedim(torch.movedim(x, axis, -1) @ matrix.t(), -1, axis)
        if crops:
            lost = (at < 0) | (at > matrix.shape[1] - 1)
            outside = outside | lost.reshape([-1 if i == axis else 1 for i in range(x.dim())])
    if bool(outside.any()):
        x = torch.where(outside, torch.full((), options.outside, dtype=x.dtype), x)
    return x


def _source(
    size: int, out: int, scale: float, region: tuple[float, float], options: _Options
) -> Tensor:
    """Coordinate in the input of each output element."""
    at = torch.arange(out, dtype=torch.float64)
    mode, (start, end) = options.coordinates, region
    if mode == "asymmetric":
        return at / scale
    if mode == "align_corners":
        if out > 1 and abs(size * scale - out) > 1e-3:
            # Its formula divides by the exact size, onnxruntime by the whole number of elements.
            raise Refusal("align_corners with a scale that makes no whole size is ambiguous")
        return at * (size - 1) / (out - 1) if out > 1 else at * 0
    if mode == "pytorch_half_pixel":
        return (at + 0.5) / scale - 0.5 if out > 1 else at * 0
    if mode == "tf_half_pixel_for_nn":
        return (at + 0.5) / scale
    if mode == "tf_crop_and_resize":
        if out > 1:
            return start * (size - 1) + at * (end - start) * (size - 1) / (out - 1)
        return at + 0.5 * (start + end) * (size - 1)
    if mode == "half_pixel_symmetric":
        exact = size * scale
        centre = size / 2
        return centre * (1 - out / exact) + (at + 0.5) / scale - 0.5
    if mode == "half_pixel":
        return (at + 0.5) / scale - 0.5
    raise ValueError(f"the coordinates '{mode}' are not known")


def _matrix(size: int, at: Tensor, scale: float, options: _Options) -> Tensor:
    """[outputs, inputs]: the weight of each input in each output."""
    if options.mode == "nearest":
        picked = _nearest(at, options.nearest).clamp(0, size - 1).long()
        return torch.nn.functional.one_hot(picked, size).double()
    cubic = options.mode == "cubic"
    if options.mode not in ("linear", "cubic"):
        raise ValueError(f"the mode '{options.mode}' is not known")
    stretch = min(scale, 1.0) if options.antialias else 1.0
    reach = (2 if cubic else 1) / stretch
    first = torch.floor(at - reach).long() + 1
    offsets = torch.arange(math.ceil(2 * reach) + 1)
    taps = first.unsqueeze(1) + offsets
    distance = ((taps - at.unsqueeze(1)) * stretch).abs()
    weights = _cubic(distance, options.cubic) if cubic else (1 - distance).clamp_min(0)
    if options.exclude_outside:
        weights = torch.where((taps < 0) | (taps >= size), 0.0, weights)
    if options.antialias or options.exclude_outside:
        weights = weights / weights.sum(1, keepdim=True)
    matrix = torch.zeros(len(at), size, dtype=torch.float64)
    return matrix.scatter_add(1, taps.clamp(0, size - 1), weights)


def _nearest(at: Tensor, mode: str) -> Tensor:
    if mode == "floor":
        return torch.floor(at)
    if mode == "ceil":
        return torch.ceil(at)
    if mode == "round_prefer_ceil":
        return torch.floor(at + 0.5)
    if mode == "round_prefer_floor":
        return torch.ceil(at - 0.5)
    raise ValueError(f"the nearest mode '{mode}' is not known")


def _cubic(d: Tensor, a: float) -> Tensor:
    """Keys' kernel (Keys 1981)."""
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return torch.where(d <= 1, near, torch.where(d < 2, far, 0.0))

"""Reading images at places between pixels: grids, regions, deformed convolutions; and folding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from gradscope.loading.onnx.budget import check_count
from gradscope.loading.onnx.operators.shape import bounded
from gradscope.loading.onnx.registry import Call, Slot, ints, operator

Tensor = torch.Tensor
_MODES = {"linear": "bilinear", "bilinear": "bilinear", "cubic": "bicubic", "bicubic": "bicubic",
          "nearest": "nearest"}  # fmt: skip


@operator("GridSample", since=16)
def grid_sample(call: Call, x: Tensor, grid: Tensor) -> Tensor:
    """Pixels at coordinates in [-1, 1]."""
    mode = _MODES[call.get("mode", "linear")]
    corners = bool(call.get("align_corners", 0))
    return functional.grid_sample(x, grid, mode, call.get("padding_mode", "zeros"), corners)


@operator("AffineGrid", since=20)
def affine_grid(call: Call, theta: Tensor, size: Tensor) -> Tensor:
    """Coordinates of an affinely moved image."""
    return functional.affine_grid(theta, bounded(ints(size)), bool(call.get("align_corners", 0)))


@operator("Col2Im", since=18)
def fold(call: Call, x: Tensor, image: Tensor, block: Tensor) -> Tensor:
    """The sum of blocks [batch, channels * block, positions] laid over an image."""
    sizes, kernel = bounded(ints(image)), ints(block)
    rank = len(kernel)
    strides, dilations = call.get("strides", (1,) * rank), call.get("dilations", (1,) * rank)
    pads = call.get("pads", (0,) * (2 * rank))
    full = [s + pads[i] + pads[i + rank] for i, s in enumerate(sizes)]
    places = torch.zeros(1, dtype=torch.long)
    for i in range(rank):
        count = (full[i] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1
        line = (torch.arange(kernel[i]) * dilations[i]).unsqueeze(1) + (
            torch.arange(count) * strides[i]
        )
        shape = [kernel[k] if k == i else 1 for k in range(rank)]
        shape += [count if k == i else 1 for k in range(rank)]
        places = places.reshape(places.shape if i else [1] * (2 * rank)) * full[i]
        places = places + line.reshape(shape)
    places = places.to(x.device).reshape(-1)
    n, c = x.shape[0], x.shape[1] // math.prod(kernel)
    values = x.reshape(n, c, -1)
    total = values.new_zeros((n, c, math.prod(full)))
    total = total.index_add(2, places, values).reshape(n, c, *full)
    for i, size in enumerate(sizes):
        total = total.narrow(2 + i, pads[i], size)
    return total


@operator("DeformConv", since=19, weights={1: Slot(), 3: Slot()})
def deform_conv(
    call: Call, x: Tensor, w: Tensor, offset: Tensor, b: Any = None, mask: Any = None
) -> Tensor:
    """A convolution of two axes whose places are moved by offsets (Dai et al. 2017).

    Raises:
        ValueError: it has another number of axes.
    """
    if x.dim() != 4:
        raise ValueError("only images of two axes are known")
    group, shifts = int(call.get("group", 1)), int(call.get("offset_group", 1))
    kernel = w.shape[2:]
    taps, (n, channels), out = math.prod(kernel), x.shape[:2], offset.shape[2:]
    moved = offset.reshape(n, shifts, taps, 2, *out)
    at = [_places(call, x, kernel, out, axis) + moved[:, :, :, axis] for axis in (0, 1)]
    grid = torch.stack(
        [2 * a / max(x.shape[2 + k] - 1, 1) - 1 for k, a in ((1, at[1]), (0, at[0]))], -1
    )
    planes = x.reshape(n * shifts, channels // shifts, *x.shape[2:])
    read = functional.grid_sample(
        planes, grid.reshape(n * shifts, taps * out[0], out[1], 2), align_corners=True
    )
    read = read.reshape(n, shifts, channels // shifts, taps, *out)
    if mask is not None:
        read = read * mask.reshape(n, shifts, 1, taps, *out)
    read = read.reshape(n, group, -1, out[0] * out[1])
    weight = w.reshape(group, w.shape[0] // group, -1)
    y = (weight @ read).reshape(n, w.shape[0], *out)
    return y if b is None else y + b.reshape(1, -1, 1, 1)


def _places(call: Call, x: Tensor, kernel: Sequence[int], out: Sequence[int], axis: int) -> Tensor:
    """Where each tap reads along an axis, [taps, *out], before it is moved."""
    stride, dilation = (call.get(n, (1, 1))[axis] for n in ("strides", "dilations"))
    taps = torch.arange(kernel[axis], dtype=x.dtype, device=x.device) * dilation
    starts = torch.arange(out[axis], dtype=x.dtype, device=x.device) * stride
    starts = starts - call.get("pads", (0,) * 4)[axis]
    grid = taps.reshape([-1 if k == axis else 1 for k in (0, 1)]).expand(*kernel).reshape(-1, 1, 1)
    places: Tensor = grid + starts.reshape([-1 if k == axis else 1 for k in (0, 1)])
    return places


@operator("RoiAlign", since=10)
def roi_align(call: Call, x: Tensor, boxes: Tensor, batches: Tensor) -> Tensor:
    """Means (or maxima) of bilinear samples in each cell of each box (He et al. 2017)."""
    height, width = int(call.get("output_height", 1)), int(call.get("output_width", 1))
    default = "half_pixel" if call.version >= 16 else "output_half_pixel"
    half = call.get("coordinate_transformation_mode", default) == "half_pixel"
    scale, ratio = call.get("spatial_scale", 1.0), int(call.get("sampling_ratio", 0))
    check_count(len(boxes), "boxes")
    results = []
    for box, batch in zip(boxes, batches.tolist(), strict=True):
        x1, y1, x2, y2 = (box * scale - (0.5 if half else 0.0)).unbind()
        tall, wide = y2 - y1, x2 - x1
        if not half:
            tall, wide = tall.clamp_min(1.0), wide.clamp_min(1.0)
        ys, per_y = _cells(y1, tall, height, ratio)
        xs, per_x = _cells(x1, wide, width, ratio)
        cells = _read(x[batch], ys, xs, average=call.get("mode", "avg") == "avg")
        cells = cells.reshape(-1, height, per_y, width, per_x)
        cells = cells.transpose(2, 3).flatten(3)
        results.append(cells.mean(-1) if call.get("mode", "avg") == "avg" else cells.amax(-1))
    return torch.stack(results) if results else x.new_zeros((0, x.shape[1], height, width))


def _cells(start: Tensor, length: Tensor, count: int, ratio: int) -> tuple[Tensor, int]:
    per = ratio if ratio > 0 else max(math.ceil(float(length) / count), 1)
    bounded([count, per])
    at = (torch.arange(count * per, dtype=start.dtype, device=start.device) + 0.5) / per
    return start + at * (length / count), per


def _read(plane: Tensor, ys: Tensor, xs: Tensor, *, average: bool) -> Tensor:
    """Bilinear samples at a grid of places; 0 outside of the image."""
    height, width = plane.shape[1:]
    rows, columns = _weights(ys, height), _weights(xs, width)
    if average:
        return rows @ plane @ columns.t()
    # The maximum is that of the weighted corners, not of their sum.
    (y0, y1, wy), (x0, x1, wx) = _corners(ys, height), _corners(xs, width)
    corners = [
        plane[:, a][:, :, b] * u.unsqueeze(1) * v
        for a, u in ((y0, 1 - wy), (y1, wy))
        for b, v in ((x0, 1 - wx), (x1, wx))
    ]
    inside = ((ys >= -1) & (ys <= height)).unsqueeze(1) & (xs >= -1) & (xs <= width)
    return torch.where(inside, torch.stack(corners).amax(0), 0.0)


def _corners(at: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    held = at.clamp(0, size - 1)
    low = held.detach().floor().long()
    return low, (low + 1).clamp_max(size - 1), held - low


def _weights(at: Tensor, size: int) -> Tensor:
    """[places, pixels] of linear interpolation along one axis."""
    low, high, share = _corners(at, size)
    one = functional.one_hot(low, size).to(at.dtype) * (1 - share).unsqueeze(1)
    two = functional.one_hot(high, size).to(at.dtype) * share.unsqueeze(1)
    inside = ((at >= -1) & (at <= size)).unsqueeze(1)
    return torch.where(inside, one + two, torch.zeros_like(one))

"""Operators that move elements without changing them, and those that read shapes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn import functional

from gradscope.loading.onnx.registry import Call, ints, number_or, operator

Tensor = torch.Tensor
_MOST = 1 << 28  # elements that one node may make out of nothing
_GROWTH = 64  # times as many as its input has, if that is more
_AT_ALL = 1 << 30


def bounded(shape: list[int], of: Tensor | None = None) -> list[int]:
    """The shape, unless a few bytes of a file ask for more than any machine has.

    Args:
        shape: of a result.
        of: what it is made of; None: of its sizes alone.

    Raises:
        ValueError: they do.
    """
    most = _MOST if of is None else min(max(_MOST, _GROWTH * of.numel()), _AT_ALL)
    if any(s < 0 for s in shape) or math.prod(shape) > most:
        raise ValueError(f"asks for a tensor of shape {shape}")
    return shape


@operator("Reshape", since=5, carries=True)
def reshape(call: Call, x: Tensor, shape: Tensor) -> Tensor:
    """Another shape; 0 keeps the axis unless allowzero, -1 is what remains."""
    wanted = ints(shape)
    if not call.get("allowzero", 0):
        wanted = [x.shape[i] if s == 0 else s for i, s in enumerate(wanted)]
    if -1 in wanted and x.numel() == 0:
        rest = math.prod(s for s in wanted if s != -1)
        wanted = [(x.numel() // rest if rest else 0) if s == -1 else s for s in wanted]
    return x.reshape(wanted)


@operator("Flatten", carries=True)
def flatten(call: Call, x: Tensor) -> Tensor:
    """A matrix: the axes before one, and the rest."""
    axis = int(call.get("axis", 1))
    axis = axis + x.dim() if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), -1) if x.numel() else x.reshape(
        math.prod(x.shape[:axis]), math.prod(x.shape[axis:])
    )  # fmt: skip


def _axes(call: Call, given: Tensor | None) -> list[int] | None:
    """Axes as attribute (opset 12 and before) or input."""
    found = call.get("axes") if given is None else given
    return None if found is None else ints(found)


@operator("Squeeze", carries=True)
def squeeze(call: Call, x: Tensor, axes: Tensor | None = None) -> Tensor:
    """Without some axes of size 1; without all of them if none is named."""
    which = _axes(call, axes)
    if which is None:
        return x.squeeze()
    for axis in which:
        if x.shape[axis] != 1:
            raise ValueError(f"axis {axis} of {tuple(x.shape)} is not 1")
    return x.squeeze(which)


@operator("Unsqueeze", carries=True)
def unsqueeze(call: Call, x: Tensor, axes: Tensor | None = None) -> Tensor:
    """With new axes of size 1."""
    which = _axes(call, axes) or []
    rank = x.dim() + len(which)
    for axis in sorted(a % rank for a in which):
        x = x.unsqueeze(axis)
    return x


@operator("Transpose", carries=True)
def transpose(call: Call, x: Tensor) -> Tensor:
    """Axes in another order; reversed by default."""
    order = call.get("perm")
    if order is None:
        order = range(x.dim() - 1, -1, -1)
    elif len(order) == 2 == x.dim() and tuple(order) == (1, 0):
        return x.t()
    return x.permute(*order) if x.dim() else x


@operator("Expand", since=8)
def expand(call: Call, x: Tensor, shape: Tensor) -> Tensor:
    """Broadcast to a shape, which may itself be broadcast."""
    wanted = bounded(ints(shape), x)
    full = [1] * (x.dim() - len(wanted)) + wanted
    own = [1] * (len(full) - x.dim()) + list(x.shape)
    return x.expand(bounded([o if w == 1 else w for o, w in zip(own, full, strict=True)], x))


@operator("Tile", since=6)
def tile(call: Call, x: Tensor, repeats: Tensor) -> Tensor:
    """Repeated along each axis."""
    times = ints(repeats)
    bounded([s * t for s, t in zip(x.shape, times, strict=True)], x)
    return x.repeat(times)


@operator("Concat", since=4, carries=True)
def concat(call: Call, *values: Tensor) -> Tensor:
    """One after the other along an axis."""
    return torch.cat(values, int(call.get("axis")))


@operator("Split")
def split(call: Call, x: Tensor, sizes: Tensor | None = None) -> Any:
    """Into parts along an axis: sizes as attribute, input, or equal ones."""
    axis = int(call.get("axis", 0))
    given = call.get("split") if sizes is None else sizes
    if given is not None:
        wanted = ints(given)
    else:
        count = int(call.get("num_outputs", call.outputs))
        each = -(-x.shape[axis] // count)
        wanted = [each] * (count - 1) + [x.shape[axis] - each * (count - 1)]
    if len(set(wanted)) == 1 and len(wanted) > 1 and wanted[0] > 0:
        return torch.split(x, wanted[0], axis)
    return torch.split(x, wanted, axis)


@operator("Slice")
def slice_by_attributes(call: Call, x: Tensor) -> Tensor:
    """From start to end along some axes."""
    starts, ends = call.get("starts"), call.get("ends")
    axes = call.get("axes", range(len(starts)))
    return _sliced(x, list(starts), list(ends), list(axes), [1] * len(starts))


@operator("Slice", since=10, carries=True)
def slice_by_inputs(
    call: Call, x: Tensor, starts: Tensor, ends: Tensor, axes: Any = None, steps: Any = None
) -> Tensor:
    """From start to end along some axes; steps may be negative."""
    first, last = ints(starts), ints(ends)
    which = list(range(len(first))) if axes is None else ints(axes)
    by = [1] * len(first) if steps is None else ints(steps)
    return _sliced(x, first, last, which, by)


def _sliced(
    x: Tensor, starts: list[int], ends: list[int], axes: list[int], steps: list[int]
) -> Tensor:
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        picked = range(*slice(start, None if _passes(end, step) else end, step).indices(
            x.shape[axis]
        ))  # fmt: skip
        if step > 0:
            lead = [slice(None)] * (axis % x.dim())
            stop = max(picked.start, picked.stop)
            x = x[(*lead, slice(picked.start, stop, step))]
        else:
            x = x.index_select(axis, torch.tensor(list(picked), dtype=torch.long, device=x.device))
    return x


def _passes(end: int, step: int) -> bool:
    """Whether an end lies before the first element, which Python's slices cannot say."""
    return step < 0 and end < -(1 << 30)


@operator("Pad")
def pad_by_attributes(call: Call, x: Tensor) -> Tensor:
    """Made larger with a constant, by reflection, or with the edge."""
    return _pad(x, list(call.get("pads")), call.get("mode", "constant"), call.get("value", 0.0))


@operator("Pad", since=11)
def pad_by_inputs(
    call: Call, x: Tensor, pads: Tensor, value: Tensor | None = None, axes: Any = None
) -> Tensor:
    """Made larger with a constant, by reflection, with the edge, or round and round."""
    given = ints(pads)
    if axes is not None:
        which, full = ints(axes), [0] * (2 * x.dim())
        for i, axis in enumerate(which):
            full[axis % x.dim()] = given[i]
            full[axis % x.dim() + x.dim()] = given[i + len(which)]
        given = full
    mode = call.get("mode", "constant")
    if value is not None and value.requires_grad and mode == "constant":
        inside = _pad(torch.ones_like(x, dtype=torch.bool), given, mode, False)
        return torch.where(inside, _pad(x, given, mode, 0), value.reshape(()))
    return _pad(x, given, mode, number_or(value, 0))


def _pad(x: Tensor, pads: list[int], mode: str, value: Any) -> Tensor:
    before, after = pads[: x.dim()], pads[x.dim() :]
    sizes = zip(x.shape, before, after, strict=True)
    bounded([s + max(b, 0) + max(a, 0) for s, b, a in sizes], x)
    if mode == "constant":
        flat = [p for pair in zip(reversed(before), reversed(after), strict=True) for p in pair]
        return functional.pad(x, flat, value=value) if any(flat) else x
    for axis, (one, two) in enumerate(zip(before, after, strict=True)):
        if one or two:
            at = _mirrored(x.shape[axis], one, two, mode, x.device)
            x = x.index_select(axis, at)
    return x


def _mirrored(size: int, before: int, after: int, mode: str, device: torch.device) -> Tensor:
    """Which element stands where after padding."""
    at = torch.arange(-before, size + after, device=device)
    if mode == "edge":
        return at.clamp(0, size - 1)
    if mode == "wrap":
        return at.remainder(size)
    if mode == "reflect":
        period = max(2 * (size - 1), 1)
        folded = at.remainder(period)
        return torch.minimum(folded, period - folded).clamp(0, size - 1)
    raise ValueError(f"the mode '{mode}' is not known")


@operator("Shape")
def shape_of(call: Call, x: Tensor) -> Tensor:
    """Sizes, or those from start to end."""
    sizes = list(x.shape)
    return torch.tensor(sizes[call.get("start", 0) : call.get("end")], dtype=torch.int64)


@operator("Size")
def size_of(call: Call, x: Tensor) -> Tensor:
    """Number of elements."""
    return torch.tensor(x.numel(), dtype=torch.int64)


@operator("ConstantOfShape", since=9)
def constant_of_shape(call: Call, shape: Tensor) -> Tensor:
    """One value everywhere."""
    value = call.get("value")
    if value is None:
        return torch.zeros(bounded(ints(shape)), dtype=call.types.of(1))
    dtype = value.dtype
    if value.is_floating_point() and call.types.floating is not None:
        dtype = call.types.floating
    return torch.full(bounded(ints(shape)), value.reshape(-1)[0].item(), dtype=dtype)


@operator("Range", since=11)
def range_of(call: Call, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    """start, start + delta, ... before limit."""
    first, last, step = start.item(), limit.item(), delta.item()
    if step == 0:
        raise ValueError("a range by steps of 0")
    count = max(math.ceil((last - first) / step), 0)
    bounded([count])
    steps = torch.arange(count, dtype=torch.float64 if start.is_floating_point() else torch.int64)
    if start.requires_grad or delta.requires_grad:
        return start + steps.to(start.dtype) * delta
    return (first + steps * step).to(start.dtype)


@operator("DepthToSpace")
def depth_to_space(call: Call, x: Tensor) -> Tensor:
    """Blocks of channels as blocks of pixels."""
    b, (n, c, h, w) = int(call.get("blocksize")), x.shape
    if call.get("mode", "DCR") == "DCR":
        parts = x.reshape(n, b, b, c // b**2, h, w).permute(0, 3, 4, 1, 5, 2)
    else:
        parts = x.reshape(n, c // b**2, b, b, h, w).permute(0, 1, 4, 2, 5, 3)
    return parts.reshape(n, c // b**2, h * b, w * b)


@operator("SpaceToDepth")
def space_to_depth(call: Call, x: Tensor) -> Tensor:
    """Blocks of pixels as blocks of channels."""
    b, (n, c, h, w) = int(call.get("blocksize")), x.shape
    crd = call.get("mode", "DCR") == "CRD"
    order = (0, 1, 3, 5, 2, 4) if crd else (0, 3, 5, 1, 2, 4)
    parts = x.reshape(n, c, h // b, b, w // b, b).permute(*order)
    return parts.reshape(n, c * b**2, h // b, w // b)


@operator("EyeLike", since=9)
def eye_like(call: Call, x: Tensor) -> Tensor:
    """Ones on a diagonal."""
    dtype = call.types.of(call.get("dtype")) if call.get("dtype") is not None else x.dtype
    rows, columns = bounded(list(x.shape))
    k = int(call.get("k", 0))
    at = torch.arange(columns) - torch.arange(rows).unsqueeze(1)
    return (at == k).to(dtype).to(x.device)


@operator("Trilu", since=14)
def triangle(call: Call, x: Tensor, k: Tensor | None = None) -> Tensor:
    """Upper or lower triangle."""
    diagonal = int(number_or(k, 0))
    return torch.triu(x, diagonal) if call.get("upper", 1) else torch.tril(x, diagonal)


@operator("ReverseSequence", since=10)
def reverse_sequence(call: Call, x: Tensor, lengths: Tensor) -> Tensor:
    """The first elements of each sample in reverse order."""
    time, batch = int(call.get("time_axis", 0)), int(call.get("batch_axis", 1))
    moved = x.movedim((time, batch), (0, 1))
    return moved.gather(0, reversal(moved, lengths)).movedim((0, 1), (time, batch))


def reversal(x: Tensor, lengths: Tensor) -> Tensor:
    """Index that reverses the first ``lengths[b]`` steps of x [time, batch, ...]."""
    steps = torch.arange(x.shape[0], device=x.device).unsqueeze(1)
    ends = lengths.to(x.device).long().unsqueeze(0)
    at = torch.where(steps < ends, ends - 1 - steps, steps)
    return at.reshape(*at.shape, *[1] * (x.dim() - 2)).expand(x.shape)

"""Gathering, scattering, and what finds or counts elements."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from gradscope.loading.onnx.operators.shape import bounded
from gradscope.loading.onnx.registry import Call, Slot, number, operator

Tensor = torch.Tensor
_REDUCE = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _within(indices: Tensor, size: int) -> Tensor:
    """Indices counted from the end brought to the front."""
    indices = indices.long()
    return torch.where(indices < 0, indices + size, indices)


@operator("Gather", weights={0: Slot()})
def gather(call: Call, x: Tensor, indices: Tensor) -> Tensor:
    """Slices of one axis; rows of a trained table are an embedding."""
    axis = int(call.get("axis", 0)) % x.dim()
    if indices.dim() == 0:
        return x.select(axis, int(indices))
    at = _within(indices, x.shape[axis]).to(x.device)
    if axis == 0 and x.dim() == 2 and x.requires_grad:
        return functional.embedding(at, x)
    found = x.index_select(axis, at.reshape(-1))
    return found.reshape(*x.shape[:axis], *at.shape, *x.shape[axis + 1 :])


@operator("GatherElements", since=11)
def gather_elements(call: Call, x: Tensor, indices: Tensor) -> Tensor:
    """One element for each index along an axis."""
    axis = int(call.get("axis", 0))
    return x.gather(axis, _within(indices, x.shape[axis]))


@operator("GatherND", since=11)
def gather_nd(call: Call, x: Tensor, indices: Tensor) -> Tensor:
    """Slices at tuples of indices."""
    batch, depth = int(call.get("batch_dims", 0)), indices.shape[-1]
    at: list[Tensor] = []
    for b in range(batch):
        line = torch.arange(x.shape[b], device=x.device)
        at.append(line.reshape(*[1] * b, -1, *[1] * (indices.dim() - 2 - b)))
    for k in range(depth):
        at.append(_within(indices[..., k], x.shape[batch + k]))
    return x[tuple(at)]


@operator("ScatterElements", "Scatter", since=9)
def scatter_elements(call: Call, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """x with elements along an axis replaced by, or combined with, updates."""
    axis = int(call.get("axis", 0))
    at = _within(indices, x.shape[axis])
    reduction = call.get("reduction", "none")
    if reduction == "none":
        return x.scatter(axis, at, updates)
    return x.scatter_reduce(axis, at, updates, _REDUCE[reduction], include_self=True)


@operator("ScatterND", since=11)
def scatter_nd(call: Call, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """x with slices at tuples of indices replaced by, or combined with, updates."""
    depth = indices.shape[-1]
    inner = x.shape[depth:]
    flat = torch.zeros(indices.shape[:-1], dtype=torch.long, device=x.device)
    for k in range(depth):
        flat = flat * x.shape[k] + _within(indices[..., k], x.shape[k])
    rows = x.reshape(-1, *inner) if depth else x.reshape(1, *inner)
    values = updates.reshape(-1, *inner)
    at = flat.reshape(-1, *[1] * len(inner)).expand(values.shape)
    reduction = call.get("reduction", "none")
    if reduction == "none":
        return rows.scatter(0, at, values).reshape(x.shape)
    done = rows.scatter_reduce(0, at, values, _REDUCE[reduction], include_self=True)
    return done.reshape(x.shape)


@operator("OneHot", since=9)
def one_hot(call: Call, indices: Tensor, depth: Tensor, values: Tensor) -> Tensor:
    """``values[1]`` at the index, ``values[0]`` elsewhere; nowhere for an index out of range."""
    axis, count = int(call.get("axis", -1)), int(number(depth))
    bounded([indices.numel(), count])
    at = _within(indices, count)
    rank = indices.dim() + 1
    line = torch.arange(count, device=indices.device)
    hot = at.unsqueeze(axis) == line.reshape([-1 if i == axis % rank else 1 for i in range(rank)])
    return torch.where(hot, values[1], values[0])


@operator("NonZero", since=9)
def nonzero(call: Call, x: Tensor) -> Tensor:
    """Indices of what is not 0, one column each."""
    return torch.nonzero(x).t()


@operator("Compress", since=9)
def compress(call: Call, x: Tensor, condition: Tensor) -> Tensor:
    """The slices for which the condition holds."""
    at = torch.nonzero(condition).reshape(-1)
    axis = call.get("axis")
    return x.reshape(-1)[at] if axis is None else x.index_select(int(axis), at)


@operator("TopK", since=10)
def top_k(call: Call, x: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """The k largest (or smallest) elements and where they stood; the first of equals first."""
    axis, largest = int(call.get("axis", -1)), bool(call.get("largest", 1))
    values, at = torch.sort(x, dim=axis, descending=largest, stable=True)
    count = int(number(k))
    return values.narrow(axis, 0, count), at.narrow(axis, 0, count)


@operator("ArgMax", "ArgMin")
def arg_extreme(call: Call, x: Tensor) -> Tensor:
    """Index of the largest or smallest element: the first of equals, or the last."""
    axis = int(call.get("axis", 0))
    find = torch.amax if call.node.op == "ArgMax" else torch.amin
    hit = x == find(x, axis, keepdim=True)
    size = x.shape[axis]
    line = torch.arange(size, device=x.device)
    line = line.reshape([-1 if i == axis % x.dim() else 1 for i in range(x.dim())])
    keep = bool(call.get("keepdims", 1))
    if call.get("select_last_index", 0):
        return torch.where(hit, line, -1).amax(axis, keepdim=keep)
    return torch.where(hit, line, size).amin(axis, keepdim=keep)


@operator("Unique", since=11)
def unique(call: Call, x: Tensor) -> Any:
    """Distinct slices, sorted or as they come, with first places, inverse and counts."""
    axis = call.get("axis")
    rows = x.reshape(-1) if axis is None else x
    along = 0 if axis is None else int(axis)
    _, inverse, counts = torch.unique(
        rows.detach(), return_inverse=True, return_counts=True, dim=along
    )
    inverse = inverse.reshape(-1)
    size = inverse.shape[0]
    first = torch.full((counts.shape[0],), size, dtype=torch.long)
    first = first.scatter_reduce(0, inverse, torch.arange(size), "amin", include_self=True)
    if not call.get("sorted", 1):
        order = torch.argsort(first)
        first, counts = first[order], counts[order]
        inverse = torch.argsort(order)[inverse]
    return rows.index_select(along, first), first, inverse, counts


@operator("TensorScatter", since=24)
def tensor_scatter(call: Call, past: Tensor, update: Tensor, at: Tensor | None = None) -> Tensor:
    """A cache with new entries written from an index on, perhaps round and round."""
    axis = int(call.get("axis", -2)) % past.dim()
    size, count = past.shape[axis], update.shape[axis]
    starts = torch.zeros(past.shape[0], dtype=torch.long) if at is None else at.long()
    places = starts.unsqueeze(1) + torch.arange(count)
    if call.get("mode", "linear") == "circular":
        places = places.remainder(size)
    shape = [past.shape[0], *[1] * (past.dim() - 1)]
    shape[axis] = count
    return past.scatter(axis, places.reshape(shape).expand(update.shape), update)

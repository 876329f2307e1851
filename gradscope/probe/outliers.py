"""The largest weights and units of a tensor, against the typical ones."""

from __future__ import annotations

import math

import numpy as np
import torch

from gradscope.measurements import Outlier
from gradscope.probe.hosted import chunk_of
from gradscope.probe.rounds import Asking

_KEPT = 4
_SAMPLE = 1 << 18  # elements from which the median is taken
_MAD = 1.4826  # median of |x| times this is the standard deviation of a normal x


def outliers(weight: torch.Tensor, axis: int = 0) -> Asking[tuple[Outlier, ...]]:
    """The largest elements and units, at most four of each.

    Scores as in :class:`gradscope.measurements.Outlier`; nothing where the typical size is 0.

    Args:
        weight: real and finite.
        axis: on which its units lie.
    """
    if not weight.is_floating_point():
        weight = weight.double()
    wide = weight if weight.dtype in (torch.float32, torch.float64) else weight.float()
    units = yield from _units(wide, axis)
    return (*units, *(yield from _elements(wide)))


def _elements(weight: torch.Tensor) -> Asking[list[Outlier]]:
    flat = weight.reshape(-1)
    if flat.numel() < 2:
        return []
    step = -(-flat.numel() // _SAMPLE)
    places = _largest(flat)
    middle, places_, values = yield [flat[::step].abs().median(), places, flat[places]]
    typical = _MAD * middle
    if typical == 0:
        return []
    found = []
    for at, value in zip(places_, values, strict=True):
        index = [int(i) for i in np.unravel_index(at, tuple(weight.shape))]  # torch's imports sympy
        found.append(Outlier(str(index).replace(" ", ""), value, abs(value) / typical))
    return found


def _largest(flat: torch.Tensor) -> torch.Tensor:
    """Where the largest elements stand, piece by piece: sorting takes a multiple of its input."""
    values, places, start = [], [], 0
    for piece in torch.split(flat, chunk_of(flat)):
        top = torch.topk(piece.abs(), min(_KEPT, piece.numel()))
        values.append(top.values)
        places.append(top.indices + start)
        start += piece.numel()
    order = torch.sort(torch.cat(values), descending=True, stable=True).indices[:_KEPT]
    return torch.cat(places)[order]


def _units(weight: torch.Tensor, axis: int) -> Asking[list[Outlier]]:
    if weight.dim() < 2 or weight.shape[axis] < 2:
        return []
    rows = weight.movedim(axis, 0).reshape(weight.shape[axis], -1)
    rms = torch.linalg.vector_norm(rows, dim=1).double() / math.sqrt(rows.shape[1])
    top = torch.topk(rms, min(_KEPT, len(rms)))
    typical, places, values = yield [rms.median(), top.indices, top.values]
    if typical == 0:
        return []
    before, behind = ":," * axis, ",:" * (weight.dim() - 1 - axis)
    found = zip(places, values, strict=True)
    return [Outlier(f"[{before}{i}{behind}]", value, value / typical) for i, value in found]

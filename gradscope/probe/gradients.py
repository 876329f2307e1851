"""Statistics of parameters' gradients, many at a time: once a report, whatever its depth.

A gradient is looked at as it arrives, large ones by themselves and small ones of one size a few
dozen together, since each operation on those costs more to start than to do. What is found stays on
the gradient's device as counts and sums; numbers are made of them at the end, in one transfer, so
that an accelerator is waited for once and not for every statistic.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from gradscope.measurements import GradientStats, State
from gradscope.probe.histogram import (
    QUANTILE_ERROR,
    BitHistogram,
    bins_of,
    count_bits,
    quantiles_of,
)
from gradscope.probe.hosted import chunk_of, is_here, to_host
from gradscope.probe.norms import norms_of
from gradscope.probe.scratch import Scratch

_SMALL, _SMALL_ELSEWHERE = 1 << 15, 1 << 18  # elements of a gradient that may wait for others
_WAITING = 32  # how many wait at most
_KEPT = 512  # how many stay on their device: each is 16 KB of counts
_FP16_TINY, _BF16_TINY = 2.0**-25, 2.0**-134  # half of the smallest subnormal rounds to 0


def gradient_stats(gradient: torch.Tensor | None) -> GradientStats:
    """Statistics of one gradient; ``None`` means that no path led to the parameter."""
    table = GradientTable()
    table.add("", gradient)
    return table.stats()[""]


@dataclass(frozen=True)
class _Found:
    """What was found of some gradients of one size, one row each, on their device.

    Attributes:
        names: whose.
        dtype: of the gradients.
        numel: of each.
        counts: (names, bins), int64.
        zeros: elements that are exactly 0, int64.
        norms, largest: L2 norm and largest magnitude of the finite elements, float64.
        lost: elements, not 0, that would be 0 in bfloat16, int64.
    """

    names: tuple[str, ...]
    dtype: torch.dtype
    numel: int
    counts: torch.Tensor
    zeros: torch.Tensor
    norms: torch.Tensor
    largest: torch.Tensor
    lost: torch.Tensor

    def tensors(self) -> tuple[torch.Tensor, ...]:
        return self.counts, self.zeros, self.norms, self.largest, self.lost


class GradientTable:
    """Gathers gradients by name; :meth:`stats` makes numbers of all of them."""

    def __init__(self) -> None:
        self._done: dict[str, GradientStats] = {}
        self._found: list[_Found] = []
        self._waiting: dict[tuple[int, torch.dtype, torch.device], dict[str, torch.Tensor]] = {}
        self._names: set[str] = set()
        self._kept = 0
        self._scratch = Scratch()

    def add(self, name: str, gradient: torch.Tensor | None, scale: float = 1.0) -> None:
        """Look at one gradient, times ``scale``; it is multiplied in place.

        Args:
            name: of the parameter, once each.
            gradient: floating or complex, dense; None: no path led to the parameter.
            scale: what its sum is to be multiplied by.
        """
        self._names.add(name)
        if gradient is None or not gradient.numel():
            state = State.NO_PATH if gradient is None else State.ZERO
            self._done[name] = GradientStats(state)
            return
        whole = gradient.detach()
        if scale != 1.0:
            whole = whole.mul_(scale)
        flat = (torch.view_as_real(whole) if whole.is_complex() else whole).reshape(-1)
        n = flat.numel()
        if n > (_SMALL if is_here(flat) else _SMALL_ELSEWHERE):
            self._keep(_look((name,), flat.unsqueeze(0), self._scratch))
            return
        key = (n, flat.dtype, flat.device)
        group = self._waiting.setdefault(key, {})
        group[name] = flat
        if len(group) == _WAITING:
            rows = torch.stack([*self._waiting.pop(key).values()])
            self._keep(_look(tuple(group), rows, self._scratch))

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def stats(self) -> dict[str, GradientStats]:
        """Of everything that was added."""
        for group in self._waiting.values():
            self._keep(_look(tuple(group), torch.stack([*group.values()]), self._scratch))
        self._waiting.clear()
        self._settle()
        return self._done

    def _keep(self, found: _Found) -> None:
        self._found.append(found)
        self._kept += len(found.names)
        if self._kept >= _KEPT:
            self._settle()

    def _settle(self) -> None:
        """From counts and sums to numbers."""
        found, self._found, self._kept = self._found, [], 0
        here = iter(to_host([t for each in found for t in each.tensors()]))
        for each in found:
            counts, zeros, norms, largest, lost = (next(here) for _ in each.tensors())
            double = each.dtype is torch.float64
            rows = BitHistogram.rows(counts.numpy(), zeros.tolist(), double=double)
            columns = rows, quantiles_of(rows), norms.tolist(), largest.tolist(), lost.tolist()
            for name, *row in zip(each.names, *columns, strict=True):
                self._done[name] = _stats(each.dtype, each.numel, *row)


def _look(names: tuple[str, ...], rows: torch.Tensor, scratch: Scratch) -> _Found:
    """What the rows show; where that means waiting, every question is answered beforehand."""
    dtype, numel = rows.dtype, rows.shape[1]
    wide = rows if dtype in (torch.float32, torch.float64) else rows.float()
    counts = count_bits(wide, scratch)
    look = _look_here if is_here(wide) else _look_elsewhere
    return _Found(names, dtype, numel, counts, *look(wide, counts))


Columns = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def _look_here(wide: torch.Tensor, counts: torch.Tensor) -> Columns:
    """Zeros, norms, largest, lost: what seldom occurs is only looked for where the counts say that
    it does."""
    seen, nothing = counts.numpy(), torch.zeros(len(wide), dtype=torch.int64)
    zeros = lost = nothing
    bins, edge = bins_of(double=wide.dtype is torch.float64)
    if seen[:, 0].any():  # zeros stand in the first bin, which is empty more often than not
        zeros = wide.shape[1] - torch.count_nonzero(wide, dim=1)
    tiny = seen[:, :edge].sum(axis=1) - zeros.numpy()
    if wide.dtype is torch.float32 and tiny.any():
        # Among float32's subnormals the bins are too wide for bfloat16's limit.
        lost = ((wide.abs() < _BF16_TINY) & (wide != 0)).sum(dim=1)
    if seen[:, bins - edge :].any():
        wide = torch.nan_to_num(wide, nan=0.0, posinf=0.0, neginf=0.0)
    largest = _largest(wide)
    norms = norms_of(wide)
    odd = (largest > 0) & ~((norms > 1e-18) & (norms < 1e18))
    if odd.numpy().any():  # squares may have left float32's range
        norms[odd] = _scaled_norm(wide[odd], largest[odd])
    return zeros, norms, largest, lost


def _look_elsewhere(wide: torch.Tensor, counts: torch.Tensor) -> Columns:
    """The same without asking, in pieces that need no copy of the whole."""
    parts = []
    for piece in torch.split(wide, chunk_of(wide), dim=1):
        zeros = piece.shape[1] - torch.count_nonzero(piece, dim=1)
        lost = ((piece.abs() < _BF16_TINY) & (piece != 0)).sum(dim=1)
        finite = torch.nan_to_num(piece, nan=0.0, posinf=0.0, neginf=0.0)
        largest = _largest(finite)
        parts.append((zeros, _scaled_norm(finite, largest), largest, lost))
    zeros, norms, largest, lost = (torch.stack(column) for column in zip(*parts, strict=True))
    top = largest.amax(dim=0)
    unit = torch.where(top > 0, top, 1.0)
    norms = torch.linalg.vector_norm(norms / unit, dim=0) * unit
    return zeros.sum(dim=0), norms, top, lost.sum(dim=0)


def _largest(finite: torch.Tensor) -> torch.Tensor:
    # Two reductions take a tenth of the time that ``aminmax`` takes along an axis.
    return torch.maximum(-finite.amin(dim=1), finite.amax(dim=1)).double()


def _scaled_norm(finite: torch.Tensor, largest: torch.Tensor) -> torch.Tensor:
    """L2 norms of rows whose squares may leave the range of their type."""
    unit = torch.where(largest > 0, largest, 1.0)
    norms: torch.Tensor = torch.linalg.vector_norm(finite.double() / unit.unsqueeze(1), dim=1)
    return norms * unit


def _stats(
    dtype: torch.dtype,
    n: int,
    histogram: BitHistogram,
    middles: Mapping[str, float],
    norm: float,
    largest: float,
    lost: int,
) -> GradientStats:
    state = _state(n, histogram)
    quantiles = middles if state is State.VALUE else None
    return GradientStats(
        state=state,
        numel=n,
        norm=norm,
        rms=norm / math.sqrt(n),
        max_abs=largest,
        quantiles=quantiles,
        quantile_error=QUANTILE_ERROR if quantiles else None,
        zero_fraction=histogram.zeros / n,
        subnormal_fraction=_subnormal(dtype, histogram) / n,
        nonfinite_fraction=histogram.nonfinite / n,
        fp16_underflow_fraction=(
            None if dtype is torch.float16 else histogram.below(_FP16_TINY) / n
        ),
        bf16_underflow_fraction=_lost(dtype, histogram, lost, n),
        octaves=histogram.octaves(),
    )


def _state(numel: int, histogram: BitHistogram) -> State:
    if histogram.nonfinite:
        return State.NONFINITE
    return State.ZERO if histogram.zeros == numel else State.VALUE


def _subnormal(dtype: torch.dtype, histogram: BitHistogram) -> int:
    """In the tensor's own type: float16 has its own limit, the other types share a bin edge."""
    if dtype is torch.float16:
        return histogram.below(torch.finfo(torch.float16).tiny)
    return histogram.subnormal


def _lost(dtype: torch.dtype, histogram: BitHistogram, lost: int, n: int) -> float | None:
    """Share that would be 0 in bfloat16; None in a gradient of it: what it lost is 0 already."""
    if dtype is torch.bfloat16:
        return None
    return (histogram.below(_BF16_TINY) if histogram.double else lost) / n

"""Sees every activation of a forward pass, with its pre-activation, whatever code called it.

A ``TorchDispatchMode`` stands below autograd and below modules: ``nn.Tanh``, ``torch.tanh``, a
script and the cells of an LSTM all arrive here as ``aten.tanh``. Statistics are taken on the spot,
so that no pre-activation is kept alive.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gradscope.probe.activations import GLU, OPERATIONS, SOFTSIGN, Call, Kind
from gradscope.probe.layout import BatchLayout
from gradscope.probe.stats import ForwardStats, Moments

_aten = torch.ops.aten
MAX_MOMENTS = 2048
"""Between-sample variance uses at most so many elements of a site, evenly spread: memory."""


@dataclass(frozen=True)
class Plan:
    """How the axes of one site's tensors are to be read.

    Attributes:
        layout: where the samples are; None if they are coupled or unknown.
        unit_axis: counted from the end (-1: features of a linear layer, -3: channels of images).
    """

    layout: BatchLayout | None
    unit_axis: int = -1


@dataclass(frozen=True)
class Record:
    """One call of an activation: what it was and what it showed.

    ``addresses``: where its input and output lay in memory; autograd saves one of the two.
    """

    call: Call
    shape: tuple[int, ...]
    stats: ForwardStats
    addresses: frozenset[int] = frozenset()

    @property
    def kind(self) -> Kind:
        """The kind of activation."""
        return self.call.kind


PlanOf = Callable[[int, Kind, tuple[int, ...]], Plan]


class ActivationTap(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While active, appends a :class:`Record` for each activation that runs.

    Args:
        plan: called with (index of the call, kind, shape); says how to read the axes.
        samples: samples in the batch.
        measure: False only lists the calls.
    """

    def __init__(self, plan: PlanOf, samples: int, *, measure: bool = True) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.records: list[Record] = []
        self._plan, self._samples, self._measure = plan, samples, measure
        self._softsign: list[tuple[str, int, torch.Tensor]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        packet = func.overloadpacket
        describe = OPERATIONS.get(packet)
        if describe is None:
            result = func(*args, **kwargs)
            if packet in _SOFTSIGN_STEPS:
                self._step_softsign(packet, args, result)
            return result
        z = args[0]
        call = describe(*args, **kwargs)
        if call is None or not z.is_floating_point():
            return func(*args, **kwargs)
        if call.kind is GLU:
            z = z.chunk(2, int(call.attributes[0]))[1]
        # In-place forms overwrite z, so it is read first.
        before = self._before(call, z) if self._measure else None
        result = func(*args, **kwargs)
        output = result[0] if isinstance(result, tuple) else result
        self._append(call, args[0], output, before)
        return result

    def _step_softsign(self, packet: Any, args: tuple[Any, ...], result: Any) -> None:
        """z / (1 + |z|) is three operations: abs, add, div on the same z."""
        if packet is _aten.abs:
            self._softsign = [("abs", result.data_ptr(), args[0])]
        elif self._softsign:
            state, pointer, z = self._softsign[0]
            if packet is _aten.add and state == "abs" and _is_at(args, pointer):
                self._softsign = [("add", result.data_ptr(), z)]
            elif packet is _aten.div and state == "add" and _is_at(args[1:2], pointer):
                self._softsign = []
                if isinstance(args[0], torch.Tensor) and args[0].data_ptr() == z.data_ptr():
                    call = Call(SOFTSIGN)
                    before = self._before(call, z) if self._measure else None
                    self._append(call, z, result, before)

    def _before(self, call: Call, z: torch.Tensor) -> tuple[Plan, ForwardStats]:
        plan = self._plan(len(self.records), call.kind, tuple(z.shape))
        wide = z if z.dtype in (torch.float32, torch.float64) else z.float()
        return plan, pre_activation_stats(call, wide, plan.unit_axis)

    def _append(
        self,
        call: Call,
        z: torch.Tensor,
        output: torch.Tensor,
        before: tuple[Plan, ForwardStats] | None,
    ) -> None:
        stats = ForwardStats()
        if before is not None:
            plan, stats = before
            stats = with_output(stats, output, plan.layout, self._samples)
        addresses = frozenset((z.data_ptr(), output.data_ptr()))
        self.records.append(Record(call, tuple(output.shape), stats, addresses))


_EXACT_IN_FLOAT = 1 << 24
_SOFTSIGN_STEPS = frozenset({_aten.abs, _aten.add, _aten.div})


def _is_at(args: tuple[Any, ...], pointer: int) -> bool:
    return any(isinstance(a, torch.Tensor) and a.data_ptr() == pointer for a in args)


def _per_unit(mask: torch.Tensor, unit_axis: int) -> torch.Tensor:
    """Count of True per unit, int64, shape (units,)."""
    axis = unit_axis % mask.dim() if mask.dim() else 0
    others = [d for d in range(mask.dim()) if d != axis]
    if not others:
        return mask.reshape(-1).long()
    if mask.numel() < _EXACT_IN_FLOAT:  # sums of floats run on all lanes, those of bools do not
        return mask.to(torch.float32).sum(dim=others).long()
    return mask.sum(dim=others)


def pre_activation_stats(call: Call, z: torch.Tensor, unit_axis: int) -> ForwardStats:
    """Statistics of z alone: saturation, relative derivative, scale. ``z``: float32 or float64."""
    kind, attributes = call.kind, call.attributes
    units = z.shape[unit_axis] if z.dim() else 1
    square = torch.linalg.vector_norm(z).double().square_()
    saturated = off = relative = None
    if kind.edge is not None:
        centred = z - kind.centre(attributes) if kind.centre is not None else z
        edge = kind.edge(attributes)
        beyond = centred.abs() >= edge
        saturated = _per_unit(beyond, unit_axis)
    if kind.zeroes:
        off = _per_unit(z <= (attributes[0] if kind.name == "threshold" else 0.0), unit_axis)
    if kind.name == "relu" and off is not None:
        relative = (z.numel() - off.sum()).double()
    elif kind.relative is not None:
        relative = kind.relative(z, attributes).sum(dtype=torch.float64)
    return ForwardStats(
        numel=z.numel(),
        per_unit=z.numel() // max(units, 1),
        saturated=saturated,
        off=off,
        relative=relative,
        pre_square=square,
        nonfinite=_nonfinite(z, square),
    )


_NONE = torch.zeros((), dtype=torch.int64)


def _nonfinite(z: torch.Tensor, square: torch.Tensor) -> torch.Tensor:
    """Count of NaN and infinities, only looked for where the sum of squares is not finite."""
    if z.device.type == "cpu" and math.isfinite(square.item()):
        return _NONE
    return (~torch.isfinite(z)).sum()


def with_output(
    stats: ForwardStats, output: torch.Tensor, layout: BatchLayout | None, samples: int
) -> ForwardStats:
    """``stats`` completed by what the output shows."""
    wide = output if output.dtype in (torch.float32, torch.float64) else output.float()
    moments: tuple[Moments, ...] = ()
    if layout is not None and layout.fits(tuple(output.shape), samples):
        rows = layout.rows(wide, samples)
        step = -(-rows.shape[1] // MAX_MOMENTS)
        moments = (Moments.of(rows[:, ::step]),)
    square = torch.linalg.vector_norm(wide).double().square_()
    return ForwardStats(
        stats.numel, stats.per_unit, stats.saturated, stats.off, stats.relative,
        stats.pre_square, square, stats.nonfinite, moments,
    )  # fmt: skip

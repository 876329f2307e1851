"""Sees every activation of a forward pass, with its pre-activation, whatever code called it.

A ``TorchDispatchMode`` stands below autograd and below modules: ``nn.Tanh``, ``torch.tanh``, a
script and the cells of an LSTM all arrive here as ``aten.tanh``. Statistics are taken on the spot,
so that no pre-activation is kept alive; only small ones wait, a few dozen at a time, since a
recurrent network makes thousands of them and each operation on them costs more to start than to do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gradscope.probe.activations import GLU, OPERATIONS, SOFTSIGN, WRITTEN, Call, Kind
from gradscope.probe.forward_stats import of_inputs, with_outputs
from gradscope.probe.layout import Plan
from gradscope.probe.scratch import Scratch
from gradscope.probe.stats import ForwardStats

_aten = torch.ops.aten
_SMALL = {"cpu": 1 << 15}  # elements of a tensor that may wait, by type of device
_SMALL_ELSEWHERE = 1 << 18  # where an operation on a large one costs no more than on a small one
_WAITING = 32  # how many of one kind wait at most
_MANY = 1 << 20  # elements that are looked at together


@dataclass(frozen=True, slots=True)
class Record:
    """One call of an activation: what it was and what it showed.

    Attributes:
        call: kind and attributes.
        shape: of its output.
        stats: what it showed.
        number: sequence number of the newest autograd node as it ran: its own, if it has one, since
            autograd numbers a node before it runs the operation.
        refused: why it cannot be measured, if it cannot.
    """

    call: Call
    shape: tuple[int, ...]
    stats: ForwardStats
    number: int = -1
    refused: str | None = None

    @property
    def kind(self) -> Kind:
        """The kind of activation."""
        return self.call.kind


@dataclass
class _Group:
    """Small calls of one kind and shape, waiting to be looked at together."""

    call: Call
    plan: Plan
    inputs: torch.Tensor
    outputs: torch.Tensor
    indices: list[int] = field(default_factory=list)


PlanOf = Callable[[int, Kind, tuple[int, ...]], Plan]


class EagerMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A mode that torch need not shield from its compiler: that would import the compiler, which
    takes longer than torch itself, and ask it at every operation."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


class ActivationTap(EagerMode):
    """While active, appends a :class:`Record` for each activation that runs.

    Args:
        plan: called with (index of the call, kind, shape); says how to read the axes.
        samples: samples in the batch.
        measure: False only lists the calls.
        scratch: memory to compute in, kept by who makes several of these.
    """

    def __init__(
        self,
        plan: PlanOf,
        samples: int,
        *,
        measure: bool = True,
        scratch: Scratch | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.records: list[Record] = []
        self._plan, self._samples, self._measure = plan, samples, measure
        self._softsign: list[tuple[str, int, torch.Tensor]] = []
        self._waiting: dict[Any, _Group] = {}
        self._scratch = scratch or Scratch()
        self.storages: set[int] = set()
        """Addresses of all that operations took, if nothing is measured."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if not self._measure:
            self._note(args, kwargs)
        packet = func.overloadpacket
        if packet not in _LOOKED_AT:
            return func(*args, **kwargs)
        describe, written = OPERATIONS.get(packet), WRITTEN.get(packet)
        found = written(*args, **kwargs) if written is not None else None
        if found is not None:
            return self._run(func, args, kwargs, *found)
        if describe is None:
            result = func(*args, **kwargs)
            if packet in _SOFTSIGN_STEPS:
                self._step_softsign(packet, args, result)
            return result
        z = args[0]
        call = describe(*args, **kwargs)
        if call is None:
            return func(*args, **kwargs)
        refused = _refusal(z)
        if refused is not None:
            self.records.append(Record(call, (), ForwardStats(), refused=refused))
            return func(*args, **kwargs)
        if call.kind is GLU:
            z = z.chunk(2, int(call.attributes[0]))[1]
        return self._run(func, args, kwargs, call, z)

    def _run(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], call: Call, z: torch.Tensor
    ) -> Any:
        # In-place forms overwrite z, so it is read first.
        stays = not func._schema.is_mutable
        take = self._read(call, z, stays=stays) if self._measure else None
        number = _newest_node()
        result = func(*args, **kwargs)
        self._append(call, result[0] if isinstance(result, tuple) else result, number, take)
        return result

    def _note(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for value in tree_leaves((args, kwargs)):
            if not isinstance(value, torch.Tensor) or value.is_nested:
                continue
            if value.layout is torch.strided:
                self.storages.add(value.untyped_storage().data_ptr())

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
                    take = self._read(call, z) if self._measure else None
                    self._append(call, result, _newest_node(), take)

    def finish(self) -> list[Record]:
        """The records, once the pass is over: looks at what still waits."""
        for group in self._waiting.values():
            self._settle(group)
        self._waiting.clear()
        return self.records

    def add_steps(self, gates: Sequence[tuple[Kind, torch.Tensor, torch.Tensor]]) -> None:
        """Activations of a recurrence that ran without being seen: one record a step and gate.

        Args:
            gates: kind, pre-activations and outputs [time, ...], in the order of a step.
        """
        first, steps = len(self.records), len(gates[0][1])
        shape = tuple(gates[0][1].shape[1:])
        together = max(1, _MANY // max(1, math.prod(shape)))
        columns: list[list[ForwardStats]] = []
        for place, (kind, inputs, outputs) in enumerate(gates):
            plan, column = self._plan(first + place, kind, shape), list[ForwardStats]()
            for start in range(0, steps, together):
                z, out = (t[start : start + together] for t in (inputs, outputs))
                seen = of_inputs(Call(kind), z, plan.unit_axis, self._scratch, stays=True)
                column += with_outputs(seen, out, plan, self._samples, self._scratch)
            columns.append(column)
        calls = [Call(kind) for kind, _, _ in gates]
        self.records += [
            Record(call, shape, column[t])
            for t in range(steps)
            for call, column in zip(calls, columns, strict=True)
        ]

    def _read(
        self, call: Call, z: torch.Tensor, *, stays: bool = False
    ) -> Callable[[torch.Tensor], None]:
        """Take in z before the operation; what is returned takes in the output.

        ``stays``: the operation leaves z as it is.
        """
        index = len(self.records)
        plan = self._plan(index, call.kind, tuple(z.shape))
        if z.numel() <= _SMALL.get(z.device.type, _SMALL_ELSEWHERE):
            return self._wait(call, plan, z)
        inputs = of_inputs(call, z.unsqueeze(0), plan.unit_axis, self._scratch, stays=stays)

        def take(output: torch.Tensor) -> None:
            wide = output.unsqueeze(0)
            (stats,) = with_outputs(inputs, wide, plan, self._samples, self._scratch)
            self.records[index] = replace(self.records[index], stats=stats)

        return take

    def _wait(self, call: Call, plan: Plan, z: torch.Tensor) -> Callable[[torch.Tensor], None]:
        index = len(self.records)
        key = (call, plan, tuple(z.shape), z.dtype, z.device)
        group = self._waiting.get(key)
        if group is None:
            inputs = z.new_empty((_WAITING, *z.shape))
            group = self._waiting[key] = _Group(call, plan, inputs, torch.empty_like(inputs))
        place = len(group.indices)
        group.inputs[place].copy_(z)
        group.indices.append(index)

        def take(output: torch.Tensor) -> None:
            group.outputs[place].copy_(output)
            if len(group.indices) == _WAITING:
                self._settle(self._waiting.pop(key))

        return take

    def _settle(self, group: _Group) -> None:
        count = len(group.indices)
        call, plan, scratch = group.call, group.plan, self._scratch
        inputs = of_inputs(call, group.inputs[:count], plan.unit_axis, scratch, stays=True)
        found = with_outputs(inputs, group.outputs[:count], plan, self._samples, scratch)
        for index, stats in zip(group.indices, found, strict=True):
            self.records[index] = replace(self.records[index], stats=stats)

    def _append(
        self,
        call: Call,
        output: torch.Tensor,
        number: int,
        take: Callable[[torch.Tensor], None] | None,
    ) -> None:
        self.records.append(Record(call, tuple(output.shape), ForwardStats(), number))
        if take is not None:
            take(output)


_SOFTSIGN_STEPS = frozenset({_aten.abs, _aten.add, _aten.div})
_LOOKED_AT = _SOFTSIGN_STEPS | OPERATIONS.keys() | WRITTEN.keys()


def _is_at(args: tuple[Any, ...], pointer: int) -> bool:
    return any(isinstance(a, torch.Tensor) and a.data_ptr() == pointer for a in args)


def _newest_node() -> int:
    """Sequence number of the autograd node that was made last."""
    return int(torch._C._autograd._get_sequence_nr()) - 1


def _refusal(z: torch.Tensor) -> str | None:
    """Why nothing can be said of an activation of ``z``."""
    if z.is_complex():
        return "complex numbers: an activation of them has no derivative in this sense"
    if z.is_nested or z.layout is not torch.strided:
        return f"its input is {'nested' if z.is_nested else str(z.layout).removeprefix('torch.')}"
    return None if z.is_floating_point() else f"{str(z.dtype).removeprefix('torch.')} numbers"

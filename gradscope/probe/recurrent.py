"""LSTM and GRU as torch's own CPU code runs them, for devices where their cells are one kernel.

There neither ``torch.backends`` nor a mode shows the gates: each step is a single operation. These
are the same operations in the same order as on the CPU, so the gates stand in the graph, and the
sites are those of a CPU. RNNs have no such kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional

Tensor = torch.Tensor
State = tuple[Tensor, ...]
Cell = Callable[[Tensor, State, Sequence[Tensor]], State]
"""(input's part of the gates, state, parameters) -> state; its first tensor is the output."""


def stepwise(function: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """What ``function`` returns, gate by gate; ``NotImplemented`` where it is another function.

    Args:
        function: one of ``torch.lstm``, ``gru``, ``lstm_cell``, ``gru_cell``.
        args, kwargs: its arguments. Packed sequences are not taken apart.
    """
    if kwargs:
        return NotImplemented
    if function is torch.lstm_cell or function is torch.gru_cell:
        x, state, w_ih, w_hh, *biases = args
        own: Sequence[Tensor]
        own = (w_ih, w_hh, *(b for b in biases if b is not None))
        if function is torch.gru_cell:
            return _gru(_input_part(x, own), (state,), own)[0]
        return _lstm(_input_part(x, own), tuple(state), own)
    if function not in (torch.lstm, torch.gru) or len(args) != 9 or args[0].dim() != 3:
        return NotImplemented
    x, state, weights, _biased, layers, dropout, training, both, batch_first = args
    if not isinstance(weights, list | tuple):  # packed: a tensor of sizes stands here
        return NotImplemented
    cell = _lstm if function is torch.lstm else _gru
    states = tuple(state) if function is torch.lstm else (state,)
    x = x.transpose(0, 1) if batch_first else x
    width = len(weights) // (layers * (2 if both else 1))
    ends: list[State] = []
    for layer in range(layers):
        outputs = []
        for direction in range(2 if both else 1):
            at = len(ends)
            own = weights[at * width : (at + 1) * width]
            y, end = _direction(cell, x, tuple(s[at] for s in states), own, direction == 1)
            outputs.append(y)
            ends.append(end)
        x = torch.cat(outputs, dim=-1) if both else outputs[0]
        if dropout and training and layer < layers - 1:
            x = functional.dropout(x, dropout, training=True)
    last = tuple(torch.stack(parts) for parts in zip(*ends, strict=True))
    return (x.transpose(0, 1) if batch_first else x, *last)


def _direction(
    cell: Cell, x: Tensor, state: State, own: Sequence[Tensor], backwards: bool
) -> tuple[Tensor, State]:
    """All steps of (steps, samples, features); outputs in the order of the steps."""
    steps = list(_input_part(x, own).unbind(0))
    outputs = []
    for step in reversed(steps) if backwards else steps:
        state = cell(step, state, own)
        outputs.append(state[0])
    if backwards:
        outputs.reverse()
    return torch.stack(outputs), state


def _input_part(x: Tensor, own: Sequence[Tensor]) -> Tensor:
    return functional.linear(x, own[0], own[2] if len(own) > 3 else None)


def _state_part(h: Tensor, own: Sequence[Tensor]) -> Tensor:
    return functional.linear(h, own[1], own[3] if len(own) > 3 else None)


def _lstm(x: Tensor, state: State, own: Sequence[Tensor]) -> State:
    h, c = state
    i, f, g, o = _state_part(h, own).add_(x).unsafe_chunk(4, 1)
    i, f, g, o = i.sigmoid_(), f.sigmoid_(), g.tanh_(), o.sigmoid_()
    c = (f * c).add_(i * g)
    h = o * c.tanh()
    projected = own[-1] if len(own) in (3, 5) else None  # of LSTMs with proj_size
    return (functional.linear(h, projected) if projected is not None else h), c


def _gru(x: Tensor, state: State, own: Sequence[Tensor]) -> State:
    (h,) = state
    x_r, x_z, x_n = x.unsafe_chunk(3, 1)
    h_r, h_z, h_n = _state_part(h, own).unsafe_chunk(3, 1)
    reset, update = h_r.add_(x_r).sigmoid_(), h_z.add_(x_z).sigmoid_()
    new = x_n.add(h_n.mul_(reset)).tanh_()
    return ((h - new).mul_(update).add_(new),)

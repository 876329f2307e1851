"""Gates of recurrent layers without running their steps one by one.

Torch's own layer, with its fused kernel where there is one, gives the hidden states h_t. The
pre-activations of all gates and steps are then one matrix product, [x_t, h_(t-1)] [W, R]^T + b (for
a GRU two, since its reset gate stands between), and what remains is elementwise. No gradient comes
through gates that are found in this way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from torch.utils._python_dispatch import _disable_current_modes

from gradscope.probe.activations import RELU, SIGMOID, TANH, Kind

Tensor = torch.Tensor
_aten = torch.ops.aten
_LSTM, _GRU, _TANH, _RELU = "LSTM", "GRU", "RNN", "RNN of ReLUs"
CALLS = {
    torch.lstm: _LSTM, torch.gru: _GRU, torch.rnn_tanh: _TANH, torch.rnn_relu: _RELU,
    _aten.lstm.input: _LSTM, _aten.gru.input: _GRU,
    _aten.rnn_tanh.input: _TANH, _aten.rnn_relu.input: _RELU,
}  # fmt: skip
"""What a call is of, in eager code and in exported programs."""

_RUN: dict[str, Callable[..., Any]] = {
    _LSTM: torch.lstm, _GRU: torch.gru, _TANH: torch.rnn_tanh, _RELU: torch.rnn_relu
}  # fmt: skip


@dataclass(frozen=True)
class Gate:
    """One activation of a cell over all steps, first to last as they ran.

    Attributes:
        kind: what it is.
        inputs, outputs: [time, batch, units].
    """

    kind: Kind
    inputs: Tensor
    outputs: Tensor


Cell = tuple[Gate, ...]
"""The activations of one layer and direction, in the order of a step."""


class NotFusedError(Exception):
    """A call whose gates cannot be found in this way; the message is the reason."""


@dataclass(frozen=True)
class _Layers:
    """A call of torch's recurrent layers, its arguments by name."""

    op: str
    x: Tensor
    states: tuple[Tensor, ...]
    weights: Sequence[Tensor]
    biased: bool
    count: int
    both: bool
    batch_first: bool

    @classmethod
    def of(cls, op: str, args: Sequence[Any]) -> _Layers:
        """From the arguments of the call.

        Raises:
            NotFusedError: these do more than the product shows.
        """
        if len(args) != 9 or not isinstance(args[2], (list, tuple)):
            raise NotFusedError("packed sequences")
        x, hidden, weights, biased, count, dropout, train, both, batch_first = args
        if dropout and train and count > 1:
            raise NotFusedError("dropout between its layers")
        if len(weights) != count * (2 if both else 1) * (4 if biased else 2):
            raise NotFusedError("a projection of its states")
        if x.dim() != 3:
            raise NotFusedError("an input without a batch")
        states = tuple(hidden) if op == _LSTM else (hidden,)
        return cls(op, x, states, weights, bool(biased), count, bool(both), bool(batch_first))


def run(op: str, args: Sequence[Any]) -> tuple[tuple[Tensor, ...], list[Cell]]:
    """What the call returns, and its gates in the order in which torch's steps would make them.

    Args:
        op: a value of :data:`CALLS`.
        args: of the call.

    Raises:
        NotFusedError: the steps have to be run.
    """
    layers = _Layers.of(op, args)
    with torch.no_grad(), torch._C.DisableTorchFunction(), _disable_current_modes():
        return _all_layers(layers)


def _all_layers(layers: _Layers) -> tuple[tuple[Tensor, ...], list[Cell]]:
    directions = 2 if layers.both else 1
    per = len(layers.weights) // layers.count
    x = layers.x.transpose(0, 1) if layers.batch_first else layers.x
    cells: list[Cell] = []
    last: list[list[Tensor]] = [[] for _ in layers.states]
    for i in range(layers.count):
        weights = layers.weights[i * per : (i + 1) * per]
        first = [s[i * directions : (i + 1) * directions] for s in layers.states]
        y, ends = _one_layer(layers, x, first, weights)
        for column, end in zip(last, ends, strict=True):
            column.append(end)
        for d, out in enumerate(y.chunk(directions, -1)):
            mine = weights[d * per // directions : (d + 1) * per // directions]
            begin = [s[d] for s in first]
            cells.append(_cell(layers.op, _forwards(x, d), _forwards(out, d), begin, mine))
        x = y
    y = x.transpose(0, 1) if layers.batch_first else x
    return (y, *(torch.cat(column) for column in last)), cells


def _one_layer(
    layers: _Layers, x: Tensor, first: Sequence[Tensor], weights: Sequence[Tensor]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    states: Any = tuple(s.contiguous() for s in first)
    given = states if layers.op == _LSTM else states[0]
    options = (weights, layers.biased, 1, 0.0, False, layers.both, False)
    y, *ends = _RUN[layers.op](x, given, *options)
    return y, tuple(ends)


def _forwards(x: Tensor, direction: int) -> Tensor:
    """In the order in which the steps ran."""
    return x.flip(0) if direction else x


def _cell(
    op: str, x: Tensor, y: Tensor, first: Sequence[Tensor], weights: Sequence[Tensor]
) -> Cell:
    before = torch.cat([first[0].unsqueeze(0), y[:-1]]) if len(y) else y
    w, r, *biases = weights
    if op == _GRU:
        return _gru(functional.linear(x, w, *biases[:1]), functional.linear(before, r, *biases[1:]))
    bias = biases[0] + biases[1] if biases else None
    z = functional.linear(torch.cat([x, before], -1), torch.cat([w, r], 1), bias)
    if op == _LSTM:
        return _lstm(z, first[1])
    kind = TANH if op == _TANH else RELU
    return (Gate(kind, z, y),)


def _lstm(z: Tensor, state: Tensor) -> Cell:
    parts = z.chunk(4, -1)
    i, f, g, o = (
        Gate(kind, part, torch.tanh(part) if kind is TANH else torch.sigmoid(part))
        for kind, part in zip((SIGMOID, SIGMOID, TANH, SIGMOID), parts, strict=True)
    )
    new = i.outputs * g.outputs
    states = torch.empty_like(new)
    for t in range(len(z)):
        state = torch.addcmul(new[t], f.outputs[t], state, out=states[t])
    return i, f, g, o, Gate(TANH, states, torch.tanh(states))


def _gru(of_x: Tensor, of_h: Tensor) -> Cell:
    (x_r, x_z, x_n), (h_r, h_z, h_n) = of_x.chunk(3, -1), of_h.chunk(3, -1)
    r, z = x_r + h_r, x_z + h_z
    reset = Gate(SIGMOID, r, torch.sigmoid(r))
    n = torch.addcmul(x_n, reset.outputs, h_n)
    return reset, Gate(SIGMOID, z, torch.sigmoid(z)), Gate(TANH, n, torch.tanh(n))

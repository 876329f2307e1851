"""LSTM, GRU and RNN.

Where the attributes are those of torch's own layers they run as such, with the gates' rows brought
into torch's order: the probe then sees the gates as in torch. All else (peepholes, clipping, other
activations, sequence lengths, a reset gate before the product) runs step by step in
:mod:`gradscope.loading.onnx.operators.recurrent_steps`, with its gates split in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from gradscope.loading.onnx.operators.recurrent_steps import Cell, unroll
from gradscope.loading.onnx.operators.shape import reversal
from gradscope.loading.onnx.registry import Call, Slot, operator

Tensor = torch.Tensor
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
# ONNX: i o f c and z r h; torch: i f c o and r z n.
_ORDER = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
_ACTIVATIONS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
# Input and state are added up, so that a usual start is that of the wider one.
_PRODUCT = Slot(lambda call, shape: max(shape[-1], shape[-2] // _GATES[call.node.op]))
_WEIGHTS = {1: _PRODUCT, 2: _PRODUCT, 3: Slot()}


@dataclass(frozen=True)
class _Layer:
    """Inputs of one layer, time first.

    Attributes:
        x: [time, batch, features].
        lengths: [batch], or None where every sequence is complete.
        hidden, cell: first states [directions, batch, units].
    """

    x: Tensor
    lengths: Tensor | None
    hidden: Tensor
    cell: Tensor


@operator("LSTM", since=7, weights={**_WEIGHTS, 7: Slot()})
def lstm(call: Call, x: Tensor, w: Any, r: Any, *rest: Any) -> tuple[Any, ...]:
    """Y, Y_h, Y_c of a long short-term memory."""
    bias, lengths, hidden, cell, peepholes = (*rest, *[None] * 5)[:5]
    return _run(call, x, w, r, bias, lengths, hidden, cell, peepholes)


@operator("GRU", "RNN", since=7, weights=_WEIGHTS)
def gru(call: Call, x: Tensor, w: Any, r: Any, *rest: Any) -> tuple[Any, ...]:
    """Y, Y_h of a gated or plain recurrent layer."""
    bias, lengths, hidden = (*rest, *[None] * 3)[:3]
    return _run(call, x, w, r, bias, lengths, hidden, None, None)[:2]


def _run(
    call: Call, x: Tensor, w: Any, r: Any, bias: Any, lengths: Tensor | None,
    hidden: Tensor | None, cell: Tensor | None, peepholes: Any,
) -> tuple[Any, ...]:  # fmt: skip
    batch_first = bool(call.get("layout", 0))
    if batch_first:
        x = x.transpose(0, 1)
        hidden, cell = (s if s is None else s.transpose(0, 1) for s in (hidden, cell))
    directions = 2 if call.get("direction", "forward") == "bidirectional" else 1
    units = r[0].shape[-1]
    zeros = x.new_zeros((directions, x.shape[1], units))
    if lengths is not None and bool((lengths == x.shape[0]).all()):
        lengths = None
    layer = _Layer(x, lengths, zeros if hidden is None else hidden, zeros if cell is None else cell)
    cells = [_cell(call, d, w, r, bias, peepholes) for d in range(directions)]
    if all(c.plain for c in cells) and lengths is None:
        y, h, c = _as_torch(call, layer, cells)
    else:
        y, h, c = _in_steps(call, layer, cells)
    if batch_first:
        return y.permute(2, 0, 1, 3), h.transpose(0, 1), c.transpose(0, 1)
    return y, h, c


def _cell(call: Call, d: int, w: Any, r: Any, bias: Any, peepholes: Any) -> Cell:
    op = call.node.op
    names = call.get("activations") or _ACTIVATIONS[op]
    count = len(_ACTIVATIONS[op])
    if len(names) < count * (d + 1):
        names = tuple(names) * (d + 1)
    mine = tuple(str(n).lower() for n in names[count * d : count * (d + 1)])
    weights = [_ordered(op, w[d]), _ordered(op, r[d])]
    if bias is not None:
        weights += [_ordered(op, b) for b in bias[d].chunk(2)]
    return Cell(
        op=op,
        weights=tuple(weights),
        activations=mine,
        alphas=tuple(call.get("activation_alpha", ())),
        betas=tuple(call.get("activation_beta", ())),
        peepholes=None if peepholes is None else peepholes[d],
        clip=call.get("clip"),
        couples=bool(call.get("input_forget", 0)),
        resets_late=bool(call.get("linear_before_reset", 0)),
    )


def _ordered(op: str, weight: Tensor) -> Tensor:
    """Rows of the gates in torch's order."""
    order = _ORDER[op]
    if len(order) == 1:
        return weight
    parts = weight.chunk(_GATES[op])
    return torch.cat([parts[i] for i in order])


def _as_torch(call: Call, layer: _Layer, cells: Sequence[Cell]) -> tuple[Tensor, Tensor, Tensor]:
    op, both = call.node.op, len(cells) == 2
    backwards = call.get("direction", "forward") == "reverse"
    x = layer.x.flip(0) if backwards else layer.x
    weights = [w for cell in cells for w in cell.weights]
    biased = len(cells[0].weights) == 4
    options = (weights, biased, 1, 0.0, False, both, False)
    if op == "LSTM":
        y, h, c = torch.lstm(x, (layer.hidden, layer.cell), *options)
    else:
        kinds = {"GRU": torch.gru, "RNN": torch.rnn_tanh}
        run = torch.rnn_relu if cells[0].activations == ("relu",) else kinds[op]
        y, h = run(x, layer.hidden, *options)
        c = layer.cell
    y = y.flip(0) if backwards else y
    if not both:
        return y.unsqueeze(1), h, c
    return y.reshape(*y.shape[:2], 2, -1).transpose(1, 2), h, c


def _in_steps(call: Call, layer: _Layer, cells: Sequence[Cell]) -> tuple[Tensor, Tensor, Tensor]:
    outputs, hidden, states = [], [], []
    for d, cell in enumerate(cells):
        backwards = d == 1 or call.get("direction", "forward") == "reverse"
        x = _reversed(layer.x, layer.lengths) if backwards else layer.x
        y, h, c = unroll(cell, x, layer.hidden[d], layer.cell[d], layer.lengths)
        outputs.append(_reversed(y, layer.lengths) if backwards else y)
        hidden.append(h)
        states.append(c)
    return torch.stack(outputs, 1), torch.stack(hidden), torch.stack(states)


def _reversed(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Each sequence from its last step to its first; what follows its end stays."""
    return x.flip(0) if lengths is None else x.gather(0, reversal(x, lengths))

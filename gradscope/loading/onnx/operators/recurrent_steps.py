"""One recurrent layer, step by step, with every gate an operation of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

Tensor = torch.Tensor
_PLAIN = {
    "LSTM": (("sigmoid", "tanh", "tanh"),),
    "GRU": (("sigmoid", "tanh"),),
    "RNN": (("tanh",), ("relu",)),
}


@dataclass(frozen=True)
class Cell:
    """One direction of a layer.

    Attributes:
        op: LSTM, GRU or RNN.
        weights: of x, of h, and perhaps their biases; gates in torch's order.
        activations: names, in small letters.
        alphas, betas: their parameters, as the file lists them.
        peepholes: [3 units], of i o f.
        clip: bound of every pre-activation.
        couples: the forget gate is one minus the input gate.
        resets_late: the reset gate is applied after the product (linear_before_reset).
    """

    op: str
    weights: tuple[Tensor, ...]
    activations: tuple[str, ...]
    alphas: tuple[float, ...] = ()
    betas: tuple[float, ...] = ()
    peepholes: Tensor | None = None
    clip: float | None = None
    couples: bool = False
    resets_late: bool = False

    @property
    def plain(self) -> bool:
        """Whether torch's own layer computes the same."""
        late = self.op != "GRU" or self.resets_late
        usual = self.activations in _PLAIN[self.op]
        return usual and late and self.peepholes is None and not self.clip and not self.couples

    def activate(self, index: int, z: Tensor) -> Tensor:
        """One of the activations, after clipping.

        Raises:
            ValueError: its name is not known.
        """
        if self.clip:
            z = z.clamp(-self.clip, self.clip)
        name = self.activations[index]
        # The file lists parameters only for those activations that have some.
        before = [a for a in self.activations[:index] if a in _ALPHAS]
        alpha = self.alphas[len(before)] if len(self.alphas) > len(before) else _ALPHAS.get(name)
        lower = [a for a in self.activations[:index] if a in _BETAS]
        beta = self.betas[len(lower)] if len(self.betas) > len(lower) else _BETAS.get(name)
        if name not in _FUNCTIONS:
            raise ValueError(f"the activation '{name}' is not known")
        return _FUNCTIONS[name](z, alpha or 0.0, beta or 0.0)


_ALPHAS = {"affine": 1.0, "leakyrelu": 0.01, "thresholdedrelu": 1.0, "scaledtanh": 1.0,
           "hardsigmoid": 0.2, "elu": 1.0}  # fmt: skip
_BETAS = {"affine": 0.0, "scaledtanh": 1.0, "hardsigmoid": 0.5}
_FUNCTIONS: dict[str, Callable[[Tensor, float, float], Tensor]] = {
    "sigmoid": lambda z, a, b: torch.sigmoid(z),
    "tanh": lambda z, a, b: torch.tanh(z),
    "relu": lambda z, a, b: torch.relu(z),
    "affine": lambda z, a, b: z * a + b,
    "leakyrelu": lambda z, a, b: functional.leaky_relu(z, a),
    "thresholdedrelu": lambda z, a, b: functional.threshold(z, a, 0.0),
    "scaledtanh": lambda z, a, b: torch.tanh(z * b) * a,
    "hardsigmoid": lambda z, a, b: functional.hardsigmoid(z * (6.0 * a) + (6.0 * b - 3.0)),
    "elu": lambda z, a, b: functional.elu(z, a),
    "softsign": lambda z, a, b: functional.softsign(z),
    "softplus": lambda z, a, b: functional.softplus(z),
}


def unroll(
    cell: Cell, x: Tensor, h: Tensor, c: Tensor, lengths: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs [time, batch, units] and the last states [batch, units].

    Args:
        cell: the layer.
        x: [time, batch, features].
        h, c: first states [batch, units].
        lengths: steps of each sequence; later outputs are 0 and the states stay.
    """
    w, r, *biases = cell.weights
    inner = functional.linear(x, w, biases[0] if biases else None)
    bias = biases[1] if biases else None
    step = {"LSTM": _lstm_step, "GRU": _gru_step, "RNN": _rnn_step}[cell.op]
    outputs = []
    for t in range(x.shape[0]):
        new_h, new_c = step(cell, inner[t], r, bias, h, c)
        if lengths is None:
            h, c = new_h, new_c
            outputs.append(h)
            continue
        runs = (lengths.to(x.device) > t).unsqueeze(1)
        h, c = torch.where(runs, new_h, h), torch.where(runs, new_c, c)
        outputs.append(torch.where(runs, new_h, torch.zeros_like(new_h)))
    y = torch.stack(outputs) if outputs else x.new_zeros((0, *h.shape))
    return y, h, c


_Step = tuple[Tensor, Tensor]


def _lstm_step(
    cell: Cell, x: Tensor, r: Tensor, bias: Tensor | None, h: Tensor, c: Tensor
) -> _Step:
    z = x + functional.linear(h, r, bias)
    i, f, g, o = z.chunk(4, -1)
    if cell.peepholes is not None:
        p_i, p_o, p_f = cell.peepholes.chunk(3)
        i, f = i + p_i * c, f + p_f * c
    i = cell.activate(0, i)
    f = 1 - i if cell.couples else cell.activate(0, f)
    c = f * c + i * cell.activate(1, g)
    if cell.peepholes is not None:
        o = o + p_o * c
    o = cell.activate(0, o)
    inner = cell.clip
    squashed = _unclipped(cell, c) if inner else cell.activate(2, c)
    return o * squashed, c


def _unclipped(cell: Cell, c: Tensor) -> Tensor:
    """The state's own activation: the specification clips the gates' inputs alone."""
    name = cell.activations[2]
    return _FUNCTIONS[name](c, _ALPHAS.get(name, 0.0), _BETAS.get(name, 0.0))


def _gru_step(cell: Cell, x: Tensor, r: Tensor, bias: Tensor | None, h: Tensor, c: Tensor) -> _Step:
    # Three products, not one: the parts of x alone name the gates, and a part of h must not.
    x_r, x_z, x_n = x.chunk(3, -1)
    r_r, r_z, r_n = r.chunk(3)
    b_r, b_z, b_n = (None, None, None) if bias is None else bias.chunk(3)
    reset = cell.activate(0, x_r + functional.linear(h, r_r, b_r))
    update = cell.activate(0, x_z + functional.linear(h, r_z, b_z))
    if cell.resets_late:
        new = cell.activate(1, x_n + reset * functional.linear(h, r_n, b_n))
    else:
        new = cell.activate(1, x_n + functional.linear(reset * h, r_n, b_n))
    return (1 - update) * new + update * h, c


def _rnn_step(cell: Cell, x: Tensor, r: Tensor, bias: Tensor | None, h: Tensor, c: Tensor) -> _Step:
    return cell.activate(0, x + functional.linear(h, r, bias)), c

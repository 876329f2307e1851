"""A sane start for some layers of a model, whatever its format: by the shapes of its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from gradscope.repair.recurrent import Part
from gradscope.repair.suspects import Feeding, Suspects

_GAINS = {
    "sigmoid": 4.0, "hardsigmoid": 6.0, "glu": 1.0, "softplus": 1.0,
    "relu": 2**0.5, "leaky_relu": 2**0.5, "prelu": 2**0.5, "relu6": 2**0.5, "gelu": 2**0.5,
    "silu": 2**0.5, "mish": 2**0.5, "hardswish": 2**0.5, "threshold": 2**0.5, "rrelu": 2**0.5,
}  # fmt: skip
"""1 / phi'_0 for bounded activations, sqrt 2 for those that let half of the units through."""

_CENTRES = {"sigmoid": 0.5, "hardsigmoid": 0.5}
"""What these activations give at z = 0: the next layer's bias takes it out again, so that a
logistic network starts as the tanh network that it is a reparameterisation of."""


@torch.no_grad()
def restart(
    tensors: Mapping[str, torch.Tensor],
    suspects: Suspects,
    generator: torch.Generator,
    parts: Sequence[Part] = (),
) -> None:
    """Orthogonal weights with the gain of their activation, biases at zero, in place.

    A recurrent matrix of a plain RNN starts as the identity, a forget bias at 1, norms at 1 and 0.

    Args:
        tensors: all parameters by name.
        suspects: what to start again.
        generator: of the random matrices.
        parts: the recurrent layers; those of ONNX cannot be told by the names of their weights.
    """
    matrices = {f.parameter.name for f in suspects.feeding}
    cells = [p for p in parts if p.onnx and matrices.intersection(p.names)]
    done = {name for cell in cells for name in cell.names}
    for cell in cells:
        for name, value in _cell(cell, tensors, generator).items():
            tensors[name].copy_(value)
    for feeding in suspects.feeding:
        if feeding.parameter.name not in done:
            _weight(feeding, tensors[feeding.parameter.name], generator)
    centres = {
        f.parameter.layer: f for f in suspects.feeding if f.behind in _CENTRES and f.kind != "glu"
    }
    for vector in suspects.vectors:
        if vector.name not in tensors or vector.name in done:
            continue
        tensor, (layer, _, own) = tensors[vector.name], vector.name.rpartition(".")
        tensor.fill_(vector.start)
        if own.startswith("bias_ih") and _blocks(vector.name, tensors) == 4:
            hidden = tensor.shape[0] // 4
            tensor[hidden : 2 * hidden] = 1.0
        feeding_it = centres.get(layer)
        if feeding_it is not None and own == "bias":
            _centre(tensor, tensors[feeding_it.parameter.name], feeding_it.behind)


def _weight(feeding: Feeding, tensor: torch.Tensor, generator: torch.Generator) -> None:
    own, fan_in = feeding.parameter.name.rpartition(".")[2], feeding.parameter.fan_in
    if own.startswith(("weight_hh", "weight_ih")):
        _recurrent(own, tensor, generator)
        return
    if fan_in is None:
        tensor.normal_(generator=generator)  # a table that is looked up
        return
    gain = _GAINS.get(feeding.kind or "", 1.0)
    tensor.copy_(_orthogonal(tensor.shape, generator, fan_in).mul_(gain))


def _cell(
    cell: Part, tensors: Mapping[str, torch.Tensor], generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """A layer of ONNX as one of torch would start, by name."""
    w_ih, w_hh, *biases = (value.clone() for value in cell.read(lambda n: tensors[n]))
    _recurrent("weight_ih", w_ih, generator)
    _recurrent("weight_hh", w_hh, generator)
    for i, bias in enumerate(biases):
        bias.zero_()
        if not i and cell.kind == "LSTM":
            bias[cell.hidden : 2 * cell.hidden] = 1.0
    return cell.write([w_ih, w_hh, *biases])


def _recurrent(own: str, tensor: torch.Tensor, generator: torch.Generator) -> None:
    hidden = tensor.shape[1] if own.startswith("weight_hh") else None
    rows = hidden or tensor.shape[0]
    if hidden is not None and tensor.shape[0] == hidden:
        tensor.copy_(torch.eye(hidden))
        return
    for block in torch.split(tensor, rows):
        block.copy_(_orthogonal(block.shape, generator))


def _orthogonal(
    shape: torch.Size, generator: torch.Generator, fan_in: int | None = None
) -> torch.Tensor:
    """Rows or columns orthonormal, scaled so that the root mean square of z is that of x.

    ``fan_in``: inputs of one unit; None: all of a row (a product of ONNX may hold them in columns).
    """
    rows = shape[0]
    columns = max(1, torch.Size(shape).numel() // max(1, rows))
    wide = torch.randn(max(rows, columns), min(rows, columns), generator=generator)
    q, r = torch.linalg.qr(wide)
    q = q * r.diagonal().sign()
    matrix = q if rows >= columns else q.T
    scaled: torch.Tensor = matrix * (max(rows, columns) / (fan_in or columns)) ** 0.5
    return scaled.reshape(shape)


def _blocks(name: str, tensors: Mapping[str, torch.Tensor]) -> int:
    """4 for an LSTM, 3 for a GRU, 1 for a plain RNN."""
    recurrent = tensors.get(name.replace("bias_ih", "weight_hh"))
    return 0 if recurrent is None else tensors[name].shape[0] // max(1, recurrent.shape[1])


def _centre(bias: torch.Tensor, weight: torch.Tensor, behind: str | None) -> None:
    inputs = weight.reshape(weight.shape[0], -1)
    if len(bias) == len(inputs):
        bias.copy_(inputs.sum(dim=1).mul_(-_CENTRES[behind or ""]))

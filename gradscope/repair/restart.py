"""A sane start for some layers of a model, whatever its format: by the shapes of its weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch

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
    tensors: Mapping[str, torch.Tensor], suspects: Suspects, generator: torch.Generator
) -> None:
    """Orthogonal weights with the gain of their activation, biases at zero, in place.

    A recurrent matrix of a plain RNN starts as the identity, a forget bias at 1, norms at 1 and 0.

    Args:
        tensors: all parameters by name.
        suspects: what to start again.
        generator: of the random matrices.
    """
    for feeding in suspects.feeding:
        _weight(feeding, tensors[feeding.parameter.name], generator)
    matrices = {f.parameter.name for f in suspects.feeding}
    centres = {
        f.parameter.layer: f for f in suspects.feeding if f.behind in _CENTRES and f.kind != "glu"
    }
    for name, tensor in tensors.items():
        layer, _, own = name.rpartition(".")
        touched = suspects.whole or layer in suspects.layers
        if name in matrices or tensor.dim() != 1 or not touched:
            continue
        if _is_scale(own):
            tensor.fill_(1.0)
            continue
        tensor.zero_()
        if own.startswith("bias_ih") and _blocks(name, tensors) == 4:
            hidden = tensor.shape[0] // 4
            tensor[hidden : 2 * hidden] = 1.0
        feeding_it = centres.get(layer)
        if feeding_it is not None and own == "bias":
            _centre(tensor, tensors[feeding_it.parameter.name], feeding_it.behind)


def _weight(feeding: Feeding, tensor: torch.Tensor, generator: torch.Generator) -> None:
    own = feeding.parameter.name.rpartition(".")[2]
    if own.startswith(("weight_hh", "weight_ih")):
        _recurrent(own, tensor, generator)
        return
    if feeding.parameter.fan_in is None:
        tensor.normal_(generator=generator)  # a table that is looked up
        return
    gain = _GAINS.get(feeding.kind or "", 1.0)
    tensor.copy_(_orthogonal(tensor.shape, generator).mul_(gain))


def _recurrent(own: str, tensor: torch.Tensor, generator: torch.Generator) -> None:
    hidden = tensor.shape[1] if own.startswith("weight_hh") else None
    rows = hidden or tensor.shape[0]
    if hidden is not None and tensor.shape[0] == hidden:
        tensor.copy_(torch.eye(hidden))
        return
    for block in torch.split(tensor, rows):
        block.copy_(_orthogonal(block.shape, generator))


def _orthogonal(shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """Rows or columns orthonormal, scaled so that the root mean square of z is that of x."""
    rows = shape[0]
    columns = max(1, torch.Size(shape).numel() // max(1, rows))
    wide = torch.randn(max(rows, columns), min(rows, columns), generator=generator)
    q, r = torch.linalg.qr(wide)
    q = q * r.diagonal().sign()
    matrix = q if rows >= columns else q.T
    scaled: torch.Tensor = matrix * max(1.0, rows / columns) ** 0.5
    return scaled.reshape(shape)


def _is_scale(own: str) -> bool:
    """A one-dimensional weight is the scale of a norm (or the slope of a PReLU)."""
    return own.startswith("weight") or own in ("gamma", "scale")


def _blocks(name: str, tensors: Mapping[str, torch.Tensor]) -> int:
    """4 for an LSTM, 3 for a GRU, 1 for a plain RNN."""
    recurrent = tensors.get(name.replace("bias_ih", "weight_hh"))
    return 0 if recurrent is None else tensors[name].shape[0] // max(1, recurrent.shape[1])


def _centre(bias: torch.Tensor, weight: torch.Tensor, behind: str | None) -> None:
    inputs = weight.reshape(weight.shape[0], -1)
    if len(bias) == len(inputs):
        bias.copy_(inputs.sum(dim=1).mul_(-_CENTRES[behind or ""]))

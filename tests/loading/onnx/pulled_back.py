"""Gradients of an export's weights, led back to the parameters of the network it was made of.

Exporters rename weights, transpose them, reorder the gates of recurrent layers, cut the
projections of attention apart and fold batch norms into convolutions. Each weight of the file is
recognised by its value as one such form of the network's parameters; a form is a differentiable
function of them, so the chain rule gives every one of them its gradient, those of folded batch
norms too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

_ORDER = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}  # of torch's gates in ONNX


def forms(module: nn.Module) -> Iterator[Tensor]:
    """Everything that an exporter makes of the parameters."""
    children = list(module.modules())
    for child in children:
        for p in child.parameters(recurse=False):
            yield p
            if p.dim() == 2:
                yield p.t()
        if isinstance(child, nn.RNNBase):
            yield from _recurrent(child)
        if isinstance(child, nn.MultiheadAttention):
            for chunk in child.in_proj_weight.chunk(3):
                yield chunk.t()
            yield from child.in_proj_bias.chunk(3)
    for conv in children:
        for norm in children:
            fits = isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
            if fits and conv.out_channels == norm.num_features:
                yield from _folded(conv, norm)


def _recurrent(layer: nn.RNNBase) -> Iterator[Tensor]:
    def ordered(p: Tensor) -> Tensor:
        order = _ORDER[layer.mode]
        parts = p.chunk(len(order))
        return torch.cat([parts[i] for i in order])

    for w, r, b, c in layer.all_weights:
        yield from (ordered(w), ordered(r), torch.cat([ordered(b), ordered(c)]))


def _folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> Iterator[Tensor]:
    factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    bias = 0.0 if conv.bias is None else conv.bias
    yield conv.weight * factor.reshape(-1, 1, 1, 1)
    yield (bias - norm.running_mean) * factor + norm.bias


def pulled_back(module: nn.Module, gradients: Mapping[str, tuple[Tensor, Tensor]]) -> list[Tensor]:
    """Gradients of the parameters in their order.

    Args:
        module: the network.
        gradients: value and gradient of each weight of its export.

    Raises:
        AssertionError: a weight is no form of any parameter.
    """
    known = list(forms(module))
    parameters = list(module.parameters())
    total = [torch.zeros_like(p) for p in parameters]
    for name, (value, gradient) in gradients.items():
        found = [f for f in known if f.shape == value.shape and torch.allclose(f, value, 1e-5)]
        assert found, f"{name} {tuple(value.shape)} is no form of any parameter"
        parts = torch.autograd.grad(
            found[0], parameters, gradient, allow_unused=True, retain_graph=True
        )
        for into, part in zip(total, parts, strict=True):
            if part is not None:
                into += part
    return total


def alike(parameters: list[Tensor]) -> list[list[int]]:
    """Parameters of one value: exporters keep such ones once, and their gradients add up."""
    groups: list[list[int]] = []
    for i, p in enumerate(parameters):
        for group in groups:
            if torch.equal(parameters[group[0]], p):
                group.append(i)
                break
        else:
            groups.append([i])
    return groups

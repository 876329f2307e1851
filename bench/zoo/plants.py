"""What each condition does to a network, in place. ``conditions.py`` says it in words."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from bench.zoo.families import Family
from bench.zoo.nets import Recurrent, Residual, Transformer
from bench.zoo.starts import hidden, weighted

AFTER_TRAINING = {"x10", "x30", "one-layer", "dead-layer", "qk10", "nan", "scaled-works"}
"""Planted in the trained reference; the others in a new network."""
DEFAULT_START = {"default", "default-half", "plateaued", "sane-flat", "plateaued-flat"}
WHOLE_BUDGET = {"plateaued", "plateaued-flat", "inputs-raw"}
"""Saved after the whole budget of steps; the others at once (seed 0) or after a quarter."""

Plant = Callable[[nn.Module, Family, torch.Tensor], None]


def plant(condition: str, net: nn.Module, family: Family, x: torch.Tensor) -> None:
    """Do to ``net`` what ``condition`` says.

    Args:
        x: training inputs, for conditions that are set by the sizes of activations.
    """
    from bench.zoo import fourth_plants, fresh_plants  # which build on this

    every = {**_PLANTS, **fresh_plants.PLANTS, **fourth_plants.PLANTS}
    with torch.no_grad():
        every.get(condition, _nothing)(net, family, x)


def _nothing(net: nn.Module, family: Family, x: torch.Tensor) -> None:
    pass


def _uniform(limit: float) -> Plant:
    def draw(net: nn.Module, family: Family, x: torch.Tensor) -> None:
        for p in weighted(net):
            p.uniform_(-limit, limit)

    return draw


def _normal(sd: float) -> Plant:
    def draw(net: nn.Module, family: Family, x: torch.Tensor) -> None:
        for p in weighted(net):
            p.normal_(0, sd)

    return draw


def _small(net: nn.Module, family: Family, x: torch.Tensor) -> None:
    _normal(0.05 if family.width < 24 else 0.02)(net, family, x)


def _times(factor: float) -> Plant:
    def scale(net: nn.Module, family: Family, x: torch.Tensor) -> None:
        for p in weighted(net):
            p.mul_(factor)

    return scale


def _gain3(net: nn.Module, family: Family, x: torch.Tensor) -> None:
    for layer in hidden(net):
        layer.weight.mul_(3)


def _one_layer(net: nn.Module, family: Family, x: torch.Tensor) -> None:
    layers = hidden(net)
    layer = layers[len(layers) // 2]
    layer.weight.uniform_(-10, 10)
    layer.bias.uniform_(-10, 10)


def _collapse(net: nn.Module, family: Family, x: torch.Tensor) -> None:
    layers = hidden(net)
    layer = layers[len(layers) // 2]
    layer.weight.mul_(1e-5)
    layer.bias.uniform_(-0.5, 0.5)


def _input_of(net: nn.Module, layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    caught: list[torch.Tensor] = []
    handle = layer.register_forward_hook(lambda m, args, out: caught.append(out))
    was = net.training
    net.eval()
    net(x[:256])
    net.train(was)
    handle.remove()
    return caught[0]


def _shift(net: nn.Module, layer: nn.Module, x: torch.Tensor, to: Callable) -> None:
    """Biases of a layer moved by ``to(mean, sd)`` of each unit's z."""
    z = _input_of(net, layer, x)
    axes = [0, *range(2, z.dim())] if isinstance(layer, nn.Conv1d | nn.Conv2d) else None
    mean = z.mean(axes) if axes else z.flatten(0, -2).mean(0)
    sd = z.std(axes) if axes else z.flatten(0, -2).std(0)
    after = _norm_behind(net, layer)
    if after is not None:  # a bias before a batch norm does nothing
        after.bias.fill_(float(to(torch.zeros(1), torch.ones(1))))
    else:
        layer.bias.add_(to(mean, sd))


def _norm_behind(net: nn.Module, layer: nn.Module) -> nn.Module | None:
    """The batch norm that follows ``layer``, if one does."""
    modules = [m for m in net.modules() if not list(m.children())]
    later = modules[modules.index(layer) + 1 :]
    between = (nn.BatchNorm1d, nn.BatchNorm2d)
    if isinstance(net, Residual):
        block = next(b for b in net.blocks if b.first is layer)
        return block.between if isinstance(block.between, between) else None
    return later[0] if later and isinstance(later[0], between) else None


def _bias(net: nn.Module, family: Family, x: torch.Tensor) -> None:
    for layer in hidden(net):

        def away(mean: torch.Tensor, sd: torch.Tensor) -> torch.Tensor:
            side = torch.randint(0, 2, mean.shape) * 2 - 1
            return side * (8 * sd + 3) - mean

        _shift(net, layer, x, away)


def _down(mean: torch.Tensor, sd: torch.Tensor) -> torch.Tensor:
    return -mean - 20 * sd - 1


def _dead(net: nn.Module, family: Family, x: torch.Tensor) -> None:
    for layer in hidden(net):
        _shift(net, layer, x, _down)


def _dead_layer(net: nn.Module, family: Family, x: torch.Tensor) -> None:
    layers = hidden(net)
    _shift(net, layers[len(layers) // 2], x, _down)


def _dead_branch(net: nn.Module, family: Family, x: torch.Tensor) -> None:
    assert isinstance(net, Residual)
    for block in net.blocks:
        block.second.weight.mul_(1e-4)
        block.second.bias.mul_(1e-4)


def _recurrent_gain(gain: float) -> Plant:
    def scale(net: nn.Module, family: Family, x: torch.Tensor) -> None:
        assert isinstance(net, Recurrent)
        nn.init.orthogonal_(net.rnn.weight_hh_l0, gain)

    return scale


def _shut(net: nn.Module, family: Family, x: torch.Tensor) -> None:
    assert isinstance(net, Recurrent)
    width = net.rnn.hidden_size
    net.rnn.bias_ih_l0[width : 2 * width] = -6.0


def _qk10(net: nn.Module, family: Family, x: torch.Tensor) -> None:
    assert isinstance(net, Transformer)
    for layer in net.encoder.layers:
        layer.self_attn.in_proj_weight[: 2 * family.width].mul_(10)
        layer.self_attn.in_proj_bias[: 2 * family.width].mul_(10)


def _nan(net: nn.Module, family: Family, x: torch.Tensor) -> None:
    first = next(p for p in weighted(net) if p.dim() > 1)
    first.view(-1)[first.numel() // 3] = math.nan


def _scaled_works(net: nn.Module, family: Family, x: torch.Tensor) -> None:
    """x10 under the next normalisation: the function stays the same."""
    if isinstance(net, Residual) and family.norm == "layer":
        for layer in (net.stem, *(block.second for block in net.blocks)):
            layer.weight.mul_(10)
            layer.bias.mul_(10)
        return
    for layer in hidden(net):
        norm = _norm_behind(net, layer)
        assert norm is not None
        layer.weight.mul_(10)
        layer.bias.mul_(10)
        norm.running_mean.mul_(10)
        norm.running_var.mul_(100)


def _xavier(net: nn.Module, family: Family, x: torch.Tensor) -> None:
    for layer in hidden(net):
        nn.init.xavier_normal_(layer.weight)
        nn.init.zeros_(layer.bias)


_PLANTS: dict[str, Plant] = {
    "u10": _uniform(10),
    "n1": _normal(1),
    "n3": _normal(3),
    "x10": _times(10),
    "x30": _times(30),
    "one-layer": _one_layer,
    "bias": _bias,
    "small": _small,
    "sane-flat": _xavier,
    "plateaued-flat": _xavier,
    "gain3": _gain3,
    "collapse": _collapse,
    "dead": _dead,
    "dead-layer": _dead_layer,
    "dead-branch": _dead_branch,
    "rec0.3": _recurrent_gain(0.3),
    "rec5": _recurrent_gain(5.0),
    "shut": _shut,
    "qk10": _qk10,
    "nan": _nan,
    "scaled-works": _scaled_works,
}

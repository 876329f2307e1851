"""The input standardised while training, and folded into the first weights afterwards.

x' = (x - m) / s is trained on as it is: folded before training, a step of the optimiser on a
weight would still be 1e-3 while x is 1e3. Afterwards W' = W / s and b' = b - W m / s give the same
function of the raw input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from gradscope.model import Batch
from gradscope.repair.base import Tensors
from gradscope.repair.chain import Link


@dataclass(frozen=True)
class Standardisation:
    """What the raw input is shifted and divided by, and where that can be folded.

    Attributes:
        mean, spread: of each feature, or of all of them together, in one row.
        link: the first layer.
    """

    mean: torch.Tensor
    spread: torch.Tensor
    link: Link

    def __call__(self, batch: Batch) -> Batch:
        """The batch with its first input standardised."""
        x = (first_input(batch) - self.mean) / self.spread
        if batch.args:
            return replace(batch, args=(x, *batch.args[1:]))
        return replace(batch, kwargs={**batch.kwargs, next(iter(batch.kwargs)): x})

    def folded(self, tensors: Tensors) -> dict[str, torch.Tensor]:
        """W and b of the first layer for the raw input, from those for the standardised one."""
        weight = tensors[self.link.weight].detach().double()
        spread = self.spread.double().reshape(1, -1)
        flat = weight.flatten(1) / spread
        found = {self.link.weight: flat.reshape(weight.shape).to(tensors[self.link.weight].dtype)}
        if self.link.bias is not None:
            bias = tensors[self.link.bias]
            moved = bias.detach().double() - flat @ self.mean.double().reshape(-1).expand(
                flat.shape[1]
            )
            found[self.link.bias] = moved.to(bias.dtype)
        return found

    def unfolded(self, tensors: Tensors) -> dict[str, torch.Tensor]:
        """The inverse: the same function, of the standardised input."""
        weight = tensors[self.link.weight].detach().double()
        flat = weight.flatten(1)
        found = {}
        if self.link.bias is not None:
            bias = tensors[self.link.bias]
            mean = self.mean.double().reshape(-1).expand(flat.shape[1])
            found[self.link.bias] = (bias.detach().double() + flat @ mean).to(bias.dtype)
        scaled = flat * self.spread.double().reshape(1, -1)
        own = tensors[self.link.weight]
        return {**found, self.link.weight: scaled.reshape(weight.shape).to(own.dtype)}


def first_input(batch: Batch) -> Any:
    """The first argument, by position or by name; None if there is none."""
    return batch.args[0] if batch.args else next(iter(batch.kwargs.values()), None)


def standardisation(
    batches: Callable[[], Iterator[Batch]], link: Link | None, tensors: Tensors
) -> Standardisation | None:
    """Of a sample's first input; None where it cannot be folded into the first layer.

    Features of a linear layer each by themselves; images together, and without a shift, since
    padding would not be shifted with them.
    """
    if link is None:
        return None
    weight = tensors[link.weight]
    count, total, square = 0, torch.zeros(1), torch.zeros(1)
    flat = False
    for batch in batches():
        x = first_input(batch)
        if not isinstance(x, torch.Tensor) or not x.is_floating_point() or x.dim() < 2:
            return None
        flat = x.dim() == 2 and weight.dim() == 2 and x.shape[1] == weight.shape[1]
        rows = x.double() if flat else x.double().reshape(-1, 1)
        count += len(rows)
        total, square = total + rows.sum(dim=0), square + rows.square().sum(dim=0)
    if not count:
        return None
    mean = total / count
    if flat and link.bias is not None:
        spread = (square / count - mean.square()).clamp_min(0).sqrt()
        typical = spread.square().mean().sqrt().clamp_min(1e-12)
        spread = torch.where(spread > 0.01 * typical, spread, typical)
        return Standardisation(mean[None].float(), spread[None].float(), link)
    size = float((square.sum() / count / len(square)).sqrt())
    return Standardisation(torch.zeros(1), torch.full((1,), max(size, 1e-12)), link)

"""Where a model's input enters: the weights that multiply it first, dense, filters or gates."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from gradscope.model import Batch
from gradscope.repair.base import Case, Tensors
from gradscope.repair.capture import Capture
from gradscope.repair.recurrent import Part, find_parts


@dataclass(frozen=True)
class Door:
    """A weight that multiplies the input itself, and the bias that is added.

    Attributes:
        weight, bias: names; of a recurrent layer these stand in ``part``.
        taps: which columns never meet a padding, as (fan_in,); None: all, or it is no filter.
        part: the recurrent layer that this is the entrance of.
    """

    weight: str
    bias: str | None
    taps: torch.Tensor | None = None
    part: Part | None = None

    def read(self, tensors: Tensors) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(W, b), in torch's order of gates."""
        if self.part is None:
            bias = tensors[self.bias].detach() if self.bias is not None else None
            return tensors[self.weight].detach(), bias
        values = self.part.read(lambda n: tensors[n])
        return values[0], values[2] if len(values) > 2 else None

    def write(
        self, tensors: Tensors, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> dict[str, torch.Tensor]:
        """New values by name."""
        if self.part is None:
            found = {self.weight: weight.to(tensors[self.weight].dtype)}
            if self.bias is not None and bias is not None:
                found[self.bias] = bias.to(tensors[self.bias].dtype)
            return found
        values = self.part.read(lambda n: tensors[n])
        values[0] = weight.to(values[0].dtype)
        if bias is not None:
            values[2] = bias.to(values[2].dtype)
        return self.part.write(values)


def find_doors(case: Case, ones: Batch) -> tuple[Door, ...]:
    """The layers that the first input enters; none where they are frozen or not seen.

    Args:
        case: the model.
        ones: a batch of inputs that are all 1, on which a padding shows.
    """
    parts = [p for p in find_parts(case) if p.depth == 0]
    first = [p for p in parts if p.module == parts[0].module]
    width = {case.tensors[p.names[0]].shape[1] for p in first}
    x = next(iter((*ones.args, *ones.kwargs.values())))
    if x.dim() == 3 and width == {x.shape[2]}:
        return tuple(Door(p.names[0], None, part=p) for p in first)
    case.trainee.set_training(False)
    every = dict(case.trainee.module.named_parameters())
    with torch.no_grad(), Capture(every) as capture:
        case.trainee.call(ones)
    if not capture.uses or capture.uses[0].weight not in case.tensors:
        return ()
    use = capture.uses[0]
    bias = use.bias if use.bias in case.tensors else None
    never = (use.rows() == 1).all(dim=0).cpu()
    return (Door(use.weight, bias, None if bool(never.all()) else never),)

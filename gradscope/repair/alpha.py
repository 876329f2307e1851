"""Alpha: the activation alpha phi(z / alpha) of Ven and Lederer (arXiv 2106.02260), folded exactly.

With the same alpha everywhere the inner weights stay: the first W is divided by alpha, every hidden
bias too, and the last W multiplied by it. The file needs no new operator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from gradscope.repair.base import Case, Remedy, Result
from gradscope.repair.kappa import is_bounded


@dataclass(frozen=True)
class Alpha(Remedy):
    """A chain of bounded activations, every layer of which may be changed."""

    alpha: float = 2.0

    name: ClassVar[str] = "alpha"
    summary: ClassVar[str] = "phi to alpha phi(z / alpha), exactly, as in the paper"

    def requires(self, case: Case) -> str | None:
        """A plain chain: anywhere else a scale would not pass through."""
        chain = case.chain
        if chain.outside:
            name, reason = chain.outside[0]
            return f"{name} {reason}, and a scale passes exactly through a plain chain only"
        if not chain.hidden or len(chain.last) != 1:
            return "there is no chain of hidden layers with one output layer"
        for link in chain.hidden:
            if not is_bounded(link):
                return f"{link.weight} feeds no bounded activation, on which alpha acts"
        sites = {s.id for s in case.measured.sites if s.role.value in ("hidden", "gate")}
        apart = sites - {k.site.id for k in chain.hidden if k.site is not None}
        return f"{min(apart)} has no weight of its own" if apart else None

    def apply(self, case: Case) -> Result:
        """First weight, hidden biases, last weight."""
        chain = case.chain
        first, last = chain.hidden[0].weight, chain.last[0].weight
        changed: dict[str, torch.Tensor] = {first: case.tensors[first].detach() / self.alpha}
        for link in chain.hidden:
            if link.bias is not None:
                changed[link.bias] = case.tensors[link.bias].detach() / self.alpha
        changed[last] = case.tensors[last].detach() * self.alpha
        return Result(changed, (f"alpha {self.alpha:g} for {len(chain.hidden)} activations",))

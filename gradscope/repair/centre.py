"""Centre: biases that hold units at one end of their activation moved to where their data are.

On data, in layer order: where the median over units of |mean z| / sd z is above 2 and the mean
relative derivative below .3, b becomes b - mean z. What a unit tells about its input survives,
only the offset goes. What still saturates is shrunk afterwards.
"""

from __future__ import annotations

from typing import ClassVar

import torch

from gradscope.repair.base import Case, Remedy, Result, followed
from gradscope.repair.chain import Link
from gradscope.repair.kappa import BOUNDS, KINDS, Kappa, is_bounded

OFFSET = 2.0
"""Median over units of |mean z| / sd z above which the offset is what saturates."""

STUCK = 0.3
"""Mean relative derivative below which a layer does."""


class Centre(Remedy):
    """b -= mean z in layer order, then kappa."""

    name: ClassVar[str] = "centre"
    summary: ClassVar[str] = "biases moved to where the data are, then kappa"

    def requires(self, case: Case) -> str | None:
        """A bias whose offset saturates its units."""
        some = any(_offset(case, k, {}) is not None for k in case.chain.hidden)
        return None if some else "no bias was found that saturates what it is added to"

    def apply(self, case: Case) -> Result:
        """In layer order, each with the layers before it already centred."""
        changed: dict[str, torch.Tensor] = {}
        said = []
        for link in case.chain.hidden:
            mean = _offset(case, link, changed)
            if mean is None or link.bias is None:
                continue
            own = case.tensors[link.bias].detach()
            changed[link.bias] = own - mean.to(own.dtype)
            said.append(f"{link.bias}: centred, by {float(mean.square().mean().sqrt()):.3g} rms")
        return followed(case, Result(changed, tuple(said)), Kappa())


def _offset(case: Case, link: Link, changed: dict[str, torch.Tensor]) -> torch.Tensor | None:
    """Mean z of each unit, float64, where it is the offset that saturates; None elsewhere."""
    if link.bias is None or link.site is None or not is_bounded(link):
        return None
    kind = KINDS[link.site.kind]
    assert kind.relative is not None
    rows, total, square, working = 0, torch.zeros(1), torch.zeros(1), 0.0
    for uses in case.uses(changed, link.weight):
        for use in uses:
            z = use.z.double().cpu()
            rows += len(z)
            total, square = total + z.sum(dim=0), square + z.square().sum(dim=0)
            working += float(kind.relative(z, BOUNDS.get(kind.name, ())).mean(dim=1).sum())
    if not rows or working / rows >= STUCK:
        return None
    mean = total / rows
    spread = (square / rows - mean.square()).clamp_min(0).sqrt().clamp_min(1e-12)
    return mean if float((mean.abs() / spread).median()) > OFFSET else None

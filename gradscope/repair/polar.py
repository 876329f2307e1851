"""Polar: hidden weights to their nearest orthogonal matrix; for nets that have learned nothing."""

from __future__ import annotations

from typing import ClassVar

import torch

from gradscope.probe.activations import RELU_LIKE
from gradscope.repair.base import Case, Remedy, Result
from gradscope.repair.chain import Link


class Polar(Remedy):
    """W = U S V^T becomes U V^T (times sqrt 2 before a ReLU), b becomes 0; the first layer and the
    outputs are scaled on data to a root mean square of 1. What was learned is lost."""

    name: ClassVar[str] = "polar"
    summary: ClassVar[str] = "orthogonal weights in the directions that they have; biases at zero"

    def requires(self, case: Case) -> str | None:
        """Some weight."""
        return None if case.chain.links else "no layer of its own was found"

    def apply(self, case: Case) -> Result:
        """All layers of the chain."""
        chain = case.chain
        changed: dict[str, torch.Tensor] = {}
        for i, link in enumerate(chain.links):
            weight = case.tensors[link.weight].detach()
            if link.site is None or i == 0:
                changed |= _biasless(case, link)
                changed[link.weight] = weight.clone()
                continue
            gain = 2**0.5 if link.site.kind in RELU_LIKE else 1.0
            changed[link.weight] = gain * orthogonal_factor(weight)
            changed |= _biasless(case, link)
        for link in (*chain.links[:1], *chain.last):
            size = _size(case, link, changed)
            if size > 0:
                changed[link.weight] = changed[link.weight] / size
        said = tuple(f"{name} left as it is: it {reason}" for name, reason in chain.outside)
        return Result(changed, said)


def orthogonal_factor(weight: torch.Tensor) -> torch.Tensor:
    """U V^T of W = U S V^T, W flattened to (units, fan_in); root mean square of z kept for x of any
    direction: where there are more units than inputs the columns are orthonormal."""
    flat = weight.double().flatten(1)
    u, _, vh = torch.linalg.svd(flat, full_matrices=False)
    scale = max(1.0, flat.shape[0] / flat.shape[1]) ** 0.5
    factor: torch.Tensor = scale * (u @ vh)
    return factor.to(weight.dtype).reshape(weight.shape)


def _biasless(case: Case, link: Link) -> dict[str, torch.Tensor]:
    if link.bias is None:
        return {}
    return {link.bias: torch.zeros_like(case.tensors[link.bias])}


def _size(case: Case, link: Link, changed: dict[str, torch.Tensor]) -> float:
    """Root mean square of what the layer gives."""
    squares = [
        use.z.double().square().mean() for uses in case.uses(changed, link.weight) for use in uses
    ]
    return float(torch.stack(squares).mean().sqrt()) if squares else 0.0

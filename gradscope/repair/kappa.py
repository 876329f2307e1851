"""Kappa: each saturated layer shrunk, once, until its units are in their working range.

On data, in layer order. alpha_l is the least alpha >= 1 with mean rho(z / alpha) >= 0.8; W_l and
b_l are multiplied by 1 / alpha_l. With ``refit`` the layer is first fitted anew (ridge regression)
from the repaired activations before it to the z_l that it used to compute, so that what was
learned survives as far as a linear map can carry it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from gradscope.probe.activations import NODES, SOFTSIGN, Kind
from gradscope.repair.base import Case, Remedy, Result
from gradscope.repair.capture import Use
from gradscope.repair.chain import Link
from gradscope.repair.ridge import Moments, solve
from gradscope.treatment import Placed

WORKING = 0.8
"""Mean relative derivative to reach; targets below .5 were measured to be worse."""

KINDS: dict[str, Kind] = {kind.name: kind for kinds in NODES.values() for kind in kinds}
KINDS[SOFTSIGN.name] = SOFTSIGN
_MOST = 1 << 20  # numbers of z that decide on alpha
_ROWS = 1 << 14  # of a batch that a layer is fitted to: an image has hundreds of them
BOUNDS: dict[str, tuple[float, ...]] = {"hardtanh": (-1.0, 1.0), "elu": (1.0, 1.0, 1.0)}


@dataclass(frozen=True)
class Kappa(Remedy):
    """Shrink; with ``refit``, keep what the layer computed; with ``keep``, the outputs' size too,
    which training wants small and whoever reads the outputs does not."""

    refit: bool = False
    keep: bool = False

    name: ClassVar[str] = "kappa"
    summary: ClassVar[str] = "shrink each saturated layer until its units work"

    def requires(self, case: Case) -> str | None:
        """A bounded activation with a weight of its own."""
        if not any(is_bounded(link) for link in case.chain.hidden):
            return "no weight stands alone before a hidden activation that saturates"
        return None

    def apply(self, case: Case) -> Result:
        """In layer order, each with the layers before it already repaired."""
        chain = case.chain
        changed: dict[str, torch.Tensor] = {}
        said = [f"{name} left as it is: it {reason}" for name, reason in chain.outside]
        places: list[Placed] = []
        before = {} if not self.refit else pre_activations(case, chain.links)
        for i, link in enumerate(chain.links):
            if self.refit and i and link.weight in before:
                changed |= refitted(case, link, changed, before[link.weight])
            if link.site is None:
                changed |= {} if self.keep else _logits(case, link, changed)
            elif is_bounded(link):
                shrunk = _shrunk(case, link, changed, said)
                changed |= shrunk
                places += [Placed(link.weight, "folded", "into it and its bias")] if shrunk else []
        left = tuple(Placed(name, "left", f"it {reason}") for name, reason in chain.outside)
        return Result(changed, tuple(said), (*places, *left))


def is_bounded(link: Link) -> bool:
    site = link.site
    return site is not None and site.saturated_fraction is not None and site.kind in KINDS


def pre_activations(case: Case, links: tuple[Link, ...]) -> dict[str, torch.Tensor]:
    """z of each layer as the model computes it now, rows of some training samples."""
    found = {}
    for link in links:
        pieces = [use.z for uses in case.uses({}, link.weight) for use in uses]
        if pieces:
            found[link.weight] = torch.cat(pieces)
    return found


def refitted(
    case: Case, link: Link, changed: dict[str, torch.Tensor], wanted: torch.Tensor
) -> dict[str, torch.Tensor]:
    """The link's weight and bias, fitted anew to give ``wanted``; nothing if no product was seen.

    The ridge is chosen across two halves of the samples. Every other sample goes into the second,
    whatever the batches are: a file can be one batch, or sorted by class.
    """
    halves = [Moments.empty(), Moments.empty()]
    start = 0
    batches = case.data.some()
    for batch, uses in zip(batches, case.uses(changed, link.weight), strict=False):
        for use in uses:
            rows = use.rows()
            z = wanted[start : start + len(rows)]
            start += len(rows)
            thin = torch.arange(0, len(rows), len(rows) // _ROWS + 1)
            odd = thin // max(1, len(rows) // batch.size) % 2 == 1  # places of a sample together
            for i, kept in enumerate((thin[~odd], thin[odd])):
                halves[i] = halves[i].merge(Moments.of(rows[kept], z[kept]))
    solved = solve(*halves)
    if solved is None:
        return {}
    weight, bias = solved
    own = case.tensors[link.weight]
    found = {link.weight: weight.reshape(own.shape).to(own.dtype)}
    if link.bias is not None:
        found[link.bias] = bias.to(own.dtype)
    return found


def _shrunk(
    case: Case, link: Link, changed: dict[str, torch.Tensor], said: list[str]
) -> dict[str, torch.Tensor]:
    assert link.site is not None
    pieces = [use.z.reshape(-1) for use in _uses(case, link, changed)]
    if not pieces:
        said.append(f"{link.weight} left as it is: its product was not seen")
        return {}
    z = torch.cat(pieces)
    if len(z) > _MOST:
        z = z[:: len(z) // _MOST + 1]
    alpha = least_alpha(z, KINDS[link.site.kind])
    if alpha == 1.0:
        return {}
    said.append(f"{link.weight}: alpha {alpha:.3g}")
    return _scaled(case, link, changed, 1 / alpha)


def _logits(case: Case, link: Link, changed: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Outputs to a root mean square of 1 at most: the largest stays the largest."""
    squares = [use.z.double().square().mean() for use in _uses(case, link, changed)]
    size = float(torch.stack(squares).mean().sqrt()) if squares else 0.0
    return _scaled(case, link, changed, 1 / size) if size > 1 else {}


def _uses(case: Case, link: Link, changed: dict[str, torch.Tensor]) -> Iterator[Use]:
    for uses in case.uses(changed, link.weight):
        yield from uses


def _scaled(
    case: Case, link: Link, changed: dict[str, torch.Tensor], factor: float
) -> dict[str, torch.Tensor]:
    names = [link.weight, *([link.bias] if link.bias else [])]
    return {n: changed.get(n, case.tensors[n].detach()) * factor for n in names}


def least_alpha(z: torch.Tensor, kind: Kind, working: float = WORKING) -> float:
    """The least alpha >= 1 with mean rho(z / alpha) >= ``working``, by bisection; 1 if z fits."""
    assert kind.relative is not None
    z = z.double()
    attributes = BOUNDS.get(kind.name, ())

    def works(alpha: float) -> bool:
        assert kind.relative is not None
        return float(kind.relative(z / alpha, attributes).mean()) >= working

    if works(1.0):
        return 1.0
    low, high = 1.0, 2.0
    while not works(high) and high < 1e12:
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if works(middle) else (middle, high)
    return high

"""Revive: numbers that are lost replaced, and units that are always off brought back.

A ReLU unit that is 0 for every sample gets b - median z, so that half of the samples pass; where
its incoming weights are gone as well it gets new ones (He et al. 2015) and its outgoing weights
become 0, so that it disturbs nothing. Weights that are not finite become 0 up to half of a matrix;
beyond that the layer starts anew.
"""

from __future__ import annotations

from typing import ClassVar

import torch

from gradscope.repair.base import Case, Remedy, Result
from gradscope.repair.chain import Link
from gradscope.repair.recurrent import find_parts
from gradscope.repair.restart import restart
from gradscope.repair.suspects import suspects_of

REDRAWN = 0.5
"""Share of a matrix that is lost from which its layer starts anew."""

OFF = frozenset({"relu", "relu6", "threshold"})
"""Kinds that let nothing through on one side."""

LOST = 1e-8
"""Incoming weights of which none is larger are gone."""


class Revive(Remedy):
    """Lost numbers first, then dead units in layer order."""

    name: ClassVar[str] = "revive"
    summary: ClassVar[str] = "lost weights replaced, dead units brought back"

    def requires(self, case: Case) -> str | None:
        """A number that is not finite, or a dead unit."""
        if _replaced(case)[0]:
            return None
        if any(bool(_dead(case, k, {})[0].any()) for k in _units(case)):
            return None
        return "every weight is finite, and no unit is off for every sample"

    def apply(self, case: Case) -> Result:
        """Each layer with those before it already repaired."""
        changed, said = _replaced(case)
        links = list(case.chain.links)
        for i, link in enumerate(links):
            if link.site is None or link.site.kind not in OFF:
                continue
            dead, median = _dead(case, link, changed)
            if not bool(dead.any()):
                continue
            changed |= _revived(case, link, links[i + 1 : i + 2], changed, dead, median)
            count = int(dead.sum())
            units = "dead unit" if count == 1 else "dead units"
            said.append(f"{link.weight}: {count} {units} brought back")
        return Result(changed, tuple(said))


def _replaced(case: Case) -> tuple[dict[str, torch.Tensor], list[str]]:
    changed: dict[str, torch.Tensor] = {}
    said: list[str] = []
    redrawn = []
    for name, tensor in (*case.tensors.items(), *case.buffers.items()):
        if not tensor.is_floating_point():
            continue
        bad = ~torch.isfinite(tensor.detach())
        share = float(bad.double().mean()) if bad.numel() else 0.0
        if not share:
            continue
        if tensor.dim() >= 2 and share > REDRAWN and name in case.tensors:
            redrawn.append(name)
            continue
        own = name.rpartition(".")[2]
        usual = 1.0 if own == "running_var" or (tensor.dim() == 1 and "weight" in own) else 0.0
        changed[name] = torch.where(bad, torch.full_like(tensor.detach(), usual), tensor.detach())
        said.append(f"{name}: {share:.3g} of it was not finite and is {usual:g} now")
    if redrawn:
        changed |= _drawn(case, redrawn)
        said.append(f"drawn anew, more than half being lost: {', '.join(redrawn)}")
    return changed, said


def _drawn(case: Case, names: list[str]) -> dict[str, torch.Tensor]:
    """The layers of these weights as they would start."""
    suspects = suspects_of(case.measured, names)
    drawn = {f.parameter.name for f in suspects.feeding} | {v.name for v in suspects.vectors}
    parts = [p for p in find_parts(case) if drawn.issuperset(p.names)]
    copies = {n: t.detach().clone() for n, t in case.tensors.items() if n in drawn}
    restart(copies, suspects, torch.Generator().manual_seed(case.seed), parts)
    return copies


def _units(case: Case) -> list[Link]:
    return [k for k in case.chain.hidden if k.site is not None and k.site.kind in OFF]


def _dead(
    case: Case, link: Link, changed: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """(units that are off for every sample and place, median z of each)."""
    pieces = [use.z for uses in case.uses(changed, link.weight) for use in uses]
    if not pieces:
        return torch.zeros(0, dtype=torch.bool), torch.zeros(0)
    z = torch.cat(pieces)
    return (z <= 0).all(dim=0), z.median(dim=0).values


def _revived(
    case: Case,
    link: Link,
    after: list[Link],
    changed: dict[str, torch.Tensor],
    dead: torch.Tensor,
    median: torch.Tensor,
) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    weight = changed.get(link.weight, case.tensors[link.weight].detach()).clone()
    lost = dead & (weight.flatten(1).abs().amax(dim=1) < LOST)
    if link.bias is not None:
        bias = changed.get(link.bias, case.tensors[link.bias].detach()).clone()
        bias = torch.where(lost, torch.zeros_like(bias), torch.where(dead, bias - median, bias))
        found[link.bias] = bias
    if bool(lost.any()):
        random = torch.Generator().manual_seed(case.seed)
        usual = (2.0 / weight[0].numel()) ** 0.5
        drawn = torch.randn(weight.shape, generator=random).to(weight) * usual
        weight[lost] = drawn[lost]
        found[link.weight] = weight
        found |= _silenced(case, after, changed, lost)
    return found


def _silenced(
    case: Case, after: list[Link], changed: dict[str, torch.Tensor], lost: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Outgoing weights of lost units at 0; a flattened channel has several columns."""
    for link in after:
        weight = changed.get(link.weight, case.tensors[link.weight].detach()).clone()
        if weight.shape[1] % len(lost) == 0:
            weight[:, lost.repeat_interleave(weight.shape[1] // len(lost))] = 0.0
            return {link.weight: weight}
    return {}

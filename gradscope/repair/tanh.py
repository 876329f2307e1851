"""Tanh: logistic hidden units become tanh units, exactly; the slope grows from 1/4 to 1.

sigma(z) = 1/2 + 1/2 tanh(z/2). Before such a unit W and b are halved; what comes after it has its W
halved and 1/2 of its row sums added to b. So the file needs no new operator, only tanh where the
logistic function stood. That it is the same function is measured: padding, a norm or a sum
between two layers would see another offset, and then nothing is done.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch

from gradscope.measurements import Measurements, Role
from gradscope.model import Exchange
from gradscope.repair.base import Case, Remedy, RemedyError, Result
from gradscope.repair.chain import Link

KIND = "sigmoid"

DRIFT = 1e-4
"""Change of the outputs over their own size up to which they are the same; ten layers: 4e-7."""


class Tanh(Remedy):
    """All of a model's logistic units together, or none."""

    name: ClassVar[str] = "tanh"
    summary: ClassVar[str] = "logistic hidden units to tanh, exactly; weights around them folded"

    def requires(self, case: Case) -> str | None:
        """Hidden logistic units only, layers with biases behind them, and a form that allows it."""
        sites = [s for s in case.measured.sites if s.kind == KIND]
        if not sites:
            return "there is no logistic activation"
        for site in sites:
            if site.role is not Role.HIDDEN:
                return f"{site.id} is not hidden but {site.role.value}, and must stay"
        if isinstance(case.exchange, str):
            return case.exchange
        links = case.chain.links
        fed = {k.site.id for k in links if k.site is not None}
        apart = [s for s in sites if s.id not in fed]
        if apart:
            why = dict(case.chain.outside)
            named = next((f"{n} {why[n]}" for n in apart[0].parameters if n in why), None)
            return f"{apart[0].id} has no weight of its own" + (f": {named}" if named else "")
        bare = [k.weight for k, behind in _behind(links) if behind and k.bias is None]
        return f"{bare[0]} has no bias to take what its inputs lose" if bare else None

    def apply(self, case: Case) -> Result:
        """New weights, which belong to the exchanged activations.

        Raises:
            RemedyError: the function would be another one.
        """
        changed: dict[str, torch.Tensor] = {}
        for link, behind in _behind(case.chain.links):
            weight = case.tensors[link.weight].detach().double()
            bias = None if link.bias is None else case.tensors[link.bias].detach().double()
            if behind:
                assert bias is not None
                bias = bias + _half_sums(weight, len(bias))
                weight = weight / 2
            if link.site is not None and link.site.kind == KIND:
                weight, bias = weight / 2, None if bias is None else bias / 2
            changed[link.weight] = weight.to(case.tensors[link.weight].dtype)
            if link.bias is not None and bias is not None:
                changed[link.bias] = bias.to(case.tensors[link.bias].dtype)
        drift = _drift(case, changed)
        if not drift < DRIFT:
            what = f"the outputs would change by {drift:.2g} of their size: between two layers is"
            where = f"--method {self.name}"
            raise RemedyError(f"{what} more than a product and an activation", where=where)
        count = sum(s.kind == KIND for s in case.measured.sites)
        return Result(changed, (f"{count} logistic activations to tanh, drift {drift:.1e}",))


def as_tanh(m: Measurements) -> Measurements:
    """Measurements of the same model after the exchange: rho of tanh at z/2 is that of sigma at
    z, so all shares stay."""
    sites = (replace(s, kind="tanh") if s.kind == KIND else s for s in m.sites)
    return replace(m, sites=tuple(sites))


def _behind(links: tuple[Link, ...]) -> list[tuple[Link, bool]]:
    """Each layer, and whether its input comes out of logistic units: those of the layer before it,
    for the last ones those of the last hidden layer."""
    found, before = [], False
    for link in links:
        found.append((link, before))
        if link.site is not None:
            before = link.site.kind == KIND
    return found


def _half_sums(weight: torch.Tensor, units: int) -> torch.Tensor:
    """1/2 of each unit's incoming weights; (units,)."""
    return weight.reshape(units, -1).sum(dim=1) / 2


def _drift(case: Case, changed: dict[str, torch.Tensor]) -> float:
    assert isinstance(case.exchange, Exchange)
    case.trainee.set_training(False)
    before, after = [], []
    with torch.no_grad():
        for batch in case.data.once():
            before.append(case.trainee.call(batch))
            with case.with_tensors(changed):
                case.exchange.swap(True)
                try:
                    after.append(case.trainee.call(batch))
                finally:
                    case.exchange.swap(False)
    pairs = [(a, b) for a, b in zip(before, after, strict=True) if a is not None and b is not None]
    off = sum(float((b.double() - a.double()).square().sum()) for a, b in pairs)
    size = sum(float(a.double().square().sum()) for a, _ in pairs)
    return float((off / max(size, 1e-30)) ** 0.5)

"""Repair without labels: rescalings, and by how much each moves the outputs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch

from gradscope.config import FixSettings, Settings
from gradscope.diagnosis import Inspection
from gradscope.model import Exchange, LoadedModel, Products, Sample
from gradscope.probe.state import untouched
from gradscope.progress import Silent
from gradscope.repair.base import Remedy, RemedyError, perform
from gradscope.repair.kappa import Kappa
from gradscope.repair.methods import remedy
from gradscope.repair.treat import Treating
from gradscope.treatment import Placed, Planned


@dataclass(frozen=True)
class Rescaled:
    """A model after one remedy.

    Attributes:
        remedy: its name.
        tensors: new values by name.
        drift: root mean square of the change of the outputs over their own.
        said: what the remedy says of what it did.
        tanh: whether the tensors belong to the model with tanh for its logistic activations.
        places: what became of each scale.
        products: scales that stand in the file.
    """

    remedy: str
    tensors: dict[str, torch.Tensor]
    drift: float
    said: tuple[str, ...]
    tanh: bool = False
    places: tuple[Placed, ...] = ()
    products: Products = field(default_factory=dict)


def rescale(
    model: LoadedModel,
    sample: Sample,
    before: Inspection,
    plan: tuple[Planned, ...],
    settings: Settings,
    fix: FixSettings,
) -> tuple[Rescaled, ...]:
    """What each remedy of the plan would do; the model is put back.

    Raises:
        RemedyError: the one remedy that was asked for cannot be applied.
    """
    assert model.module is not None
    found: list[Rescaled] = []
    with untouched(model.module):
        treating = Treating(model, sample, sample, before, settings, fix, Silent())
        raw = treating.outputs()
        for planned in plan:
            try:
                result = perform(_keeping(remedy(planned.remedy, fix.alpha or 2.0)), treating.case)
            except RemedyError:
                if fix.method is not None:
                    raise
                continue
            tanh = planned.remedy == "tanh"
            changed, products = dict(result.changed), result.products
            with treating.case.with_tensors(changed), _exchanged(model, tanh), \
                    treating.case.with_products(products):  # fmt: skip
                moved = _moved(raw, treating.outputs())
            said = result.said
            if not bool(torch.isfinite(raw).any()):
                said = (*said, "no output was finite before: there was nothing to keep")
            found.append(
                Rescaled(planned.remedy, changed, moved, said, tanh, result.places, products)
            )
    return tuple(found)


def _keeping(chosen: Remedy) -> Remedy:
    """Without training after it, nothing is gained by smaller outputs."""
    return replace(chosen, keep=True) if isinstance(chosen, Kappa) else chosen


def _moved(raw: torch.Tensor, now: torch.Tensor) -> float:
    """Drift over what was finite before: the rest was no function that could be kept."""
    if not bool(torch.isfinite(now).all()):
        return math.inf
    kept = torch.isfinite(raw)
    if not bool(kept.any()):
        return 0.0
    before, difference = raw[kept], (now - raw)[kept]
    size = float(before.square().mean().sqrt())
    return float(difference.square().mean().sqrt()) / max(size, 1e-30)


@contextmanager
def _exchanged(model: LoadedModel, tanh: bool) -> Iterator[None]:
    exchange = model.exchange
    if not tanh or not isinstance(exchange, Exchange):
        yield
        return
    exchange.swap(True)
    try:
        yield
    finally:
        exchange.swap(False)

"""Repair without labels: rescalings, and by how much each moves the outputs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from gradscope.config import FixSettings, Settings
from gradscope.diagnosis import Inspection
from gradscope.model import Exchange, LoadedModel, Sample
from gradscope.probe.state import untouched
from gradscope.progress import Silent
from gradscope.repair.base import RemedyError, perform
from gradscope.repair.methods import remedy
from gradscope.repair.treat import Treating
from gradscope.treatment import Planned


@dataclass(frozen=True)
class Rescaled:
    """A model after one remedy.

    Attributes:
        remedy: its name.
        tensors: new values by name.
        drift: root mean square of the change of the outputs over their own.
        said: what the remedy says of what it did.
        tanh: whether the tensors belong to the model with tanh for its logistic activations.
    """

    remedy: str
    tensors: dict[str, torch.Tensor]
    drift: float
    said: tuple[str, ...]
    tanh: bool = False


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
                result = perform(remedy(planned.remedy, fix.alpha or 2.0), treating.case)
            except RemedyError:
                if fix.method is not None:
                    raise
                continue
            tanh = planned.remedy == "tanh"
            with treating.case.with_tensors(result.changed), _exchanged(model, tanh):
                moved = _moved(raw, treating.outputs())
            said = result.said
            if not bool(torch.isfinite(raw).any()):
                said = (*said, "no output was finite before: there was nothing to keep")
            found.append(Rescaled(planned.remedy, dict(result.changed), moved, said, tanh))
    return tuple(found)


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

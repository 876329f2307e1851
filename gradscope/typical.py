"""What a typical direction loses on a chain of layers, whichever way the gradient takes.

The ledger measures the gradient that there is. A deep network that has learned a little passes it
through a few directions that its weights have made strong, and everything else through weights that
are still too small or units that hardly answer: its ledger is even, and it learns no more. Here the
layers are taken by themselves: a signal spread over all directions is scaled by the weights'
init_ratio and by the activation's mean derivative. Padding, pooling and widths, which put offsets
into norms of gradients, do not enter. Imports no torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gradscope.attribution import LONE, SMALL_WEIGHT_DECADES
from gradscope.findings import Cause
from gradscope.measurements import Measurements, Site

_HALF_OFF = frozenset({"relu", "relu6", "leaky_relu", "prelu", "rrelu", "threshold"})
"""Kinds for which init_ratio counts on half of the units being off."""

_LEAST = 1e-12


@dataclass(frozen=True)
class TypicalGain:
    """In decades (log10), first hidden activation over last.

    Attributes:
        total: weight + slope + derivative.
        weight: of the weights' sizes.
        slope: of the activations' largest slopes.
        derivative: of their mean relative derivatives.
        layers: between the two activations.
        lone: whether most of what is lost is lost at one layer.
        first, last: labels of the two activations.
    """

    total: float
    weight: float
    slope: float
    derivative: float
    layers: int
    lone: bool
    first: str
    last: str

    @property
    def cause(self) -> Cause:
        """What costs most."""
        parts = {Cause.DEPTH_GAIN: self.weight, Cause.FLAT_SLOPE: self.slope,
                 Cause.DEPTH_DERIVATIVE: self.derivative}  # fmt: skip
        worst = min(parts, key=lambda cause: parts[cause])
        small = worst is Cause.DEPTH_GAIN and -self.weight / self.layers > SMALL_WEIGHT_DECADES
        return Cause.SMALL_WEIGHTS if small else worst


def typical_gain(measured: Measurements) -> TypicalGain | None:
    """None where the network is no chain of one weight matrix and one activation after the other:
    branches, normalisation, recurrence."""
    entries = measured.ledger.entries if measured.ledger is not None else ()
    if len(entries) < 2 or any(e.bypass or e.branches for e in entries):
        return None
    sites = {s.id: s for s in measured.sites}
    chain = [sites.get(e.site) for e in entries]
    sizes = [None if s is None else _size(measured, s) for s in chain]
    if any(s is None for s in chain) or any(size is None for size in sizes):
        return None
    weight = [math.log10(max(size or 0.0, _LEAST)) for size in sizes[:-1]]
    slope = [e.slope or 0.0 for e in entries[1:]]
    derivative = [_derivative(s) for s in chain[1:] if s is not None]
    gains = [sum(parts) for parts in zip(weight, slope, derivative, strict=True)]
    lost = [g for g in gains if g < 0]
    lone = len(gains) > 1 and bool(lost) and min(lost) <= LONE * sum(lost)
    return TypicalGain(
        sum(gains), sum(weight), sum(slope), sum(derivative), len(gains), lone,
        entries[-1].label, entries[0].label,
    )  # fmt: skip


def _size(measured: Measurements, site: Site) -> float | None:
    """init_ratio of the one matrix that feeds a site."""
    mine = [p for p in measured.parameters if p.name in site.parameters]
    ratios = [p.weight.init_ratio for p in mine if p.weight.init_ratio is not None]
    return ratios[0] if len(ratios) == 1 and len(mine) <= 2 else None


def _derivative(site: Site) -> float:
    """Decades of the mean relative derivative; of units that are on or off, of its root, compared
    with half of them on."""
    mean = site.mean_relative_derivative
    if site.kind in _HALF_OFF:
        return 0.0 if mean is None else 0.5 * math.log10(max(2 * mean, _LEAST))
    if mean is None:  # GELU and its like, smooth ReLUs for which init_ratio counts on nothing
        return -0.5 * math.log10(2)
    return math.log10(max(mean, _LEAST))

"""Scale of what enters a model, per feature, over all batches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from gradscope.measurements import Feature, InputStats
from gradscope.model import Batch
from gradscope.probe.stats import Moments

_MAX_FEATURES = 1 << 16
_SHOWN = 32


@dataclass
class InputSums:
    """What was seen of one floating-point input.

    Attributes:
        moments: per feature over samples and positions, of the finite elements; None once the
            number of features has changed from batch to batch or is too large.
        broken: features that have held a value that is not finite.
        count, nonfinite: elements.
        total, square: sums over the finite elements.
    """

    moments: Moments | None = field(default_factory=Moments)
    broken: set[int] = field(default_factory=set)
    features: int = 0
    count: int = 0
    nonfinite: int = 0
    total: float = 0.0
    square: float = 0.0

    def add(self, tensor: torch.Tensor, axis: int) -> None:
        """One batch, features on ``axis``."""
        wide = tensor.detach().double()  # features of equal scale stay in order, however many share
        rows = wide.movedim(axis, -1).reshape(-1, wide.shape[axis])
        bad = ~torch.isfinite(rows)
        if bool(bad.any()):
            self.nonfinite += int(bad.sum())
            self.broken.update(bad.any(dim=0).nonzero().flatten().tolist())
            rows = rows.masked_fill(bad, 0.0)
        self.count += rows.numel()
        self.total += float(rows.sum())
        self.square += float(torch.linalg.vector_norm(rows) ** 2)
        self._add_moments(rows)

    def _add_moments(self, rows: torch.Tensor) -> None:
        width = rows.shape[1]
        same = self.features in (0, width) and 0 < width <= _MAX_FEATURES
        self.features = max(self.features, width)
        if self.moments is not None:
            self.moments = self.moments.merge(Moments.of(rows)) if same and len(rows) else None

    def merge(self, other: InputSums) -> InputSums:
        """Both together."""
        widths = {w for w in (self.features, other.features) if w}
        one, two = self.moments, other.moments
        known = one is not None and two is not None and len(widths) <= 1
        return InputSums(
            one.merge(two) if known and one is not None and two is not None else None,
            self.broken | other.broken,
            max(self.features, other.features),
            self.count + other.count,
            self.nonfinite + other.nonfinite,
            self.total + other.total,
            self.square + other.square,
        )

    def compute(self, name: str) -> InputStats | None:
        """None if nothing came in."""
        finite = self.count - self.nonfinite
        if not self.count:
            return None
        largest, typical = self._features()
        return InputStats(
            name=name,
            features=self.features,
            rms=math.sqrt(self.square / finite) if finite else None,
            mean=self.total / finite if finite else None,
            typical_rms=typical,
            nonfinite_fraction=self.nonfinite / self.count,
            largest=largest,
        )

    def _features(self) -> tuple[tuple[Feature, ...], float | None]:
        """The largest ones, and the median root mean square of all that are finite."""
        moments = self.moments
        if moments is None or moments.mean is None or moments.m2 is None:
            return (), None
        variance = moments.m2 / moments.count
        rms = (variance + moments.mean.square()).sqrt()
        usable = torch.ones_like(rms, dtype=torch.bool)
        usable[sorted(self.broken)] = False
        typical = float(rms[usable].median()) if bool(usable.any()) else None
        order = torch.where(usable, rms, torch.inf).float().argsort(descending=True, stable=True)
        found = []
        for i in order[:_SHOWN].tolist():
            known = bool(usable[i])
            mean, sd = float(moments.mean[i]), math.sqrt(float(variance[i]))
            found.append(Feature(i, mean if known else None, sd if known else None))
        return tuple(found), typical


def add_batch(into: dict[int, InputSums], batch: Batch, *, channels: bool) -> None:
    """The floating-point inputs of one batch, by position among all inputs.

    Args:
        into: sums so far.
        batch: its tensors.
        channels: units of the first layer lie on axis 1, also in three dimensions.
    """
    for position, tensor in enumerate(tensors_of(batch)):
        if tensor.is_floating_point() and tensor.numel() and tensor.dim():
            axis = 1 if tensor.dim() >= (3 if channels else 4) else -1
            into.setdefault(position, InputSums()).add(tensor, axis)


def tensors_of(batch: Batch) -> list[torch.Tensor]:
    """All tensors of a batch's inputs, arguments first."""
    leaves: list[Any] = [*tree_leaves(batch.args), *tree_leaves(dict(batch.kwargs))]
    return [t for t in leaves if isinstance(t, torch.Tensor)]


def compute(sums: Mapping[int, InputSums], names: Sequence[str]) -> tuple[InputStats, ...]:
    """Statistics of all inputs, named as the sample names them where it does."""
    found = []
    for position, mine in sorted(sums.items()):
        name = names[position] if position < len(names) else f"input {position}"
        stats = mine.compute(name)
        if stats is not None:
            found.append(stats)
    return tuple(found)

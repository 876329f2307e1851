"""Streaming statistics that merge: batches, processes and machines add up to the same report.

Each has ``empty``, ``merge`` and ``compute``-like properties; merge is pure and associative, sums
are float64. An empty statistic is "not measured" (None), never 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import torch

from gradscope.probe.hosted import to_host

_TOGETHER = 1 << 18  # numbers that are looked at together


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean and spread over samples of many elements at once (Chan, Golub, LeVeque 1979).

    Attributes:
        count: samples seen.
        mean, m2: per element, float64: mean, and sum of squared deviations from it.
    """

    count: int = 0
    mean: torch.Tensor | None = None
    m2: torch.Tensor | None = None

    @classmethod
    def of(cls, rows: torch.Tensor) -> Self:
        """Of (samples, elements)."""
        n = rows.shape[0]
        mean = rows.mean(dim=0)  # two passes: as exact as var_mean, five times as fast
        return cls(n, mean.double(), (rows - mean).square_().sum(dim=0).double())

    def merge(self, other: Moments) -> Moments:
        """Both together."""
        if self.mean is None or self.m2 is None:
            return other
        if other.mean is None or other.m2 is None:
            return self
        n = self.count + other.count
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.count / n)
        m2 = self.m2 + other.m2 + delta.square() * (self.count * other.count / n)
        return Moments(n, mean, m2)


@dataclass(frozen=True, slots=True)
class ForwardStats:
    """What the forward pass shows of one site.

    Attributes:
        numel: elements seen.
        per_unit: elements seen of each unit.
        saturated: per unit, elements with relative derivative < 0.1; None where undefined.
        off: per unit, elements that are not positive (ReLU-like); None otherwise.
        relative: sum of relative derivatives; None where undefined.
        pre_square, out_square: sums of squares of z and of the output.
        nonfinite: elements of z that are NaN or infinite.
        magnitudes: counts of |z| by :mod:`gradscope.probe.magnitudes`; None where undefined.
        moments: of the output over samples.
    """

    numel: int = 0
    per_unit: int = 0
    saturated: torch.Tensor | None = None
    off: torch.Tensor | None = None
    relative: torch.Tensor | None = None
    pre_square: torch.Tensor | None = None
    out_square: torch.Tensor | None = None
    nonfinite: torch.Tensor | None = None
    moments: tuple[Moments, ...] = field(default_factory=tuple)
    magnitudes: torch.Tensor | None = None

    def merge(self, other: ForwardStats) -> ForwardStats:
        """Both together; units must agree."""
        if not self.numel:
            return other
        if not other.numel:
            return self
        return ForwardStats(
            self.numel + other.numel,
            self.per_unit + other.per_unit,
            _add(self.saturated, other.saturated),
            _add(self.off, other.off),
            _add(self.relative, other.relative),
            _add(self.pre_square, other.pre_square),
            _add(self.out_square, other.out_square),
            _add(self.nonfinite, other.nonfinite),
            merge_moments(self.moments, other.moments),
            _add(self.magnitudes, other.magnitudes),
        )

    @classmethod
    def over_calls(cls, calls: Sequence[ForwardStats]) -> ForwardStats:
        """All calls of one site on the same samples."""
        if len(calls) == 1:
            return calls[0]
        return cls(
            sum(c.numel for c in calls),
            sum(c.per_unit for c in calls),
            _total([c.saturated for c in calls]),
            _total([c.off for c in calls]),
            _total([c.relative for c in calls]),
            _total([c.pre_square for c in calls]),
            _total([c.out_square for c in calls]),
            _total([c.nonfinite for c in calls]),
            tuple(m for c in calls for m in c.moments),
            _total([c.magnitudes for c in calls]),
        )


def variance_ratios(sites: Sequence[ForwardStats]) -> list[float | None]:
    """Per site: between-sample variance over mean square, both averaged over elements; the mean of
    that over its calls.

    A call with fewer than two samples, or whose every element is 0, has none.
    """
    moments = [m for site in sites for m in site.moments]
    ratios = iter(_ratios(moments))
    found: list[float | None] = []
    for site in sites:
        known = [r for r in (next(ratios) for _ in site.moments) if r is not None]
        found.append(sum(known) / len(known) if known else None)
    return found


def _ratios(moments: Sequence[Moments]) -> list[float | None]:
    """One each, those of as many elements together."""
    found: list[float | None] = [None] * len(moments)
    alike: dict[tuple[int, int], list[int]] = {}
    for i, each in enumerate(moments):
        if each.count >= 2 and each.mean is not None and each.m2 is not None:
            alike.setdefault((each.count, each.mean.numel()), []).append(i)
    for (count, numel), places in alike.items():
        together = max(1, _TOGETHER // max(numel, 1))
        for start in range(0, len(places), together):
            chosen = places[start : start + together]
            m2 = torch.stack([t for i in chosen if (t := moments[i].m2) is not None])
            mean = torch.stack([t for i in chosen if (t := moments[i].mean) is not None])
            variances = (m2 / count).mean(dim=1).tolist()
            squares = mean.square().mean(dim=1).tolist()
            for i, variance, square in zip(chosen, variances, squares, strict=True):
                whole = variance + square
                if whole > 0 and math.isfinite(whole):
                    found[i] = variance / whole
    return found


def hosted(stats: Sequence[ForwardStats]) -> list[ForwardStats]:
    """The same with every tensor on the CPU: all of them together."""
    if all(s.out_square is not None and s.out_square.device.type == "cpu" for s in stats):
        return list(stats)  # each made its tensors where its output was
    moved = iter(to_host([t for s in stats for t in _tensors_of(s)]))
    return [_with_tensors(s, moved) for s in stats]


def _tensors_of(value: Any) -> Iterator[torch.Tensor]:
    """Tensors of a statistic, in the order of its fields."""
    for each in fields(value):
        held = getattr(value, each.name)
        if isinstance(held, torch.Tensor):
            yield held
        elif isinstance(held, tuple):
            for part in held:
                yield from _tensors_of(part)


def _with_tensors(value: Any, tensors: Iterator[torch.Tensor]) -> Any:
    """The statistic with other tensors in their place."""
    changed: dict[str, Any] = {}
    for each in fields(value):
        held = getattr(value, each.name)
        if isinstance(held, torch.Tensor):
            changed[each.name] = next(tensors)
        elif isinstance(held, tuple):
            changed[each.name] = tuple(_with_tensors(part, tensors) for part in held)
    return replace(value, **changed)


def merge_moments(a: tuple[Moments, ...], b: tuple[Moments, ...]) -> tuple[Moments, ...]:
    """Call by call; a sequence that ran longer in one batch keeps its surplus calls."""
    shared = []
    for i in range(max(len(a), len(b))):
        one = a[i] if i < len(a) else Moments()
        two = b[i] if i < len(b) else Moments()
        same = one.mean is None or two.mean is None or one.mean.shape == two.mean.shape
        shared.append(one.merge(two) if same else Moments())
    return tuple(shared)


def _add(a: torch.Tensor | None, b: torch.Tensor | None) -> torch.Tensor | None:
    if a is None or b is None:
        return None
    return a + b if a.shape == b.shape else a.sum() + b.sum()


def _total(parts: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
    """Their sum; of counts whose units do not agree the sum over units alone, without an axis."""
    known = [p for p in parts if p is not None]
    if len(known) < len(parts):
        return None
    if any(p.shape != known[0].shape for p in known):
        known = [p.sum() for p in known]
    return torch.stack(known).sum(dim=0)


KEPT = 1 << 14
"""Samples of which single numbers are kept: of more, every second, fourth, ... is."""


@dataclass(frozen=True, slots=True)
class PerSample:
    """One non-negative number per sample and draw: squared gradient norms, float64.

    Medians need the numbers themselves. So that memory does not grow with the sample, all that saw
    the same samples keep the same ones of them: those whose position ``stride`` divides.

    Attributes:
        values: (samples, draws) pieces, one a batch.
        stride: distance between samples that are kept; a power of 2.
        seen: how many samples there were; None: as many as there are values.
    """

    values: tuple[torch.Tensor, ...] = ()
    stride: int = 1
    seen: int | None = None

    @property
    def samples(self) -> int:
        """How many there were."""
        return self.seen if self.seen is not None else self._kept

    @property
    def _kept(self) -> int:
        return sum(len(v) for v in self.values)

    def merge(self, other: PerSample) -> PerSample:
        """Both together, ``other`` after these."""
        if not self.values or not other.values:
            return self if self.values else other
        stride = max(self.stride, other.stride)
        one, two = self._every(stride, 0), other._every(stride, self.samples)
        seen = self.samples + other.samples
        merged = PerSample((*one, *two), stride, seen)
        while merged._kept > KEPT:
            merged = PerSample((merged.whole()[::2].clone(),), 2 * merged.stride, seen)
        return merged

    def _every(self, stride: int, before: int) -> tuple[torch.Tensor, ...]:
        """What is left at a larger stride, where ``before`` samples came before these."""
        if stride == self.stride == 1:
            return self.values
        first = -(-before // self.stride) * self.stride  # position of the first that is kept
        skip = (-first % stride) // self.stride
        kept = self.whole()[skip :: stride // self.stride]
        return (kept.clone(),) if len(kept) else ()

    def joined(self, other: PerSample) -> PerSample:
        """The same samples, more draws."""
        both = torch.cat((self.whole(), other.whole()), dim=1)
        return PerSample((both,), self.stride, self.seen)

    def whole(self) -> torch.Tensor:
        """All of it, shape (samples, draws)."""
        if len(self.values) == 1:
            return self.values[0]
        return torch.cat(self.values) if self.values else torch.zeros(0, 0, dtype=torch.float64)

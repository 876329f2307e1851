"""The ledger: where between output and input the gradient is lost, and to what.

On a chain, per sample, over consecutive hidden sites l, with u = dL/da_l and delta_l = dL/dz_l:

    log10 |delta_l| / |delta_{l+1}|  =  W + S + A
    W = log10 |u_l| / |delta_{l+1}|        weights, norms, pooling: everything between two sites
    S = log10 phi'_0                       the slope
    A = log10 |delta_l| / (phi'_0 |u_l|)   the derivative

which telescopes exactly. On a graph the same is done for the *elements* of its spine: a single
activation, a level of parallel branches (norms joint over the branches), or a whole block with a
skip connection. For ReLU-like sites log10 sqrt(2) = 0.1505 moves from A to W: half of the units are
off by design.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from gradscope.measurements import Ledger, LedgerEntry, LocalEntry, TimeLedger
from gradscope.probe.stats import PerSample

RELU_SHARE = 0.5 * math.log10(2.0)
_TOGETHER = 1 << 18  # numbers of one quantity that are looked at together


@dataclass(frozen=True)
class Branch:
    """One site inside a block, for its local ledger.

    Attributes:
        site: id.
        slope: phi'_0.
        pre, out: squared norms of dL/dz and dL/da.
    """

    site: str
    slope: float
    pre: PerSample
    out: PerSample


@dataclass(frozen=True)
class Element:
    """One place on the spine where hidden activations stand.

    Attributes:
        site: id of its (first) site.
        label: for people.
        kind: of the activation, or ``block``.
        inner: squared gradient norms on its input side (delta).
        outer: squared gradient norms on its output side (u).
        sloped: squared norms of phi'_0 u, summed over what runs side by side.
        relu_share: decades that move from A to W.
        attributable: False where a path leads around the activations: then all is W.
        branches, bypass: as in :class:`gradscope.measurements.LedgerEntry`.
    """

    site: str
    label: str
    kind: str
    inner: PerSample
    outer: PerSample
    sloped: PerSample
    relu_share: float = 0.0
    attributable: bool = True
    branches: tuple[Branch, ...] = ()
    bypass: bool = False

    def merge(self, other: Element) -> Element:
        """The same element in another batch."""
        return self._with(other, PerSample.merge)

    def joined(self, other: Element) -> Element:
        """The same element and samples under other draws."""
        return self._with(other, PerSample.joined)

    def _with(self, other: Element, both: Callable[[PerSample, PerSample], PerSample]) -> Element:
        branches = tuple(
            Branch(a.site, a.slope, both(a.pre, b.pre), both(a.out, b.out))
            for a, b in zip(self.branches, other.branches, strict=False)
        )
        return replace(
            self,
            inner=both(self.inner, other.inner),
            outer=both(self.outer, other.outer),
            sloped=both(self.sloped, other.sloped),
            branches=branches,
        )


@dataclass(frozen=True)
class Trace:
    """Elements of one head, from the output's side to the input's; batches merge.

    Attributes:
        elements: by key, in order.
        cuts: number of cut tensors.
    """

    elements: dict[str, Element] = field(default_factory=dict)
    cuts: int = 0

    def merge(self, other: Trace) -> Trace:
        """Both batches together; an element that only one of them has is left out."""
        if not self.elements:
            return other
        if not other.elements:
            return self
        return self._with(other, Element.merge)

    def joined(self, other: Trace) -> Trace:
        """The same samples under other draws."""
        return self._with(other, Element.joined)

    def _with(self, other: Trace, both: Callable[[Element, Element], Element]) -> Trace:
        shared = {
            key: both(one, other.elements[key])
            for key, one in self.elements.items()
            if key in other.elements
        }
        return Trace(shared, max(self.cuts, other.cuts))


def log_medians(rows: torch.Tensor) -> list[float | None]:
    """Median of each row of log10 values; infinities take part, NaN does not. None where nothing is
    left, or the middle is infinite."""
    if not rows.shape[1]:
        return [None] * len(rows)
    ordered = np.sort(rows.numpy(), axis=1)  # NaN stand last; a sixth of the time of torch's
    last = np.count_nonzero(~np.isnan(ordered), axis=1) - 1
    each = np.arange(len(ordered))
    low, high = ordered[each, np.maximum(last, 0) // 2], ordered[each, (last + 1) // 2]
    return [
        _middle(*pair) if at >= 0 else None
        for *pair, at in zip(low.tolist(), high.tolist(), last.tolist(), strict=True)
    ]


def _middle(low: float, high: float) -> float | None:
    middle = low if low == high else (low + high) / 2
    return middle if math.isfinite(middle) else None


def log_median(values: torch.Tensor) -> float | None:
    """Of one row, see :func:`log_medians`."""
    return log_medians(values.reshape(1, -1))[0]


def log_rms(squares: torch.Tensor) -> float | None:
    """log10 of the root of the mean of squared gains; None if there are none or all are 0."""
    return _log_root(float(squares.mean())) if squares.numel() else None


def _log_root(mean: float) -> float | None:
    return 0.5 * math.log10(mean) if mean > 0 and math.isfinite(mean) else None


def _log_ratio(over: torch.Tensor, under: torch.Tensor) -> torch.Tensor:
    """log10 of the ratio of two norms given squared; NaN where the denominator is 0."""
    ratio = torch.where(under > 0, over / under, torch.nan)
    return 0.5 * torch.log10(ratio)


def compile_ledger(trace: Trace, time: tuple[TimeLedger, ...] = ()) -> tuple[Ledger, int]:
    """The ledger of one head.

    Returns:
        the ledger, and the number of samples times draws that were left out as non-finite.
    """
    elements = list(trace.elements.values())
    if len(elements) < 2:
        empty = Ledger(None, None, None, None, None, None, 0, 0, trace.cuts, (), time)
        return empty, 0
    last, first = elements[0].inner.whole(), elements[-1].inner.whole()
    finite = torch.isfinite(last) & torch.isfinite(first)
    usable = finite & (last > 0)
    gain = torch.where(usable, first / last, torch.nan)
    entries = [_last_entry(elements[0]), *_entries(elements, last, usable)]
    sums = [0.0, 0.0, 0.0]
    for entry in entries[1:]:
        for i, part in enumerate((entry.activation, entry.slope, entry.weight)):
            sums[i] = sums[i] + part if part is not None else math.nan
    known = [None if math.isnan(s) else s for s in sums]
    ledger = Ledger(
        total=log_rms(gain[usable]),
        total_error=_error_over_draws(gain),
        median=log_median(0.5 * torch.log10(gain[usable])),
        activation=known[0],
        slope=known[1],
        weight=known[2],
        samples=int(usable.sum()),
        zero_denominators=int((finite & (last == 0)).sum()),
        cuts=trace.cuts,
        entries=tuple(entries),
        time=time,
    )
    return ledger, int((~finite).sum())


def _error_over_draws(gain: torch.Tensor) -> float | None:
    """Standard error of ``total`` over the draws: sd / sqrt(K) of one total a draw."""
    totals = [log_rms(column[~torch.isnan(column)]) for column in gain.unbind(1)]
    known = [t for t in totals if t is not None]
    if len(known) < 2:
        return None
    mean = sum(known) / len(known)
    variance = sum((t - mean) ** 2 for t in known) / (len(known) - 1)
    return math.sqrt(variance / len(known))


def _last_entry(element: Element) -> LedgerEntry:
    """The hidden site next to the output: where the ledger starts, 0 decades lost so far."""
    return LedgerEntry(
        element.site, element.label, element.kind, None, None, None, None, 0.0, 0.0,
        _locals(element), element.bypass,
    )  # fmt: skip


def _entries(
    elements: Sequence[Element], last: torch.Tensor, usable: torch.Tensor
) -> list[LedgerEntry]:
    """Of all elements but the first, as many at a time as fit into little memory."""
    together = max(1, _TOGETHER // max(1, last.numel()))
    found: list[LedgerEntry] = []
    for start in range(1, len(elements), together):
        found += _some_entries(elements[start - 1 : start + together], last, usable)
    return found


def _some_entries(
    elements: Sequence[Element], last: torch.Tensor, usable: torch.Tensor
) -> list[LedgerEntry]:
    """Of all but the first, which stands nearer to the output: every quantity of theirs at once."""

    columns_kept = usable.flatten()

    def rows(parts: Iterable[PerSample]) -> torch.Tensor:
        return torch.stack([part.whole() for part in parts]).flatten(1)[:, columns_kept]

    mine = elements[1:]
    inner, outer, sloped = (
        rows(e.inner for e in mine), rows(e.outer for e in mine), rows(e.sloped for e in mine),
    )  # fmt: skip
    nearer = torch.cat((rows([elements[0].inner]), inner[:-1]))
    gain = _log_ratio(inner, nearer)
    share = torch.tensor([[e.relu_share] for e in mine], dtype=torch.float64)
    whole = torch.tensor([[not e.attributable] for e in mine])
    slope = torch.where(whole, 0.0, _log_ratio(sloped, outer))
    activation = torch.where(whole, 0.0, _log_ratio(inner, sloped) + share)
    weight = torch.where(whole, gain, _log_ratio(outer, nearer) - share)
    left = inner / last[usable]
    medians = log_medians(torch.cat((gain, weight, slope, activation, 0.5 * torch.log10(left))))
    columns = zip(*(medians[i * len(mine) : (i + 1) * len(mine)] for i in range(5)), strict=True)
    means = left.mean(dim=1).tolist() if left.shape[1] else [0.0] * len(mine)
    return [
        LedgerEntry(
            e.site, e.label, e.kind, gain_, weight_, slope_, activation_, _log_root(mean), left_,
            _locals(e), e.bypass,
        )
        for e, mean, (gain_, weight_, slope_, activation_, left_)
        in zip(mine, means, columns, strict=True)
    ]  # fmt: skip


def _locals(element: Element) -> tuple[LocalEntry, ...]:
    branches = element.branches
    if not branches:
        return ()
    outer = element.outer.whole()
    pre = torch.stack([b.pre.whole() for b in branches])
    out = torch.stack([b.out.whole() for b in branches])
    gains = torch.where(outer > 0, pre / outer, torch.nan)
    slopes = [math.log10(b.slope) for b in branches]
    shift = torch.tensor(slopes, dtype=torch.float64).view(-1, 1)
    derivatives = log_medians(_log_ratio(pre, out).flatten(1) - shift)
    return tuple(
        LocalEntry(b.site, log_rms(gain[~torch.isnan(gain)]), derivative, slope)
        for b, gain, derivative, slope in zip(branches, gains, derivatives, slopes, strict=True)
    )


def time_ledger(site: str, squares: Sequence[float]) -> TimeLedger | None:
    """Gradient through time of one site, from the mean squared |dL/dz| of each of its calls."""
    known = [(i, r) for i, r in enumerate(squares) if r > 0 and math.isfinite(r)]
    if len(squares) < 2 or not known:
        return None
    peak, largest = max(known, key=lambda p: (p[1], p[0]))
    first = squares[0]
    total = 0.5 * math.log10(first / largest) if first > 0 and math.isfinite(first) else None
    slope = _slope([(i, 0.5 * math.log10(r)) for i, r in known if i <= peak])
    growth = 0.5 * math.log10(largest / known[-1][1])
    return TimeLedger(site, len(squares), slope, total, (0, peak), growth)


def _slope(points: Sequence[tuple[int, float]]) -> float | None:
    """Least-squares slope of decades over steps, going back in time: negative where it vanishes."""
    if len(points) < 2:
        return None
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    over = sum((x - mean_x) * (y - mean_y) for x, y in points)
    under = sum((x - mean_x) ** 2 for x, _ in points)
    return -over / under if under else None

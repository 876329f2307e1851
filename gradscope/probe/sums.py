"""What a sweep leaves behind: sums over batches, and over the shares of several processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from gradscope.probe.inputs import InputSums
from gradscope.probe.ledger import Trace
from gradscope.probe.sites import SiteInfo
from gradscope.probe.stats import ForwardStats, PerSample, hosted

K = TypeVar("K")
V = TypeVar("V")


@dataclass
class SiteSums:
    """What was seen of one site over all batches.

    Attributes:
        info: the site as found in the first batch.
        forward: over all calls.
        calls: per call, forward statistics.
        energy: per call, sum over samples and draws of |dL/dz|^2.
        reached: a gradient has arrived.
        count: samples times draws.
        squares: per sample and draw, |dL/dz|^2 over all calls; empty where samples are coupled.
        loops: later calls depend on earlier ones.
    """

    info: SiteInfo
    forward: ForwardStats = field(default_factory=ForwardStats)
    calls: list[ForwardStats] = field(default_factory=list)
    energy: list[float] = field(default_factory=list)
    reached: bool = False
    count: int = 0
    squares: PerSample = field(default_factory=PerSample)
    loops: bool = False

    def merge(self, other: SiteSums) -> SiteSums:
        """Both together, the samples of ``other`` after these."""
        longer = max(len(self.calls), len(other.calls))
        empty = [ForwardStats()] * longer
        calls = zip((self.calls + empty)[:longer], (other.calls + empty)[:longer], strict=True)
        most = max(len(self.energy), len(other.energy))
        zeros = [0.0] * most
        energy = zip((self.energy + zeros)[:most], (other.energy + zeros)[:most], strict=True)
        return SiteSums(
            self.info,
            self.forward.merge(other.forward),
            [a.merge(b) for a, b in calls],
            [a + b for a, b in energy],
            self.reached or other.reached,
            self.count + other.count,
            self.squares.merge(other.squares),
            self.loops or other.loops,
        )


@dataclass
class Sums:
    """What a sweep leaves behind.

    Attributes:
        sites: by id, in execution order.
        traces: per head.
        shapes: per head, of the first batch's output.
        first: samples of the first batch.
        samples, batches: seen.
        inputs: what entered, by position.
        forward_passes, backward_passes: run.
    """

    sites: dict[str, SiteSums] = field(default_factory=dict)
    traces: list[Trace] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    first: int = 0
    samples: int = 0
    inputs: dict[int, InputSums] = field(default_factory=dict)
    batches: int = 0
    forward_passes: int = 0
    backward_passes: int = 0

    def settle(self) -> None:
        """All batches are over: brings the statistics to the CPU."""
        mine = list(self.sites.values())
        every = iter(hosted([f for site in mine for f in (site.forward, *site.calls)]))
        for site in mine:
            site.forward = next(every)
            site.calls = [next(every) for _ in site.calls]

    def merge(self, other: Sums) -> Sums:
        """Both together, the samples of ``other`` after these."""
        heads = zip(self.traces, other.traces, strict=False)
        more = max(self.traces, other.traces, key=len)
        shorter = min(len(self.traces), len(other.traces))
        return Sums(
            _union(self.sites, other.sites, SiteSums.merge),
            [*(a.merge(b) for a, b in heads), *more[shorter:]],
            self.shapes or other.shapes,
            self.first or other.first,
            self.samples + other.samples,
            _union(self.inputs, other.inputs, InputSums.merge),
            self.batches + other.batches,
            self.forward_passes + other.forward_passes,
            self.backward_passes + other.backward_passes,
        )

    def joined(self, other: Sums) -> Sums:
        """These draws and other draws over the same samples; forward statistics are the same."""
        for name, site in self.sites.items():
            twin = other.sites.get(name)
            if twin is not None:
                pairs = zip(site.energy, twin.energy, strict=False)
                site.energy = [a + b for a, b in pairs]
                site.count += twin.count
                site.squares = site.squares.joined(twin.squares)
        pairs_of = zip(self.traces, other.traces, strict=False)
        self.traces = [a.joined(b) for a, b in pairs_of]
        self.forward_passes += other.forward_passes
        self.backward_passes += other.backward_passes
        return self


def _union(one: Mapping[K, V], two: Mapping[K, V], both: Callable[[V, V], V]) -> dict[K, V]:
    """Everything of either, in the order of the first."""
    found = dict(one)
    for key, value in two.items():
        found[key] = both(found[key], value) if key in found else value
    return found

"""Where the decades go: from each output back to the first activation, and through time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LocalEntry:
    """One site inside a block with branches, against the gradient at the block's output.

    Attributes:
        site: id of the site.
        gain: log10 of the RMS gain from the block's output to dL/dz of the site; None if no
            gradient arrived.
        activation: log10 |dL/dz| / (phi'_0 |dL/da|), median over samples.
        slope: log10 phi'_0.
    """

    site: str
    gain: float | None
    activation: float | None
    slope: float | None


@dataclass(frozen=True)
class LedgerEntry:
    """What happens to the gradient between one hidden site and the next one towards the output.

    All in decades, medians over samples and draws; weight + slope + activation = gain per sample
    exactly, and of the medians nearly.

    Attributes:
        site: id of the site (of the first one, if the block has branches).
        label: what to print: the site's layer and kind, or ``a + b`` for a block with branches.
        kind: kind of the activation, or ``block``.
        gain: log10 |delta_l| / |delta_{l+1}|.
        weight: the part of weights, norms, pooling: everything between two sites.
        slope: log10 of the activation's largest slope.
        activation: log10 |delta| / (phi'_0 |u|): the derivative.
        cumulative: decades left at this site: RMS gain from here to the last hidden site.
        cumulative_median: the same of the median sample.
        branches: local ledger, if more than one path leads through the block.
        bypass: a path without hidden site leads around the block (a skip connection).
    """

    site: str
    label: str
    kind: str
    gain: float | None
    weight: float | None
    slope: float | None
    activation: float | None
    cumulative: float | None
    cumulative_median: float | None = None
    branches: tuple[LocalEntry, ...] = ()
    bypass: bool = False


@dataclass(frozen=True)
class TimeLedger:
    """Gradient through time of one recurrent site.

    Attributes:
        site: id of the site.
        steps: number of calls.
        decades_per_step: slope of log10 |dL/dz_t| from the step with the largest gradient back to
            the first, per step.
        total: log10 RMS gain, first step over the step with the largest gradient.
        output_at: steps whose gradient was compared (first, largest).
        growth: log10 RMS gain, the step with the largest gradient over the last that has one.
    """

    site: str
    steps: int
    decades_per_step: float | None
    total: float | None
    output_at: tuple[int, int]
    growth: float | None = None


@dataclass(frozen=True)
class Ledger:
    """Where the gradient goes between output and input of one head, in decades (log10).

    Attributes:
        total: log10 of the RMS gain over samples, first hidden site over last; None with fewer
            than two hidden sites on the spine.
        total_error: standard error over the draws.
        median: log10 of the median gain over samples.
        activation, slope, weight: sums over entries of per-layer medians.
        samples: samples times draws that entered.
        zero_denominators: samples times draws left out since the gradient at the last site was 0.
        cuts: number of cut tensors.
        entries: from the output's side to the input's, i.e. the last hidden site first.
        time: ledgers through time.
    """

    total: float | None
    total_error: float | None
    median: float | None
    activation: float | None
    slope: float | None
    weight: float | None
    samples: int
    zero_denominators: int
    cuts: int
    entries: tuple[LedgerEntry, ...] = ()
    time: tuple[TimeLedger, ...] = ()

    @property
    def gain(self) -> float | None:
        """g = min(total, median), the number that the verdict compares."""
        known = [v for v in (self.total, self.median) if v is not None]
        return min(known) if known else None


@dataclass(frozen=True)
class Head:
    """One output that received a cotangent.

    Attributes:
        name: ``output``, ``output[1]``, ``output.logits``.
        shape: with the sample axis of the first batch.
        batch_axis: None where samples are coupled or the axis is unknown.
        entered_before: what the cotangent skipped (softmax, sigmoid, normalisation), if anything.
        input_gain: log10 RMS |dL/dz| at the first hidden site under a unit cotangent.
        ledger: of this head.
    """

    name: str
    shape: tuple[int, ...]
    batch_axis: int | None
    entered_before: str | None
    input_gain: float | None
    ledger: Ledger

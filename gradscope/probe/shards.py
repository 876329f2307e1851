"""The share of a sample that one of several processes runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch

from gradscope.cutting import cut
from gradscope.model import Batch, Sample
from gradscope.ranks import ALONE, Ranks


@dataclass(frozen=True)
class Shares:
    """How samples are shared out among processes, and gradients brought together.

    Attributes:
        ranks: the processes.
        whole: batches are not cut.
        shard: parameters in training lie in parts over the processes.
    """

    ranks: Ranks = ALONE
    whole: bool = False
    shard: bool = False

    def of(self, sample: Sample) -> Sample:
        """The share of this process."""
        return shard(sample, self.ranks.rank, self.ranks.size, whole=self.whole)

    def of_batch(self, batch: Batch) -> Batch | None:
        """The part of one batch that is this process's; None if it is empty."""
        size = self.ranks.size
        first, last = (r * batch.size // size for r in (self.ranks.rank, self.ranks.rank + 1))
        return part(batch, first, last) if first < last else None

    def add_gradients(self, tensors: Iterable[torch.Tensor]) -> None:
        """``.grad`` of each becomes the sum over the processes."""
        every = list(tensors)
        summed = self.ranks.add([t.grad for t in every])
        for tensor, gradient in zip(every, summed, strict=True):
            if tensor.grad is None and gradient is not None:
                tensor.grad = gradient.to(tensor.device)


EVERYTHING = Shares()
"""Of a process that is alone."""


def shard(sample: Sample, rank: int, size: int, *, whole: bool) -> Sample:
    """Neighbouring samples, as many for every process as for any other, but for one.

    The sample's own number of samples stays: it is what means are taken over. A share may be
    empty.

    Args:
        sample: all of it.
        rank: of this process.
        size: number of processes.
        whole: batches are not cut, since their samples act on each other or the model takes no
            other number: each goes to the process in whose share it begins.
    """
    if size == 1:
        return sample
    low, high = rank * sample.samples // size, (rank + 1) * sample.samples // size

    def batches() -> Iterator[Batch]:
        for batch in sample.batches():
            if batch.start >= high:
                return
            first, last = max(low - batch.start, 0), min(high - batch.start, batch.size)
            if whole:
                if batch.start >= low:
                    yield batch
            elif first < last:
                yield part(batch, first, last)

    return replace(sample, batches=batches)


def part(batch: Batch, first: int, last: int) -> Batch:
    """Samples ``first`` to ``last`` of a batch."""
    tree = (batch.args, dict(batch.kwargs), batch.labels)
    args, kwargs, labels = cut(tree, batch.size, first, last)
    return replace(
        batch, args=args, kwargs=kwargs, labels=labels, size=last - first,
        start=batch.start + first,
    )  # fmt: skip

"""One step of a training that several processes share: the gradient of the whole batch.

Each process runs its part of the batch, and torch's DistributedDataParallel brings the gradients
together while they are made. It takes their mean, and losses are divided by the samples of the
whole batch: times the number of processes, parts add up to what a single process gets. A process
without a part runs one sample that counts nothing, since all of them have to take part.

Where parts would not add up (batch statistics, samples that act on each other, a model that takes
no other number), every process runs the whole batch.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from gradscope.model import Batch
from gradscope.probe.kinds import class_name
from gradscope.probe.shards import part
from gradscope.repair.training import Trainee

Penalty = Callable[[], "torch.Tensor | float"]


class SharedStep:
    """The losses and gradients of a training, alike in all processes; of one, the plain ones.

    Args:
        trainee: the model. Whether batches can be cut is seen at the first of them, when it is in
            its training mode.
    """

    def __init__(self, trainee: Trainee) -> None:
        self._trainee, self._ranks = trainee, trainee.shares.ranks
        self._joint: Callable[..., Any] | None = None

    def loss(self, batch: Batch, number: int, penalty: Penalty) -> tuple[torch.Tensor, float]:
        """What to go back from, the penalty in it; and the mean loss of the whole batch without.

        Args:
            batch: all of it.
            number: of the step, from which each process draws a luck of its own.
            penalty: of the parameters.

        Raises:
            ProbeError: the model cannot be run.
            PeerError: that of another process cannot.
        """
        if self._takes_all():
            with self._ranks.aside():
                output, labels, loss = self._trainee.run(batch)
            value = loss.function(output, labels).mean()
            return value + penalty(), float(value.detach())
        if self._joint is None:
            mine = _Part(self._trainee)
            shard = self._trainee.shares.shard  # which brings gradients together by itself
            self._joint = mine if shard else self._ranks.replicated(mine)
        share = self._trainee.shares.of_batch(batch)
        weight = 0.0 if share is None else 1.0 / batch.size
        with self._own_luck(number), self._ranks.aside():
            value, lost = self._joint(share or part(batch, 0, 1), weight, penalty)
        return value, self._ranks.merged(float(lost), operator.add)

    def backward(self, value: torch.Tensor) -> None:
        """Gradients of the whole batch, and of the penalty once, into ``.grad``.

        Raises:
            RuntimeError: it cannot be differentiated.
            PeerError: another process failed.
        """
        with self._ranks.aside():
            torch.autograd.backward(value)

    def _takes_all(self) -> bool:
        if self._ranks.size == 1 or self._joint is not None:
            return self._joint is None
        return self._trainee.shares.whole or _takes_batch_statistics(self._trainee.module)

    @contextmanager
    def _own_luck(self, number: int) -> Iterator[None]:
        """Dropout falls differently on every part, and the common generators stay in step."""
        with torch.random.fork_rng():
            torch.manual_seed(torch.initial_seed() + number * self._ranks.size + self._ranks.rank)
            yield


class _Part(torch.nn.Module):
    """From one part of a batch to its share of the mean loss: what is wrapped, so that the model
    itself may take and return whatever it likes.

    ``never_used`` is there since torch warns, and past Python, where it looks for parameters
    without a gradient and finds none.
    """

    def __init__(self, trainee: Trainee) -> None:
        super().__init__()
        self.model = trainee.module
        self.never_used = torch.nn.Parameter(torch.zeros(1, device=trainee.device))
        self._trainee = trainee

    def forward(
        self, mine: Batch, weight: float, penalty: Penalty
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What to go back from, whose mean over the processes is the whole; and the share."""
        output, labels, loss = self._trainee.run(mine)
        share = loss.function(output, labels).sum() * weight
        return share * self._trainee.shares.ranks.size + penalty(), share.detach()


def _takes_batch_statistics(module: torch.nn.Module) -> bool:
    """Whether a layer in training looks at other samples, or keeps a running account of them."""
    return any(
        m.training
        and ("BatchNorm" in class_name(m) or getattr(m, "running_mean", None) is not None)
        for m in module.modules()
    )

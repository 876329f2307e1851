"""One step of a training that several processes share: the gradient of the whole batch.

Each process runs its part of the batch; losses are divided by the samples of all of it, so that the
sum of the gradients is that of a single process. Where a layer in training takes statistics over
the batch, parts would have others, and every process runs all of it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from gradscope.model import Batch
from gradscope.probe.kinds import class_name
from gradscope.repair.training import Trainee


class SharedStep:
    """The loss and its gradient, alike in all processes; of one process, the plain ones.

    Args:
        trainee: the model, in its training mode.
        step: its number, from which each process draws a luck of its own.
    """

    def __init__(self, trainee: Trainee, step: int) -> None:
        self._trainee, self._step = trainee, step
        self._ranks = trainee.shares.ranks
        self._alone = self._ranks.size == 1 or _takes_batch_statistics(trainee.module)

    def loss(self, batch: Batch) -> tuple[torch.Tensor | None, float]:
        """What to go back from, None if this process has no part; and the mean loss of all."""
        if self._alone:
            output, labels, loss = self._trainee.run(batch)
            value = loss.function(output, labels).mean()
            return value, float(value.detach())
        mine, part = self._trainee.shares.of_batch(batch), None
        if mine is not None:
            with self._own_luck():
                output, labels, loss = self._trainee.run(mine)
            part = loss.function(output, labels).sum() / batch.size
        lost = 0.0 if part is None else float(part.detach())
        return part, self._ranks.merged(lost, operator.add)

    def backward(
        self, value: torch.Tensor | None, penalty: Callable[[], torch.Tensor | float]
    ) -> None:
        """Gradients of the whole batch, and of the penalty once, into ``.grad``."""
        if self._alone and value is not None:
            torch.autograd.backward(value + penalty())
            return
        if self._ranks.rank == 0:
            added = penalty()
            if isinstance(added, torch.Tensor):
                value = added if value is None else value + added
        if value is not None:
            torch.autograd.backward(value)
        self._trainee.shares.add_gradients(self._trainee.parameters)

    @contextmanager
    def _own_luck(self) -> Iterator[None]:
        """Dropout falls differently on every part, and the common generators stay in step."""
        with torch.random.fork_rng():
            torch.manual_seed(torch.initial_seed() + self._step * self._ranks.size
                              + self._ranks.rank)  # fmt: skip
            yield


def _takes_batch_statistics(module: torch.nn.Module) -> bool:
    return any(m.training and "BatchNorm" in class_name(m) for m in module.modules())

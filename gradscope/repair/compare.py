"""What a trial and a repair share: a model in training, put back after it, and scores compared."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np
import torch

from gradscope.config import Settings
from gradscope.counterfactual import CLEAR
from gradscope.measurements import Measurements
from gradscope.repair.minibatches import Minibatches
from gradscope.repair.naming import is_named
from gradscope.repair.training import Scored, Trainee
from gradscope.snapshot import Snapshot
from gradscope.treatment import is_clear


def trainee_of(
    module: torch.nn.Module,
    trained: list[torch.Tensor],
    measured: Measurements,
    settings: Settings,
    device: torch.device,
    freeze: tuple[str, ...] = (),
) -> Trainee:
    """A module in the hands of an optimiser; what ``freeze`` names keeps its running statistics."""
    head = measured.heads[0] if measured.heads else None
    enter_call, set_training = held(module, freeze)
    return Trainee(
        module,
        trained,
        enter_call,
        set_training,
        settings.probe.loss,
        head.entered_before if head is not None else None,
        settings.probe.outputs,
        device,
        freeze=freeze,
    )


def held(
    module: torch.nn.Module, freeze: tuple[str, ...]
) -> tuple[Callable[[], object], Callable[[bool], object]]:
    """What is called before each call of a module, and what sets its mode."""
    before_call = Snapshot(module, leave=_running(module, freeze)).restore
    return before_call, _mode_switch(module)


def _running(module: torch.nn.Module, freeze: tuple[str, ...]) -> frozenset[int]:
    """Statistics that training is meant to move."""
    kinds = ("running_mean", "running_var", "num_batches_tracked")
    found = module.named_buffers()
    moved = ((n, b) for n, b in found if n.rpartition(".")[2] in kinds and not is_named(n, freeze))
    return frozenset(id(b) for _, b in moved)


def _mode_switch(module: torch.nn.Module) -> Callable[[bool], object]:
    def switch(training: bool) -> None:
        with suppress(NotImplementedError, RuntimeError):  # an exported program has one mode
            module.train(training)

    return switch


@contextmanager
def put_back(module: torch.nn.Module, seed: int = 0) -> Iterator[None]:
    """Inside, what is drawn is drawn anew from ``seed``; after it the numbers are as before."""
    held = [(t, t.detach().clone()) for t in (*module.parameters(), *module.buffers())]
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in held:
                tensor.copy_(value)


@dataclass(frozen=True)
class Scale:
    """From mean points of a sample to a score: accuracy as it is, negative loss to skill."""

    metric: str
    chance: float
    room: float

    def __call__(self, points: float) -> float:
        return points if self.metric == "accuracy" else 1 + points / self.room


def gain_of(last: Scored, best: Scored, room: float) -> tuple[float | None, float | None]:
    difference = (last.points - best.points) / room
    if not bool(torch.isfinite(difference).all()) or len(difference) < 2:
        return None, None
    return float(difference.mean()), float(difference.std()) / math.sqrt(len(difference))


def is_proven(last: Scored, first: Scored, room: float, floor: float) -> bool:
    """Whether ``last`` is better than ``first`` beyond chance: in its points, or, where a few
    held-out answers cannot show that, as clearly in its losses and in its points by more than one
    standard error. The losses alone tell the wrong from the undecided as well, so that ``last``
    must do better than a guess, too: its points lie above ``floor``.
    """
    gain, error = gain_of(last, first, room)
    if is_clear(gain, error):
        return True
    if gain is None or error is None or gain <= error or last.mean <= floor:
        return False
    lost = Scored(-last.losses, last.losses), Scored(-first.losses, first.losses)
    return is_clear(*gain_of(*lost, 1.0))


def scale_of(trainee: Trainee, data: Minibatches) -> Scale:
    assert trainee.loss is not None
    labels = torch.cat([b.labels for b in data.held_out() if b.labels is not None])
    if trainee.loss.kind in ("cross-entropy", "nll", "bce"):
        counts = torch.unique(labels, return_counts=True)[1]
        chance = float(counts.max()) / labels.numel()
        return Scale("accuracy", chance, max(1 - chance, 1e-3))
    spread = float(labels.double().reshape(len(labels), -1).var(dim=0, correction=0).mean())
    return Scale("skill", 0.0, max(spread, 1e-12))


def loss_of_a_guess(scale: Scale, trainee: Trainee, data: Minibatches) -> float:
    """Held-out loss of the best answer that does not look at the input; inf of a loss of the
    user's."""
    kind = trainee.loss.kind if trainee.loss is not None else ""
    if kind == "mse":
        return scale.room
    if scale.metric != "accuracy":
        return math.inf
    labels = torch.cat([b.labels.flatten() for b in data.held_out() if b.labels is not None])
    shares = torch.unique(labels, return_counts=True)[1].double() / len(labels)
    return float(-(shares * shares.log()).sum()) or math.inf  # of one class nothing is left


def floor_of(scale: Scale, trainee: Trainee, samples: int) -> float:
    """Mean points up to which a model does no better than a guess: three standard errors above."""
    if scale.metric == "accuracy":
        return scale.chance + 3 * math.sqrt(scale.chance * (1 - scale.chance) / samples)
    is_mse = trainee.loss is not None and trainee.loss.kind == "mse"
    return -0.9 * scale.room if is_mse else -math.inf


def ceiling_of(scale: Scale) -> float:
    """Mean points from which there is no room for a clear gain."""
    if scale.metric == "accuracy":
        return 1 - CLEAR * (1 - scale.chance)
    return -CLEAR * scale.room

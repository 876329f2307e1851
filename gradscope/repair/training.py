"""Trains a model for a few steps and scores it on held-out data on the way."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_map

from gradscope.errors import DataError
from gradscope.measurements import Arm
from gradscope.model import Batch
from gradscope.probe.heads import chosen_tensors
from gradscope.probe.losses import Loss, class_last, decide
from gradscope.progress import Progress
from gradscope.repair.minibatches import Minibatches


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        steps: of Adam.
        rate: learning rate.
        batch: samples a step.
        clip: largest norm of the whole gradient; None: any.
    """

    steps: int
    rate: float
    batch: int
    clip: float | None

    def __str__(self) -> str:
        clipped = f", gradient clipped at {self.clip:g}" if self.clip else ""
        return f"Adam {self.rate:g}, batches of {self.batch}{clipped}"

    def score_at(self) -> frozenset[int]:
        """Steps at which it is scored: about ten, denser at the start."""
        parts = (0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0)
        return frozenset({0, *(max(1, round(self.steps * p)) for p in parts)})


@dataclass(frozen=True)
class Scored:
    """Held-out scores of one moment: one a sample, higher is better.

    ``points`` are right answers (0 to 1) or negative losses; ``losses`` the losses.
    """

    points: torch.Tensor
    losses: torch.Tensor

    @property
    def mean(self) -> float:
        """Over the samples."""
        return float(self.points.mean())


@dataclass
class Trainee:
    """A model in the hands of an optimiser.

    Attributes:
        module: trained in place.
        parameters: that are trained.
        enter_call: called before each call, so that no state is carried on.
        set_training: puts the model into its training or its evaluation mode.
        loss_name: ``--loss``.
        squash: what ends the model, if it squashes.
        outputs: names of outputs; the loss is taken at the first.
        prepare: changes inputs before they enter.
        loss: decided at the first batch.
    """

    module: torch.nn.Module
    parameters: list[torch.Tensor]
    enter_call: Callable[[], object]
    set_training: Callable[[bool], object]
    loss_name: str
    squash: str | None
    outputs: tuple[str, ...]
    device: torch.device
    prepare: Callable[[Batch], Batch] = lambda batch: batch
    loss: Loss | None = None

    def call(self, batch: Batch) -> torch.Tensor | None:
        """The first floating-point output for one batch; None if there is none."""
        batch = self.prepare(batch)

        def enter(value: Any) -> Any:
            return value.to(self.device).clone() if isinstance(value, torch.Tensor) else value

        self.enter_call()
        output = self.module(*tree_map(enter, batch.args), **tree_map(enter, dict(batch.kwargs)))
        tensors = (t for _, t in chosen_tensors(output, self.outputs))
        return next((t for t in tensors if t.is_floating_point() and t.numel()), None)

    def run(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, Loss]:
        """(output, labels, loss) of one batch.

        Raises:
            DataError: no floating-point output, or no labels.
        """
        first = self.call(batch)
        if first is None or batch.labels is None:
            raise DataError("training needs labels and an output that they belong to")
        labels = batch.labels.to(self.device)
        if self.loss is None:
            self.loss = decide(self.loss_name, first, labels, self.squash)
        return first, labels, self.loss

    def score(self, batches: Iterator[Batch]) -> Scored:
        """On held-out data, in evaluation mode."""
        self.set_training(False)
        points, losses = [], []
        with torch.no_grad():
            for batch in batches:
                output, labels, loss = self.run(batch)
                of_samples = loss.function(output, labels).double().cpu()
                losses.append(of_samples)
                right = _right(loss, output, labels, self.squash)
                points.append(-of_samples if right is None else right)
        if not points:
            raise DataError("a trial has no held-out samples", hint="Pass --val, or more samples.")
        return Scored(torch.cat(points), torch.cat(losses))


@dataclass(frozen=True)
class Trained:
    """The moments at which a model was scored, and why it ended early."""

    moments: tuple[tuple[int, Scored], ...]
    stopped: str | None

    def arm(self, points: Callable[[float], float]) -> Arm:
        """As it is reported, with mean points turned into a score."""
        return Arm(
            tuple(step for step, _ in self.moments),
            tuple(_finite(points(s.mean)) for _, s in self.moments),
            tuple(_finite(float(s.losses.mean())) for _, s in self.moments),
            self.stopped,
        )


def train(trainee: Trainee, data: Minibatches, recipe: Recipe, progress: Progress) -> Trained:
    """Train in place; a loss that is not finite ends it."""
    optimiser = torch.optim.Adam(trainee.parameters, lr=recipe.rate)
    marks = recipe.score_at()
    moments = [(0, trainee.score(data.held_out()))]
    batches = data.training()
    for step in range(1, recipe.steps + 1):
        batch = next(batches, None)
        if batch is None:
            raise DataError("a trial has nothing to train on", hint="Pass more samples.")
        trainee.set_training(True)
        output, labels, loss = trainee.run(batch)
        value = loss.function(output, labels).mean()
        optimiser.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        if not math.isfinite(float(value.detach())):
            return Trained(tuple(moments), f"the loss is {float(value.detach())} at step {step}")
        if recipe.clip:
            torch.nn.utils.clip_grad_norm_(trainee.parameters, recipe.clip)
        optimiser.step()
        progress.advance()
        if step in marks:
            moments.append((step, trainee.score(data.held_out())))
    return Trained(tuple(moments), None)


def _right(
    loss: Loss, output: torch.Tensor, labels: torch.Tensor, squash: str | None
) -> torch.Tensor | None:
    """Share of right answers of each sample; None for a regression."""
    if loss.kind in ("cross-entropy", "nll"):
        hits = class_last(output, labels).argmax(dim=-1) == labels
    elif loss.kind == "bce":
        middle = 0.5 if squash == "sigmoid" else 0.0
        hits = (output > middle) == (labels.reshape(output.shape) > 0.5)
    else:
        return None
    return hits.double().reshape(labels.shape[0], -1).mean(dim=1).cpu()


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None

"""Trains a model for a few steps and scores it on held-out data on the way."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_map

from gradscope.errors import DataError, ProbeError
from gradscope.measurements import Arm
from gradscope.model import Batch
from gradscope.probe.heads import chosen_tensors
from gradscope.probe.losses import Loss, check_labels, class_last, decide, is_answer
from gradscope.progress import Progress
from gradscope.repair.minibatches import Minibatches


@dataclass(frozen=True)
class Penalty:
    """What keeps weights small while a model is trained.

    Attributes:
        kind: l2 (strength * sum of squares in the loss), l1 (sum of absolute values), adamw
            (decoupled decay, by the optimiser), max-norm (largest norm of a unit's weights),
            spectral (largest singular value of a matrix) or none.
        strength: its factor or its limit.
    """

    kind: str = "none"
    strength: float = 0.0

    def __str__(self) -> str:
        return "" if self.kind == "none" else f", {self.kind} {self.strength:g}"

    def of(self, parameters: list[torch.Tensor]) -> torch.Tensor | float:
        """What is added to the loss."""
        if self.kind == "l2":
            return self.strength * torch.stack([p.square().sum() for p in parameters]).sum()
        if self.kind == "l1":
            return self.strength * torch.stack([p.abs().sum() for p in parameters]).sum()
        return 0.0

    @torch.no_grad()
    def project(self, parameters: list[torch.Tensor]) -> None:
        """Back to within the limit, after a step."""
        if self.kind not in ("max-norm", "spectral"):
            return
        for p in parameters:
            if p.dim() < 2:
                continue
            flat = p.flatten(1)
            if self.kind == "max-norm":
                norms = flat.norm(dim=1, keepdim=True)
                flat.mul_((self.strength / norms.clamp_min(1e-12)).clamp_max(1.0))
            else:
                size = float(torch.linalg.matrix_norm(flat, 2))
                flat.mul_(min(1.0, self.strength / max(size, 1e-12)))


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        steps: of the optimiser.
        rate: learning rate.
        batch: samples a step.
        clip: largest norm of the whole gradient; None: any.
        optimizer: adam, adamw or sgd (momentum .9).
        penalty: what keeps weights small.
        every: steps between two scores; 0: about ten scores, denser at the start.
        patience: scores without a better one after which it ends; 0: it does not.
    """

    steps: int
    rate: float
    batch: int
    clip: float | None
    optimizer: str = "adam"
    penalty: Penalty = Penalty()
    every: int = 0
    patience: int = 0

    def __str__(self) -> str:
        clipped = f", gradient clipped at {self.clip:g}" if self.clip else ""
        name = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD, momentum .9,"}[self.optimizer]
        return f"{name} {self.rate:g}, batches of {self.batch}{clipped}{self.penalty}"

    def score_at(self) -> frozenset[int]:
        """Steps at which it is scored."""
        if self.every:
            return frozenset({0, *range(self.every, self.steps, self.every), self.steps})
        parts = (0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0)
        return frozenset({0, *(max(1, round(self.steps * p)) for p in parts)})

    def made(self, parameters: list[torch.Tensor]) -> torch.optim.Optimizer:
        """The optimiser."""
        if self.optimizer == "sgd":
            return torch.optim.SGD(parameters, lr=self.rate, momentum=0.9)
        if self.optimizer == "adamw":
            decay = self.penalty.strength if self.penalty.kind == "adamw" else 0.0
            return torch.optim.AdamW(parameters, lr=self.rate, weight_decay=decay)
        return torch.optim.Adam(parameters, lr=self.rate)


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

    @property
    def rank(self) -> tuple[float, float]:
        """Higher is better: points first, then the loss; what is not finite is lowest."""
        loss = float(self.losses.mean())
        points = self.mean if math.isfinite(self.mean) else -math.inf
        return points, -loss if math.isfinite(loss) else -math.inf


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
        args, kwargs = tree_map(enter, batch.args), tree_map(enter, dict(batch.kwargs))
        try:
            output = self.module(*args, **kwargs)
        except Exception as error:  # any code may stand in a model's forward
            first = str(error).strip().split("\n")[0][:200]
            what = f"the model cannot be trained on {batch.size} samples at once"
            raise ProbeError(f"{what}: {type(error).__name__}: {first}") from error
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
        else:
            check_labels(self.loss, first, labels)
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


def train(
    trainee: Trainee,
    data: Minibatches,
    recipe: Recipe,
    progress: Progress,
    scored: Callable[[int, Scored], None] = lambda step, score: None,
) -> Trained:
    """Train in place; a loss that is not finite ends it, and so does lost patience.

    Args:
        trainee: the model.
        data: what to train and to score on.
        recipe: how.
        progress: told about every step.
        scored: told about every score, with the model as it was scored.
    """
    optimiser = recipe.made(trainee.parameters)
    marks = recipe.score_at()
    moments = [(0, trainee.score(data.held_out()))]
    scored(*moments[0])
    batches = data.training()
    for step in range(1, recipe.steps + 1):
        batch = next(batches, None)
        if batch is None:
            raise DataError("a trial has nothing to train on", hint="Pass more samples.")
        trainee.set_training(True)
        output, labels, loss = trainee.run(batch)
        value = loss.function(output, labels).mean()
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(value + recipe.penalty.of(trainee.parameters))
        if not math.isfinite(float(value.detach())):
            return Trained(tuple(moments), f"the loss is {float(value.detach())} at step {step}")
        if recipe.clip:
            torch.nn.utils.clip_grad_norm_(trainee.parameters, recipe.clip)
        optimiser.step()
        recipe.penalty.project(trainee.parameters)
        progress.advance()
        if step in marks:
            moments.append((step, trainee.score(data.held_out())))
            scored(*moments[-1])
            if recipe.patience and _stale(moments) >= recipe.patience:
                return Trained(tuple(moments), f"no better score since step {_best(moments)}")
    return Trained(tuple(moments), None)


def _best(moments: list[tuple[int, Scored]]) -> int:
    return max(moments, key=lambda m: m[1].rank)[0]


def _stale(moments: list[tuple[int, Scored]]) -> int:
    steps = [step for step, _ in moments]
    return len(steps) - 1 - steps.index(_best(moments))


def _right(
    loss: Loss, output: torch.Tensor, labels: torch.Tensor, squash: str | None
) -> torch.Tensor | None:
    """Share of right answers of each sample; None for a regression."""
    if loss.kind in ("cross-entropy", "nll"):
        scores = class_last(output, labels)
        hits = (scores.argmax(dim=-1) == labels) & is_answer(scores)
    elif loss.kind == "bce":
        middle = 0.5 if squash == "sigmoid" else 0.0
        hits = (output > middle) == (labels.reshape(output.shape) > 0.5)
    else:
        return None
    return hits.double().reshape(labels.shape[0], -1).mean(dim=1).cpu()


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None

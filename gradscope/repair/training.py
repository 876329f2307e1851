"""A model in the hands of an optimiser, and its scores on held-out data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch.utils._pytree import tree_map

from gradscope.errors import DataError, ProbeError
from gradscope.model import Batch
from gradscope.probe.heads import chosen_tensors
from gradscope.probe.losses import Loss, check_labels, class_last, decide, is_answer
from gradscope.probe.shards import EVERYTHING, Shares
from gradscope.repair.layout import HERE, Layout


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

    @cached_property
    def rank(self) -> tuple[float, float]:
        """Higher is better: points first, then the loss; what is not finite is lowest."""
        loss = float(self.losses.mean())
        points = self.mean if math.isfinite(self.mean) else -math.inf
        return points, -loss if math.isfinite(loss) else -math.inf


def as_it_is(batch: Batch) -> Batch:
    """Inputs that enter unchanged."""
    return batch


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
        shares: which samples of a batch this process trains on.
        freeze: what keeps its running statistics.
        layout: where its tensors lie.
    """

    module: torch.nn.Module
    parameters: list[torch.Tensor]
    enter_call: Callable[[], object]
    set_training: Callable[[bool], object]
    loss_name: str
    squash: str | None
    outputs: tuple[str, ...]
    device: torch.device
    prepare: Callable[[Batch], Batch] = as_it_is
    loss: Loss | None = None
    shares: Shares = EVERYTHING
    freeze: tuple[str, ...] = ()
    layout: Layout = HERE

    def call(self, batch: Batch) -> torch.Tensor | None:
        """The first floating-point output for one batch; None if there is none."""
        tensors = (t for _, t in chosen_tensors(self.whole(batch), self.outputs))
        return next((t for t in tensors if t.is_floating_point() and t.numel()), None)

    def whole(self, batch: Batch) -> Any:
        """All that the model returns for one batch.

        Raises:
            ProbeError: it fails.
        """
        batch = self.prepare(batch)

        def enter(value: Any) -> Any:
            return value.to(self.device).clone() if isinstance(value, torch.Tensor) else value

        self.enter_call()
        args, kwargs = tree_map(enter, batch.args), tree_map(enter, dict(batch.kwargs))
        try:
            return self.module(*args, **kwargs)
        except Exception as error:  # any code may stand in a model's forward
            first = str(error).strip().split("\n")[0][:200]
            what = f"the model cannot be trained on {batch.size} samples at once"
            raise ProbeError(f"{what}: {type(error).__name__}: {first}") from error

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
            what, hint = "there are no held-out samples to score on", "Pass --val, or more samples."
            raise DataError(what, hint=hint)
        return Scored(torch.cat(points), torch.cat(losses))


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

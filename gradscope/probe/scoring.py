"""Runs a model on labelled samples: the gradient of its mean loss, and its skill."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._pytree import tree_map

from gradscope.errors import DataError
from gradscope.measurements import Skill
from gradscope.model import Batch, Sample
from gradscope.probe.heads import chosen_tensors
from gradscope.probe.losses import (
    Loss,
    Score,
    accuracy_skill,
    check_labels,
    commonest,
    decide,
    score,
    skill,
)
from gradscope.probe.shards import EVERYTHING, Shares, part
from gradscope.probe.state import BackwardInEval
from gradscope.probe.subject import Subject, models_code
from gradscope.progress import Progress

_FEW = 2  # samples that show what an output is like


class Scorer:
    """Decides on a loss at the first batch and keeps to it.

    Args:
        subject: the model; the loss is taken at the first of its outputs.
        name: ``--loss``.
        entered_before: the squashing at the end of the model, if any.
        shares: which samples this process runs.
    """

    def __init__(
        self,
        subject: Subject,
        name: str,
        entered_before: str | None,
        shares: Shares = EVERYTHING,
    ) -> None:
        self._subject, self._name, self._shares = subject, name, shares
        self._squash = entered_before
        self._loss: Loss | None = None
        self._seen: dict[int, Score] = {}
        self.forward_passes = self.backward_passes = 0

    def accumulate(self, sample: Sample, progress: Progress) -> None:
        """Adds the gradient of the mean loss over the whole sample to the parameters' ``.grad``."""
        whole = Score()
        self._decide_alike(sample)
        for batch in self._shares.of(sample).batches():
            with torch.enable_grad():
                with BackwardInEval():
                    output, labels = self._run(batch)
                loss = self._decided(output, labels)
                losses = loss.function(output, labels)
                if losses.requires_grad:
                    with models_code("the backward pass failed"):
                        torch.autograd.backward(losses.sum() / sample.samples)
                    self._subject.make_gradients_dense()
                    self.backward_passes += 1
            whole = whole.merge(score(loss, output.detach(), labels, self._squash))
            progress.advance(batch.size)
        self._seen[id(sample)] = self._shares.ranks.merged(whole, Score.merge)
        self._shares.add_gradients(self._subject.names.tensors.values())

    def skill(self, sample: Sample, *, held_out: bool, progress: Progress) -> Skill:
        """How much better than guessing the model is on a labelled sample."""
        whole = self._seen.get(id(sample))
        if whole is None:
            whole = Score()
            self._decide_alike(sample)
            with torch.no_grad():
                for batch in self._shares.of(sample).batches():
                    output, labels = self._run(batch)
                    loss = self._decided(output, labels)
                    whole = whole.merge(score(loss, output, labels, self._squash))
                    progress.advance(batch.size)
            whole = self._shares.ranks.merged(whole, Score.merge)
        decided = self._loss
        if decided is None or not whole.losses:
            raise DataError("no labelled sample could be run", where=sample.path)
        value, error, mean = skill(decided, whole)
        accuracy = whole.right / whole.answers if whole.right is not None else None
        samples = sum(piece.numel() for piece in whole.losses)
        chance = commonest(decided, whole) if accuracy is not None else None
        above, above_error = accuracy_skill(accuracy, chance, samples)
        return Skill(
            value, error, mean, decided.kind, decided.how, accuracy, held_out, samples,
            chance, above, above_error,
        )  # fmt: skip

    def seen(self, sample: Sample) -> bool:
        """Whether the sample has been scored already, for its gradient."""
        return id(sample) in self._seen

    def passes(self) -> tuple[int, int]:
        """Forward and backward passes of all processes."""
        mine = (self.forward_passes, self.backward_passes)
        return self._shares.ranks.merged(mine, lambda a, b: (a[0] + b[0], a[1] + b[1]))

    def _decide_alike(self, sample: Sample) -> None:
        """Every process decides as a single one does: by the whole first batch's labels.

        What the output is like, a few of its samples tell.
        """
        if self._shares.ranks.size == 1 or self._loss is not None:
            return
        first = next(iter(sample.batches()))
        few = first if self._shares.whole else part(first, 0, min(_FEW, first.size))
        with torch.no_grad():
            output, labels = self._run(few)
        self.forward_passes -= 1  # it is run again with the others
        if few.size < first.size and first.labels is not None:
            times = (-(-first.size // few.size), *[1] * (output.dim() - 1))
            rows = output.shape[0] * first.size // few.size if output.dim() else 0
            output = output.repeat(times)[:rows] if output.dim() else output
            labels = first.labels.to(labels.device)
        self._decided(output, labels)

    def _decided(self, output: torch.Tensor, labels: torch.Tensor) -> Loss:
        if self._loss is None:
            self._loss = decide(self._name, output, labels, self._squash)
        else:
            check_labels(self._loss, output, labels)
        return self._loss

    def _run(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        def enter(value: Any) -> Any:
            is_tensor = isinstance(value, torch.Tensor)
            return value.to(self._subject.device).clone() if is_tensor else value

        args, kwargs = tree_map(enter, batch.args), tree_map(enter, dict(batch.kwargs))
        where = f"samples {batch.start}..{batch.start + batch.size - 1}"
        output = self._subject(args, kwargs, where)
        self.forward_passes += 1
        first = next(
            (
                t
                for _, t in chosen_tensors(output, self._subject.outputs)
                if t.is_floating_point() and t.numel()
            ),
            None,
        )
        if first is None or batch.labels is None:
            raise DataError("no floating-point output or no labels to compare", where=where)
        return first, batch.labels.to(self._subject.device)

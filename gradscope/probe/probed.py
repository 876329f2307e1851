"""The loss-free sweep of a model, its parameters' gradients included."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch

from gradscope.config import ProbeSettings
from gradscope.errors import ProbeError
from gradscope.findings import Skipped
from gradscope.measurements import Attention, GradientStats
from gradscope.model import Sample
from gradscope.probe.arriving import Take, taken_by
from gradscope.probe.attention import find_attention, may_attend
from gradscope.probe.calibrate import calibrate
from gradscope.probe.forward import ForwardPass
from gradscope.probe.forward_only import forward_sums
from gradscope.probe.gradients import GradientTable
from gradscope.probe.places import ScatteredError
from gradscope.probe.saving import save_gradients
from gradscope.probe.scoring import Scorer
from gradscope.probe.shards import Shares
from gradscope.probe.storages import address
from gradscope.probe.subject import Subject
from gradscope.probe.sums import Sums
from gradscope.probe.sweep import Sweep
from gradscope.progress import Progress
from gradscope.ranks import ALONE, Ranks


@dataclass
class Probed:
    """The loss-free sweep of one model and what came of it."""

    subject: Subject
    settings: ProbeSettings
    seed: int
    ranks: Ranks = ALONE
    sums: Sums = field(default_factory=Sums)
    statistics: dict[str, GradientStats] = field(default_factory=dict)
    table: GradientTable = field(default_factory=GradientTable)
    skipped: list[Skipped] = field(default_factory=list)
    means: dict[str, torch.Tensor] = field(default_factory=dict)
    loss_means: dict[str, torch.Tensor] = field(default_factory=dict)

    def attention(self, sample: Sample, *, whole: bool) -> tuple[Attention, ...]:
        """Of the first samples; nothing where no softmax stands inside."""
        first = next(iter(sample.batches()), None)
        if first is None or not may_attend(self.first.graph):
            return ()
        return find_attention(self.subject, first, whole=whole)

    def run(self, sample: Sample, progress: Progress, *, whole: bool) -> None:
        """Calibrate, sweep, and take the statistics of the parameters' gradients, if wanted."""
        first = next(iter(sample.batches()), None)
        if first is None:
            raise ProbeError("the sample has no batch", where=sample.path)
        self.samples_at_once = first.size
        self.axes, self.first = calibrate(self.subject, first, sample.samples, whole=whole)
        self.shares = Shares(self.ranks, whole or self.axes.coupled is not None)
        self._check(self.first)
        if not self.settings.gradients:
            self._forward(sample, progress)
            return
        keep = self.settings.save_gradients is not None
        try:
            totals = self._sweeps(sample, progress, keep=keep)
        except ScatteredError as error:
            self._forget(error.reason)
            totals = self._sweeps(sample, progress, keep=keep)
        if self.axes.coupled:
            reason = f"samples {self.axes.coupled}: gains are per batch, not per sample"
            self.skipped.append(Skipped("per-sample statistics", reason))
        scale = self._scale(self.sums.batches if self.axes.coupled else self.sums.samples)
        for name, tensor in self.subject.names.tensors.items():
            gradient = totals.get(name) if keep else tensor.grad
            if name not in self.table:
                self.table.add(name, gradient, scale)
            tensor.grad = None
        self.statistics = self.table.stats()
        for mean in self.means.values():
            mean.mul_(math.sqrt(self.draws) * scale / self.draws)

    def _taking(self, sample: Sample) -> Take | None:
        """What looks at gradients as they arrive, where one pass makes the whole of them."""
        one_pass = self.samples_at_once == sample.samples and self.ranks.size == 1
        if not one_pass or self.settings.save_gradients is not None:
            return None
        scale = self._scale(1 if self.axes.coupled else sample.samples)
        return lambda name, gradient: self.table.add(name, gradient, scale)

    def _forward(self, sample: Sample, progress: Progress) -> None:
        """Activations only."""
        progress.start("probing", sample.samples)
        share = self.shares.of(sample)
        mine, in_steps = forward_sums(self.subject, self.axes, self.first, share, progress)
        self.sums = self.ranks.merged(mine, Sums.merge)
        self.skipped += [Skipped("all gradients", "--no-gradients asks for none"), *in_steps]
        progress.finish()

    def _sweeps(self, sample: Sample, progress: Progress, *, keep: bool) -> dict[str, torch.Tensor]:
        """One sweep with all draws; one a draw where each is to be kept, with their total."""
        progress.start("probing", sample.samples)
        totals: dict[str, torch.Tensor] = {}
        draws = list(range(self.draws))
        for group in [[d] for d in draws] if keep else [draws]:
            self._sweep(sample, group, progress)
            if keep:
                self._keep(totals)
        progress.finish()
        return totals

    def _forget(self, reason: str) -> None:
        """Before it all is measured anew, samples together."""
        self.axes = replace(self.axes, coupled=reason)
        self.shares = replace(self.shares, whole=True)
        self.sums, self.means, self.table = Sums(), {}, GradientTable()
        for tensor in self.subject.names.tensors.values():
            tensor.grad = None

    @property
    def draws(self) -> int:
        """Random cotangents: one where there is no choice, and signs would cancel."""
        if not self.settings.gradients:
            return 0
        return 1 if self.axes.single else self.settings.draws

    def _scale(self, parts: int) -> float:
        """Of a sum of gradients over so many samples (batches, if coupled), and the draws.

        Random cotangents add like their number's root, the constant one of a single number fully.
        """
        return 1.0 / parts if self.axes.single else 1.0 / math.sqrt(parts * self.draws)

    def _sweep(self, sample: Sample, draws: list[int], progress: Progress) -> None:
        take = self._taking(sample)
        sweep = Sweep(self.subject, self.axes, draws=draws, seed=self.seed, take=take)
        mine, scattered = Sums(), False
        try:
            mine = sweep.over(self.shares.of(sample), progress)
        except ScatteredError:
            scattered = True
        if self.ranks.any(scattered):
            raise ScatteredError
        before, self.sums = self.sums, self.ranks.merged(mine, Sums.merge)
        self.sums.shapes = [self._whole_shape(i, s) for i, s in enumerate(self.sums.shapes)]
        self.shares.add_gradients(self.subject.names.tensors.values())
        self._merge(before)

    def _whole_shape(self, head: int, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Of an output on the whole first batch, where this process or another ran a part of it."""
        part, axis = self.sums.first, self.axes.heads[head].axis
        if part == self.samples_at_once or self.axes.coupled or axis >= len(shape):
            return shape
        return (*shape[:axis], shape[axis] // part * self.samples_at_once, *shape[axis + 1 :])

    def _merge(self, before: Sums) -> None:
        """With one sweep a draw, passes add up; the ledger joins the draws."""
        if before.samples:
            self.sums = before.joined(self.sums)

    def _keep(self, totals: dict[str, torch.Tensor]) -> None:
        for name, tensor in self.subject.names.tensors.items():
            if tensor.grad is None:
                continue
            for into, value in ((totals, tensor.grad), (self.means, tensor.grad.abs())):
                into[name] = into[name] + value if name in into else value.clone()
            tensor.grad = None

    def _check(self, run: ForwardPass) -> None:
        self.skipped += list(run.skipped)
        if not run.heads:
            reasons = "; ".join(f"{s.what}: {s.reason}" for s in run.skipped) or "no tensor"
            raise ProbeError(f"no output of the model can receive a gradient ({reasons})")
        for index, reason in run.lost.items():
            kind = run.records[index].kind.name
            self.skipped.append(Skipped(f"activation {index} ({kind})", reason))

    def squash(self) -> str | None:
        """What the first head's cotangent entered before."""
        return self.first.heads[0].entered_before

    def used(self) -> set[str]:
        """Names of the parameters that an operation of the forward pass took."""
        tensors = self.subject.names.tensors.items()
        taken = self.first.storages
        return {name for name, t in tensors if address(t) in taken}

    def batch_axes(self) -> list[int | None]:
        """Batch axis of each head."""
        return [None if self.axes.coupled else layout.axis for layout in self.axes.heads]

    def loss_gradients(
        self, sample: Sample, scorer: Scorer, progress: Progress
    ) -> Mapping[str, GradientStats]:
        """Statistics of the gradient of the mean loss."""
        progress.start("loss gradient", sample.samples)
        table = GradientTable()
        whole = self._taking(sample) is not None
        with taken_by(table.add if whole else None, self.subject.names.tensors):
            scorer.accumulate(sample, progress)
        progress.finish()
        for name, tensor in self.subject.names.tensors.items():
            if name not in table:
                table.add(name, tensor.grad)
            if self.settings.save_gradients is not None and tensor.grad is not None:
                self.loss_means[name] = tensor.grad.abs()
            tensor.grad = None
        return table.stats()

    def save(self, path: str | None, with_loss: bool) -> None:
        """Write the mean |g| of every element, if asked to."""
        if path is not None:
            save_gradients(path, self.means, self.loss_means if with_loss else None)

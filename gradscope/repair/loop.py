"""Trains a model, scores it on held-out data on the way, and can go on where it was broken off."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from gradscope.errors import DataError, ProbeError
from gradscope.measurements import Arm
from gradscope.model import Batch
from gradscope.progress import Progress
from gradscope.repair.blame import first_bad
from gradscope.repair.checkpoints import Keeper, random_state, set_random_state
from gradscope.repair.minibatches import Minibatches, Place, Stream
from gradscope.repair.recipe import Recipe
from gradscope.repair.shared_step import SharedStep
from gradscope.repair.training import Scored, Trainee
from gradscope.treatment import PROOF

Tensors = dict[str, torch.Tensor]


@dataclass
class Trained:
    """The moments at which a model was scored, and why it ended early.

    Attributes:
        moments: step and score, the first before any step.
        trained_on: mean training loss since the moment before; None at the first.
        best: parameters and buffers at the best moment.
        stopped: why it ended before its last step; None: it did not.
        resumed: the step from which it went on; None: from none.
    """

    moments: list[tuple[int, Scored]] = field(default_factory=list)
    trained_on: list[float | None] = field(default_factory=list)
    best: Tensors = field(default_factory=dict)
    stopped: str | None = None
    resumed: int | None = None

    def arm(self, points: Callable[[float], float]) -> Arm:
        """As it is reported, with mean points turned into a score."""
        return Arm(
            tuple(step for step, _ in self.moments),
            tuple(_finite(points(s.mean)) for _, s in self.moments),
            tuple(_finite(float(s.losses.mean())) for _, s in self.moments),
            self.stopped,
        )

    @property
    def best_step(self) -> int:
        """Of the highest score."""
        return max(self.moments, key=lambda m: m[1].rank)[0]

    @property
    def stale(self) -> int:
        """Scores since the best one."""
        return len(self.moments) - 1 - [step for step, _ in self.moments].index(self.best_step)

    def fallen(self, scores: int) -> float:
        """By how much the lowest loss of the last ``scores`` lies below the lowest before them."""
        losses = [float(s.losses.mean()) for _, s in self.moments]
        finite = [loss if math.isfinite(loss) else math.inf for loss in losses]
        return min(finite[:-scores], default=math.inf) - min(finite[-scores:])


def train(
    trainee: Trainee,
    data: Minibatches,
    recipe: Recipe,
    progress: Progress,
    keeper: Keeper | None = None,
    scored: Callable[[int, Scored, float | None], None] = lambda step, score, loss: None,
    enough: Callable[[Trained], bool] = lambda result: True,
) -> Trained:
    """Train in place; a loss or a gradient that is not finite ends it, and so does lost patience.

    Args:
        trainee: the model.
        data: what to train and to score on.
        recipe: how.
        progress: told about every step.
        keeper: of checkpoints; training goes on from the last.
        scored: told about every score and the mean training loss before it.
        enough: asked after every score beyond the recipe's steps, whether it may end.

    Raises:
        DataError: there is nothing to train or to score on.
        ProbeError: the model cannot be trained.
        OutputError: a checkpoint cannot be written or read.
    """
    if not trainee.shares.shard:
        return _Training(trainee, data, recipe, progress, keeper, scored, enough).run()
    # Here and not above: it takes torch a while to import this.
    from gradscope.repair.sharding import in_parts

    with in_parts(trainee) as parts:
        return _Training(parts, data, recipe, progress, keeper, scored, enough).run()


class _Training:
    def __init__(
        self,
        trainee: Trainee,
        data: Minibatches,
        recipe: Recipe,
        progress: Progress,
        keeper: Keeper | None,
        scored: Callable[[int, Scored, float | None], None],
        enough: Callable[[Trained], bool],
    ) -> None:
        self.trainee, self.data, self.recipe = trainee, data, recipe
        self.progress, self.keeper, self.scored = progress, keeper, scored
        self.enough = enough
        module = trainee.module
        self.own = dict((*module.named_parameters(), *module.named_buffers()))
        self.optimiser = recipe.made(trainee.parameters)
        self.step, self.done = 0, False
        self.sum, self.count = 0.0, 0
        self.result = Trained()
        self.batches: Stream = data.training()
        self.together = SharedStep(trainee)

    def run(self) -> Trained:
        if not self._resumed():
            self._score()
            self._keep()
        marks = self.recipe.score_at()
        while not self.done and self.step < self.recipe.most:
            self.step += 1
            self.result.stopped = self._one_step()
            if self.result.stopped is None and self.step in marks:
                self._score()
                if self._is_out_of_patience():
                    since = self.result.best_step
                    self.result.stopped = f"no better score since step {since}"
            self.done = self.result.stopped is not None or self._is_over(marks)
            if self.done and self.step > self.recipe.steps and self.result.stopped is None:
                self.result.stopped = self._prolonged()
            self.progress.advance()
            self._keep()
        self.result.best = self.trainee.layout.whole(self.result.best)
        return self.result

    def _is_out_of_patience(self) -> bool:
        """A plateau on the way, where nothing is unlearned either, may be followed by a rise."""
        best = max(s.rank[0] for _, s in self.result.moments)
        if not self.recipe.patience or self.result.stale < self.recipe.patience:
            return False
        if best <= self.recipe.floor or self._gets_better():
            return False
        return best >= self.recipe.ceiling or self._unlearns()

    def _unlearns(self) -> bool:
        """Whether held-out losses have risen beyond chance since they were lowest."""
        last = self.result.moments[-1][1].losses
        lowest = min((s.losses for _, s in self.result.moments), key=lambda v: float(v.mean()))
        risen = last - lowest
        error = float(risen.std()) / math.sqrt(len(risen))
        return not float(risen.mean()) <= PROOF * error

    def _gets_better(self) -> bool:
        recipe = self.recipe
        if not recipe.patience or math.isinf(recipe.falling):
            return False
        return self.result.fallen(recipe.patience) >= recipe.falling

    def _prolonged(self) -> str | None:
        if math.isinf(self.recipe.falling):
            return None  # for another reason
        return f"prolonged from {self.recipe.steps:,} steps while the held-out loss fell"

    def _is_over(self, marks: frozenset[int]) -> bool:
        if self.step < self.recipe.steps or self.step == self.recipe.most:
            return self.step == self.recipe.most
        return self.step in marks and self.enough(self.result) and not self._gets_better()

    def _one_step(self) -> str | None:
        """One step of the optimiser; or why there is none."""
        batch = next(self.batches, None)
        if batch is None:
            raise DataError("a training has nothing to train on", hint="Pass more samples.")
        self.trainee.set_training(True)
        parameters, penalty = self.trainee.parameters, self.recipe.penalty
        local = self.trainee.layout.local
        value, lost = self.together.loss(batch, self.step, lambda: penalty.of(local(parameters)))
        if not math.isfinite(lost):
            return f"the loss is {lost} at step {self.step}, first {self._blamed(batch)}"
        self.sum, self.count = self.sum + lost, self.count + 1
        self.optimiser.zero_grad(set_to_none=True)
        try:
            self.together.backward(value)
            bad = self._bad_gradient()
            if bad is not None:
                return f"the gradient is not finite at step {self.step}, first (backwards) at {bad}"
            if self.recipe.clip:
                self.trainee.layout.clip(parameters, self.recipe.clip)
            self.optimiser.step()
        except RuntimeError as error:  # what cannot be differentiated, what an optimiser refuses
            first = str(error).strip().split("\n")[0][:200]
            raise ProbeError(f"the model cannot be trained: {first}") from error
        penalty.project(local(parameters))
        return None

    def _bad_gradient(self) -> str | None:
        """The last parameter, which is the first on the way back, whose gradient is not finite."""
        found = [p.grad for p in self.trainee.parameters if p.grad is not None]
        dense = [g for g in found if g.layout is torch.strided]
        if not dense or bool(torch.isfinite(self.trainee.layout.total_norm(dense))):
            return None
        trained = {id(p) for p in self.trainee.parameters}
        bad = [
            n for n, p in self.own.items()
            if id(p) in trained and p.grad is not None and not bool(p.grad.isfinite().all())
        ]  # fmt: skip
        return f"'{bad[-1]}'" if bad else None  # the norm alone was too large for its type

    def _blamed(self, batch: Batch) -> str:
        if self.trainee.shares.shard:
            return "somewhere in the model, which is not looked into with --shard"
        return first_bad(self.own, lambda: self.trainee.run(batch))

    def _score(self) -> None:
        score = self.trainee.score(self.data.held_out())
        is_best = not self.result.moments or score.rank > max(
            s.rank for _, s in self.result.moments
        )
        loss = self.sum / self.count if self.count else None
        self.result.moments.append((self.step, score))
        self.result.trained_on.append(loss)
        self.sum, self.count = 0.0, 0
        if is_best:
            self.result.best = {n: t.detach().clone() for n, t in self.own.items()}
        self.scored(self.step, score, loss)

    def _keep(self) -> None:
        due = self.keeper is not None and (self.done or self.keeper.due())
        if self.trainee.shares.shard and self.trainee.shares.ranks.any(due):
            state = self.trainee.layout.whole(self._state())
        elif due:
            state = self._state()
        if self.keeper is not None and due:
            self.keeper.save(state)

    def _state(self) -> dict[str, Any]:
        place = self.batches.place
        return {
            "step": self.step,
            "done": self.done,
            "stopped": self.result.stopped,
            "tensors": {n: t.detach() for n, t in self.own.items()},
            "best": self.result.best,
            "optimizer": self.optimiser.state_dict(),
            "random": random_state(),
            "place": [place.epoch, place.pool, place.row],
            "moments": [[step, s.points, s.losses] for step, s in self.result.moments],
            "trained_on": self.result.trained_on,
            "sum": [self.sum, self.count],
        }

    def _resumed(self) -> bool:
        state = self.keeper.load() if self.keeper is not None else None
        state = self.trainee.shares.ranks.merged(state, lambda first, other: first)
        if state is None:
            return False
        self._enter(state)
        self.progress.advance(self.step)
        return True

    def _enter(self, state: Mapping[str, Any]) -> None:
        layout = self.trainee.layout
        with torch.no_grad():
            for name, value in state["tensors"].items():
                layout.enter(self.own[name], value)
        layout.enter_optimiser(self.optimiser, state["optimizer"], self.trainee.parameters)
        self.step, self.done = state["step"], state["done"]
        self.sum, self.count = state["sum"]
        self.result = Trained(
            [(step, Scored(points, losses)) for step, points, losses in state["moments"]],
            list(state["trained_on"]),
            dict(state["best"]),
            state["stopped"],
            self.step,
        )
        self.batches = self.data.training(Place(*state["place"]))
        set_random_state(state["random"])


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None

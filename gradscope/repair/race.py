"""The race: each contestant trained for a while from the same batches, the best score first.

What has learned something begins ahead of what is drawn anew, and may be overtaken soon after. So a
race that is not decided, or would not stay so if each gained as much again, is run once more for
twice as long, between the leader and who may overtake it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from gradscope.progress import Progress
from gradscope.repair.base import Case, Result, Tensors
from gradscope.repair.checkpoints import Keeper
from gradscope.repair.compare import Scale, ceiling_of, gain_of, put_back, scale_of
from gradscope.repair.loop import train
from gradscope.repair.recipe import Recipe
from gradscope.repair.standardise import Standardisation
from gradscope.repair.training import Scored, as_it_is
from gradscope.treatment import Contestant, Planned, is_clear

LEAST = 50
"""Steps of a race at least."""

SHARE = 8
"""One in so many of the training's steps decides."""

LONGER = 2
"""Times the steps of a race that is run once more."""


@dataclass
class Candidate:
    """One way to begin the training.

    Attributes:
        planned: the remedy.
        result: what it changes.
        right_after: scores of the model that it makes, before any training.
        standard: what the input is prepared with while it is trained.
        best: its best scores in the race; None: there was none.
        early: its best scores in the first half of it.
        steps: that it was trained for in the race.
        stopped: why it ended before the others.
    """

    planned: Planned
    result: Result
    right_after: Scored
    standard: Standardisation | None = None
    best: Scored | None = None
    early: Scored | None = None
    steps: int = 0
    stopped: str | None = None

    def starts_as(self, other: Candidate) -> bool:
        """Whether both would be trained from the same numbers."""
        mine, theirs = self.result.changed, other.result.changed
        same = mine.keys() == theirs.keys() and all(v.equal(theirs[n]) for n, v in mine.items())
        return same and self.result.products == other.result.products

    @property
    def expected(self) -> Scored | None:
        """What it would come to if it gained once more what the second half has brought."""
        if self.best is None or self.early is None:
            return self.best
        return Scored(2 * self.best.points - self.early.points, self.best.losses)

    def is_open_to(self, other: Candidate, scale: Scale) -> bool:
        """Whether ``other``, which is behind, may yet overtake this one: it is not clearly behind,
        or expected to come further. None does that where there is no room for a clear gain."""
        if self.best is None or other.best is None or self.expected is None:
            return False
        if self.best.mean >= ceiling_of(scale):
            return False
        ahead = is_clear(*gain_of(self.best, other.best, scale.room))
        return not ahead or _mean(other.expected) > _mean(self.expected)

    def is_overtaken_by(self, other: Candidate, scale: Scale) -> bool:
        """Whether ``other`` is clearly expected to come further."""
        if self.expected is None or other.expected is None:
            return False
        return is_clear(*gain_of(other.expected, self.expected, scale.room))

    def shown(self, scale: Scale) -> Contestant:
        """As it is reported."""
        best = finite(scale(self.best.mean)) if self.best is not None else None
        after = finite(scale(self.right_after.mean))
        return Contestant(self.planned.remedy, after, best, self.steps, self.stopped)


class Ring:
    """Where candidates are trained: one model, whose numbers are put back after each.

    Args:
        case: the model, with the batches and the seed that are the same for all.
    """

    def __init__(self, case: Case) -> None:
        self.case, self.trainee, self.data = case, case.trainee, case.data

    def race(
        self,
        candidates: Sequence[Candidate],
        recipe: Recipe,
        keeper: Callable[[str], Keeper | None],
        progress: Progress,
    ) -> list[Candidate]:
        """The candidates, each trained for a share of the recipe's steps, the best first.

        Args:
            candidates: one alone is not trained.
            recipe: of the training that follows.
            keeper: makes that of the checkpoints of a training, by its name.
            progress: told about every step.
        """
        if len(candidates) == 1:
            return list(candidates)
        steps = max(LEAST, recipe.steps // SHARE)
        self._run(candidates, replace(recipe, steps=steps), "race", keeper, progress)
        ranked = sorted(candidates, key=lambda c: _rank(c.best), reverse=True)
        scale, first = scale_of(self.trainee, self.data), ranked[0]
        others = [c for c in ranked[1:] if first.is_open_to(c, scale)]
        if not others or LONGER * steps > recipe.steps:
            return ranked
        pair = [first, max(others, key=lambda c: _mean(c.expected))]
        self._run(pair, replace(recipe, steps=LONGER * steps), "race-on", keeper, progress)
        pair.sort(key=lambda c: _rank(c.best), reverse=True)
        if pair[0].is_overtaken_by(pair[1], scale):
            pair.reverse()
        return [*pair, *(c for c in ranked if c not in pair)]

    def _run(
        self,
        candidates: Sequence[Candidate],
        recipe: Recipe,
        name: str,
        keeper: Callable[[str], Keeper | None],
        progress: Progress,
    ) -> None:
        """Each trained by the recipe to its last step, and scored on the way."""
        recipe = replace(recipe, every=0, patience=0, beyond=0)
        progress.start("remedies", len(candidates) * recipe.steps)
        for i, candidate in enumerate(candidates):
            with self.begun(candidate):
                kept = keeper(f"{name}-{i}-{candidate.planned.remedy.replace(' ', '-')}")
                trained = train(self.trainee, self.data, recipe, progress, kept)
            half = [s for step, s in trained.moments if 2 * step <= recipe.steps]
            candidate.best = max((s for _, s in trained.moments), key=lambda s: s.rank)
            candidate.early = max(half, key=lambda s: s.rank)
            candidate.steps, candidate.stopped = recipe.steps, trained.stopped
        progress.finish()

    @contextmanager
    def begun(self, candidate: Candidate) -> Iterator[None]:
        """The model as this candidate begins, with the input and the gradients that it has."""
        products = candidate.result.products
        running = self.case.with_products(products)
        with put_back(self.trainee.module, self.case.seed), running, self.under(candidate):
            self.enter(candidate.result.changed)
            yield

    @contextmanager
    def under(self, candidate: Candidate) -> Iterator[None]:
        """The input, and the gradients, as this candidate has them."""
        standard = candidate.standard
        if standard is None:
            yield
            return
        self.trainee.prepare = standard
        try:
            with standard.shut(self.case.tensors):
                yield
        finally:
            self.trainee.prepare = as_it_is

    def enter(self, values: Tensors) -> None:
        """Values into the model."""
        module = self.trainee.module
        own = dict((*module.named_parameters(), *module.named_buffers()))
        with torch.no_grad():
            for name, value in values.items():
                own[name].copy_(value)


def _rank(scored: Scored | None) -> tuple[float, float]:
    return scored.rank if scored is not None else (-math.inf, -math.inf)


def _mean(scored: Scored | None) -> float:
    return _rank(scored)[0]


def finite(value: float) -> float | None:
    """None for what is no number, as in reports."""
    return value if math.isfinite(value) else None

"""The race: each contestant trained for a while from the same batches, the best score first."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from gradscope.progress import Progress
from gradscope.repair.base import Case, Result, Tensors
from gradscope.repair.checkpoints import Keeper
from gradscope.repair.compare import Scale, put_back
from gradscope.repair.loop import train
from gradscope.repair.recipe import Recipe
from gradscope.repair.standardise import Standardisation
from gradscope.repair.training import Scored, as_it_is
from gradscope.treatment import Contestant, Planned

LEAST = 50
"""Steps of a race at least."""

SHARE = 8
"""One in so many of the training's steps decides."""


@dataclass
class Candidate:
    """One way to begin the training.

    Attributes:
        planned: the remedy.
        result: what it changes.
        right_after: scores of the model that it makes, before any training.
        standard: what the input is prepared with while it is trained.
        best: its best scores in the race; None: there was none.
        steps: that it was trained for in the race.
        stopped: why it ended before the others.
    """

    planned: Planned
    result: Result
    right_after: Scored
    standard: Standardisation | None = None
    best: Scored | None = None
    steps: int = 0
    stopped: str | None = None

    def starts_as(self, other: Candidate) -> bool:
        """Whether both would be trained from the same numbers."""
        mine, theirs = self.result.changed, other.result.changed
        same = mine.keys() == theirs.keys() and all(v.equal(theirs[n]) for n, v in mine.items())
        return same and self.result.products == other.result.products

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
        short = replace(recipe, steps=max(LEAST, recipe.steps // SHARE), every=0, patience=0)
        progress.start("remedies", len(candidates) * short.steps)
        for i, candidate in enumerate(candidates):
            with self.begun(candidate):
                kept = keeper(f"race-{i}-{candidate.planned.remedy.replace(' ', '-')}")
                trained = train(self.trainee, self.data, short, progress, kept)
            candidate.best = max((s for _, s in trained.moments), key=lambda s: s.rank)
            candidate.steps, candidate.stopped = short.steps, trained.stopped
        progress.finish()
        return sorted(candidates, key=lambda c: _rank(c.best), reverse=True)

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


def finite(value: float) -> float | None:
    """None for what is no number, as in reports."""
    return value if math.isfinite(value) else None

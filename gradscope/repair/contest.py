"""Which repair a trial goes on with: the remedies that the plan has, and the restart, each for a
while from the same batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from gradscope.errors import OptionError
from gradscope.progress import Silent
from gradscope.repair.base import Case, RemedyError, Tensors, perform
from gradscope.repair.compare import put_back
from gradscope.repair.loop import train
from gradscope.repair.methods import METHODS, remedy
from gradscope.repair.plan import make_plan
from gradscope.repair.recipe import Recipe

APART = ("restart", "standardise", "tanh")
"""The restart is the other contestant; the others are done to a file and not to its tensors."""

SHARE = 4
"""One in so many of the trial's steps decides."""

MOST = 2


def best_remedy(case: Case, recipe: Recipe, restarted: Callable[[], None]) -> str | None:
    """Name of the remedy that is ahead of a restart after a quarter of the steps; None: the restart
    is, or no remedy fits.

    Args:
        case: the model as it is; it is left so.
        recipe: of the trial.
        restarted: makes the model a restarted one, in place.
    """
    module, seed = case.trainee.module, case.seed
    short = replace(recipe, steps=max(25, recipe.steps // SHARE), beyond=0)

    def ends(start: Callable[[], None]) -> tuple[float, float]:
        with put_back(module, seed):
            start()
            return train(case.trainee, case.data, short, Silent()).moments[-1][1].rank

    found = {name: changed for name in _planned(case) if (changed := _of(case, name))}
    if not found:
        return None
    ranks: dict[str | None, tuple[float, float]] = {None: ends(restarted)}
    for name, changed in found.items():
        ranks[name] = ends(lambda changed=changed: enter(case, changed))  # type: ignore[misc]
    return max(ranks, key=lambda name: ranks[name])


def enter(case: Case, changed: Tensors) -> None:
    """Values into the model."""
    with torch.no_grad():
        for name, value in changed.items():
            case.own(name).copy_(value)


def values_of(case: Case, name: str) -> Tensors:
    """What a remedy would change in the model as it is."""
    return perform(remedy(name), case).changed


def _of(case: Case, name: str) -> Tensors:
    try:
        return values_of(case, name)
    except RemedyError:
        return {}


def _planned(case: Case) -> list[str]:
    try:
        plan = make_plan(case.measured, case.causes)
    except OptionError:
        return []
    names = [p.remedy for p in plan if p.remedy in METHODS and p.remedy not in APART]
    return names[:MOST]

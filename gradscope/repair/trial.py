"""A counterfactual: does the model learn as it is, and would it learn after a repair?

All copies see the same batches in the same order, have the same optimiser (but for clipping, which
is a part of a repair where gradients explode) and may have the same number of steps, and are scored
on the same held-out samples. The repaired one comes first; the untreated one is given at least as
many steps, all of them before it is convicted, and where the rate is not known one more copy for
each usual rate. The model is one and the same object: its tensors are put back after each copy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from gradscope.config import Settings
from gradscope.counterfactual import has_learned, is_behind, is_done
from gradscope.errors import GradscopeError, OptionError, ProbeError
from gradscope.findings import Cause, Skipped
from gradscope.measurements import Arm, Measurements, Trial
from gradscope.model import Batch, LoadedModel, Sample
from gradscope.probe.state import require_gradients, untouched
from gradscope.probe.subject import Names
from gradscope.progress import Progress
from gradscope.repair.base import Case
from gradscope.repair.compare import gain_of, put_back, scale_of, trainee_of
from gradscope.repair.contest import best_remedy, enter, values_of
from gradscope.repair.loop import Trained, train
from gradscope.repair.methods import remedy
from gradscope.repair.minibatches import Minibatches
from gradscope.repair.recipe import Recipe
from gradscope.repair.recurrent import find_parts
from gradscope.repair.restart import restart
from gradscope.repair.standardise import filled
from gradscope.repair.suspects import Suspects, find_suspects
from gradscope.repair.training import Scored
from gradscope.repair.trial_recipes import Choice, choose, is_deep, recipe_of, untreated


def run_trial(
    model: LoadedModel,
    sample: Sample,
    validation: Sample | None,
    measured: Measurements,
    causes: tuple[Cause, ...],
    settings: Settings,
    progress: Progress,
) -> Trial | Skipped:
    """Train the model untreated and repaired, and compare.

    Args:
        model: put back as it was.
        sample: to train on; a quarter of it is held out where there is no ``validation``.
        validation: held-out data.
        measured: of the model as it is.
        causes: of the first diagnosis, which say what the repair is.
        settings: least steps of the trial, its optimiser, loss, seed.
        progress: told about the steps.

    Raises:
        OptionError: there are no labels to train with.
    """
    assert model.module is not None
    if not sample.labels:
        hint = "Add an array y to --data."
        raise OptionError("a trial needs labels to train with", where="--trial", hint=hint)
    module, device = model.module, torch.device(settings.probe.device)
    steps = settings.probe.trial
    choice = choose(settings.probe, model.optimiser, deep=is_deep(measured))
    with untouched(module):
        require_gradients(module)
        names = Names.of(module)
        trained = [t for t in names.tensors.values() if t.requires_grad and t.is_leaf]
        if not trained:
            return Skipped("trial", "the model has no parameter that can be trained")
        recipe = recipe_of(choice, measured, causes, steps, model.batch)
        exact = model.batch is not None
        data = Minibatches(
            sample, validation, size=recipe.batch, seed=settings.data.seed, exact=exact
        )
        trainee = trainee_of(module, trained, measured, settings, device)
        case = Case(
            measured, causes, trainee, names.tensors, data, settings.data.seed,
            dict(module.named_buffers()),
        )  # fmt: skip
        suspects = find_suspects(measured, causes)
        progress.start("trial", (1 + len(choice.rates)) * recipe.most)
        try:
            return _Experiment(case, names, suspects, choice, recipe, progress).run()
        except ProbeError as error:
            return Skipped("trial", error.what)
        except GradscopeError:
            raise
        except Exception as error:  # any code may stand in a model's forward
            first = str(error).strip().split("\n")[0][:200]
            return Skipped("trial", f"the model cannot be trained: {type(error).__name__}: {first}")
        finally:
            progress.finish()


class _Experiment:
    """The copies of one trial, one after the other."""

    def __init__(
        self,
        case: Case,
        names: Names,
        suspects: Suspects,
        choice: Choice,
        recipe: Recipe,
        progress: Progress,
    ) -> None:
        self.case, self.names, self.suspects = case, names, suspects
        self.choice, self.recipe, self.progress = choice, recipe, progress
        self.trainee, self.data = case.trainee, case.data
        self.module = case.trainee.module

    def run(self) -> Trial:
        plain = self.trainee.prepare
        name, repaired = self._repaired()
        self.trainee.prepare = plain
        return self._compared(self._untreated(repaired), repaired, name)

    def _repaired(self) -> tuple[str | None, Trained]:
        """The repair that is ahead at first; if that has learned nothing, a restart, at each rate.

        A repaired copy that learns nothing is no measure of the other.
        """
        # On a standardised input the remedies would be others: there it is the restart.
        name = None if self.suspects.inputs else best_remedy(self.case, self.recipe, self._restart)
        if name is not None:
            changed = values_of(self.case, name)
            done = self._train(self.recipe, lambda: enter(self.case, changed), self._settled)
            if self._learned(done):
                return name, done
        for rate in self.choice.rates:
            recipe = replace(self.recipe, rate=rate)
            done = self._train(recipe, self._restart, self._settled)
            if self._learned(done):
                self.recipe = recipe
                break
        return None, done

    def _untreated(self, repaired: Trained) -> list[tuple[float, Trained]]:
        """At the repaired copy's rate, then at others, until one is not clearly behind: to be
        convicted it takes all of them, and all of the steps."""
        least, found = repaired.moments[-1][0], []
        rates = dict.fromkeys((self.recipe.rate, *self.choice.rates))
        for rate in rates:

            def enough(result: Trained) -> bool:
                long = result.moments[-1][0] >= least
                return long and self._settled(result) and not self._behind(result, repaired)

            recipe = untreated(self.recipe, self.case.measured, rate)
            done = self._train(recipe, lambda: None, enough)
            found.append((rate, done))
            if not self._behind(done, repaired):
                break
        return found

    def _train(
        self, recipe: Recipe, start: Callable[[], None], enough: Callable[[Trained], bool]
    ) -> Trained:
        with put_back(self.module):
            start()
            return train(self.trainee, self.data, recipe, self.progress, enough=enough)

    def _settled(self, result: Trained) -> bool:
        scale = scale_of(self.trainee, self.data)
        return is_done(result.arm(scale), scale.chance)

    def _learned(self, result: Trained) -> bool:
        scale = scale_of(self.trainee, self.data)
        return has_learned(result.arm(scale), scale.chance)

    def _behind(self, untreated: Trained, repaired: Trained) -> bool:
        scale = scale_of(self.trainee, self.data)
        last = repaired.moments[-1][1]
        gain, error = gain_of(last, _best(untreated), scale.room)
        return gain is None or error is None or is_behind(gain, error)

    def _restart(self) -> None:
        _repair(self.names, self.suspects, self.case)

    def _compared(
        self, tried: list[tuple[float, Trained]], repaired: Trained, name: str | None
    ) -> Trial:
        scale, suspects = scale_of(self.trainee, self.data), self.suspects

        def arm(done: Trained, rate: float) -> Arm:
            how = str(self.choice.optimiser.with_rate(rate))
            return replace(done.arm(scale), how=how)

        tried = sorted(tried, key=lambda u: _or_lowest(_best(u[1]).mean), reverse=True)
        best = _best(tried[0][1])
        gain, error = gain_of(repaired.moments[-1][1], best, scale.room)
        arms = [arm(done, rate) for rate, done in tried]
        return Trial(
            steps=max(a.steps[-1] for a in (*arms, repaired.arm(scale))),
            how=f"{self.recipe}; {self.choice.source}",
            repair=f"{name} ({remedy(name).summary})" if name else _sentence(suspects),
            layers=suspects.layers,
            metric=scale.metric,
            held_out="a quarter of the sample, not trained on" if self.data.split else "--val",
            samples=len(best.points),
            chance=scale.chance,
            untreated=arms[0],
            repaired=arm(repaired, self.recipe.rate),
            gain=gain,
            error=error,
            others=tuple(arms[1:]),
            most=self.recipe.most,
        )


def _best(done: Trained) -> Scored:
    """At its best moment."""
    return max(done.moments, key=lambda m: _or_lowest(m[1].mean))[1]


def _repair(names: Names, suspects: Suspects, case: Case) -> None:
    random = torch.Generator().manual_seed(case.seed)
    restart(names.tensors, suspects, random, find_parts(case))
    if suspects.whole:
        with torch.no_grad():
            for name, buffer in case.trainee.module.named_buffers():
                _fresh(name.rpartition(".")[2], buffer)
    if suspects.inputs:
        case.trainee.prepare = _standardising(next(case.data.training()))


def _fresh(own: str, buffer: torch.Tensor) -> None:
    if own in ("running_mean", "num_batches_tracked"):
        buffer.zero_()
    elif own == "running_var":
        buffer.fill_(1.0)


def _standardising(first: Batch) -> Callable[[Batch], Batch]:
    """Floating inputs to mean 0 and standard deviation 1, by the numbers of one batch."""

    def scale(value: Any) -> tuple[torch.Tensor, torch.Tensor] | None:
        if not isinstance(value, torch.Tensor) or not value.is_floating_point() or not value.dim():
            return None
        mean = value.double().mean(dim=0, keepdim=True)
        square = (value - mean).square()
        varied = square.sum(dim=0, keepdim=True).square() / square.square().sum(dim=0, keepdim=True)
        spread = square.mean(dim=0, keepdim=True).sqrt()
        enough = len(value) / 8  # of a batch, where normal numbers have a third of them
        return mean.to(value), filled(spread, varied, mean, enough).to(value)

    by_place = [scale(v) for v in first.args]
    by_name = {name: scale(v) for name, v in first.kwargs.items()}

    def scaled(value: Any, by: tuple[torch.Tensor, torch.Tensor] | None) -> Any:
        return value if by is None else (value - by[0]) / by[1]

    def prepare(batch: Batch) -> Batch:
        args = tuple(scaled(v, by) for v, by in zip(batch.args, by_place, strict=True))
        kwargs = {name: scaled(v, by_name[name]) for name, v in batch.kwargs.items()}
        return replace(batch, args=args, kwargs=kwargs)

    return prepare


def _or_lowest(value: float) -> float:
    return value if math.isfinite(value) else -math.inf


def _sentence(suspects: Suspects) -> str:
    what = "all layers" if suspects.whole else f"{len(suspects.layers)} suspect layers"
    if len(suspects.layers) == 1:
        what = f"layer {suspects.layers[0]}"
    inputs = ", inputs standardised" if suspects.inputs else ""
    return f"restart of {what} (orthogonal weights, biases at zero){inputs}"

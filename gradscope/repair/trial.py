"""A counterfactual: does the model learn as it is, and would it learn after a repair?

Both copies see the same batches in the same order and are scored on the same held-out samples, the
repaired one first: the untreated one is given at least as many steps. The model is one and the same
object: its tensors are put back after each copy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from gradscope.config import Settings
from gradscope.counterfactual import has_learned, is_flat
from gradscope.errors import GradscopeError, OptionError, ProbeError
from gradscope.findings import Cause, Skipped
from gradscope.measurements import Measurements, Trial
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
from gradscope.repair.restart import restart
from gradscope.repair.suspects import Suspects, find_suspects
from gradscope.repair.training import Trainee

BATCH = 32
LONGEST = 4
"""Times the steps asked for that a copy which still gains is trained at most."""
WAIT = 2
"""Times the steps asked for that a copy which has learned nothing is waited for."""
DEEP = 30
"""Hidden activations from which the rate is 3e-4 and not 1e-3."""


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
        settings: least steps of the trial, loss, seed.
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
    with untouched(module):
        require_gradients(module)
        names = Names.of(module)
        trained = [t for t in names.tensors.values() if t.requires_grad and t.is_leaf]
        if not trained:
            return Skipped("trial", "the model has no parameter that can be trained")
        recipe = _recipe(measured, causes, steps, model.batch)
        exact = model.batch is not None
        data = Minibatches(
            sample, validation, size=recipe.batch, seed=settings.data.seed, exact=exact
        )
        trainee = trainee_of(module, trained, measured, settings, device)
        suspects = find_suspects(measured, causes)
        plain = trainee.prepare
        progress.start("trial", 2 * recipe.most)
        try:
            case = Case(
                measured, causes, trainee, names.tensors, data, settings.data.seed,
                dict(module.named_buffers()),
            )  # fmt: skip

            def restarted() -> None:
                _repair(names, module, suspects, trainee, data, settings.data.seed)

            # On a standardised input the remedies would be others: there it is the restart.
            name = None if suspects.inputs else best_remedy(case, recipe, restarted)
            changed = values_of(case, name) if name else {}
            with put_back(module):
                if name:
                    enter(case, changed)
                else:
                    restarted()
                after = train(trainee, data, recipe, progress, enough=_flat(trainee, data, steps))
            trainee.prepare, least = plain, after.moments[-1][0]
            with put_back(module):
                until = _flat(trainee, data, steps, least)
                before = train(trainee, data, recipe, progress, enough=until)
        except ProbeError as error:
            return Skipped("trial", error.what)
        except GradscopeError:
            raise
        except Exception as error:  # any code may stand in a model's forward
            first = str(error).strip().split("\n")[0][:200]
            return Skipped("trial", f"the model cannot be trained: {type(error).__name__}: {first}")
        finally:
            progress.finish()
        return _compared(before, after, trainee, data, recipe, suspects, name)


def _flat(
    trainee: Trainee, data: Minibatches, steps: int, least: int = 0
) -> Callable[[Trained], bool]:
    """Whether a copy has been trained for ``least`` steps, has learned something and gains no
    more; one that has learned nothing is waited for a while."""

    def enough(result: Trained) -> bool:
        scale = scale_of(trainee, data)
        arm = result.arm(scale)
        began = has_learned(arm, scale.chance) or arm.steps[-1] >= WAIT * steps
        return arm.steps[-1] >= least and began and is_flat(arm, scale.chance)

    return enough


def _recipe(
    measured: Measurements, causes: tuple[Cause, ...], steps: int, fixed: int | None
) -> Recipe:
    entries = measured.ledger.entries if measured.ledger is not None else ()
    recurrent = measured.ledger is not None and bool(measured.ledger.time)
    clip = 1.0 if recurrent or Cause.EXPLODING in causes else None
    rate = 3e-4 if len(entries) >= DEEP else 1e-3
    return Recipe(steps, rate, fixed or BATCH, clip, beyond=(LONGEST - 1) * steps)


def _repair(
    names: Names,
    module: torch.nn.Module,
    suspects: Suspects,
    trainee: Trainee,
    data: Minibatches,
    seed: int,
) -> None:
    restart(names.tensors, suspects, torch.Generator().manual_seed(seed))
    if suspects.whole:
        with torch.no_grad():
            for name, buffer in module.named_buffers():
                _fresh(name.rpartition(".")[2], buffer)
    if suspects.inputs:
        trainee.prepare = _standardising(next(data.training()))


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
        mean, spread = value.mean(dim=0, keepdim=True), value.std(dim=0, keepdim=True)
        typical = value.std().clamp_min(1e-12)
        return mean, torch.where(spread > 0.01 * typical, spread, typical)

    by_place = [scale(v) for v in first.args]
    by_name = {name: scale(v) for name, v in first.kwargs.items()}

    def scaled(value: Any, by: tuple[torch.Tensor, torch.Tensor] | None) -> Any:
        return value if by is None else (value - by[0]) / by[1]

    def prepare(batch: Batch) -> Batch:
        args = tuple(scaled(v, by) for v, by in zip(batch.args, by_place, strict=True))
        kwargs = {name: scaled(v, by_name[name]) for name, v in batch.kwargs.items()}
        return replace(batch, args=args, kwargs=kwargs)

    return prepare


def _compared(
    before: Trained,
    after: Trained,
    trainee: Trainee,
    data: Minibatches,
    recipe: Recipe,
    suspects: Suspects,
    name: str | None,
) -> Trial:
    scale = scale_of(trainee, data)
    best = max(before.moments, key=lambda m: _or_lowest(m[1].mean))[1]
    last = after.moments[-1][1]
    gain, error = gain_of(last, best, scale.room)
    where = "a quarter of the sample, not trained on" if data.split else "--val"
    return Trial(
        steps=max(before.moments[-1][0], after.moments[-1][0]),
        how=str(recipe),
        repair=f"{name} ({remedy(name).summary})" if name else _sentence(suspects),
        layers=suspects.layers,
        metric=scale.metric,
        held_out=where,
        samples=len(best.points),
        chance=scale.chance,
        untreated=before.arm(scale),
        repaired=after.arm(scale),
        gain=gain,
        error=error,
    )


def _or_lowest(value: float) -> float:
    return value if math.isfinite(value) else -math.inf


def _sentence(suspects: Suspects) -> str:
    what = "all layers" if suspects.whole else f"{len(suspects.layers)} suspect layers"
    if len(suspects.layers) == 1:
        what = f"layer {suspects.layers[0]}"
    inputs = ", inputs standardised" if suspects.inputs else ""
    return f"restart of {what} (orthogonal weights, biases at zero){inputs}"

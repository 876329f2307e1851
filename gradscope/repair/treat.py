"""Repairs a model in memory: remedies applied, raced, and the best one fine-tuned."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch

from gradscope.config import FixSettings, Settings
from gradscope.diagnosis import Inspection
from gradscope.errors import OptionError
from gradscope.model import Exchange, LoadedModel, Products, Sample
from gradscope.probe.shards import Shares
from gradscope.probe.state import require_gradients, untouched
from gradscope.probe.subject import Names
from gradscope.progress import Progress
from gradscope.ranks import ALONE, Ranks
from gradscope.repair.base import Case, RemedyError, Result, perform
from gradscope.repair.checkpoints import Checkpoints, Keeper
from gradscope.repair.compare import (
    Scale,
    ceiling_of,
    floor_of,
    gain_of,
    is_proven,
    loss_of_a_guess,
    put_back,
    scale_of,
    trainee_of,
)
from gradscope.repair.events import events
from gradscope.repair.loop import Trained, train
from gradscope.repair.methods import remedy
from gradscope.repair.minibatches import Minibatches
from gradscope.repair.naming import check_globs, is_named
from gradscope.repair.plan import LEARNED, PREPARED
from gradscope.repair.race import Candidate, Ring, finite
from gradscope.repair.recipe import FALLING, recipe_for
from gradscope.repair.standardise import standardisation
from gradscope.repair.tanh import as_tanh
from gradscope.repair.training import Scored, Trainee, as_it_is
from gradscope.treatment import PLAIN, Contestant, Planned, Stage

Tensors = dict[str, torch.Tensor]

TRIED = 2
"""Contestants that are trained to the end, the second only where the first did not get better, or
no better than a guess."""


@dataclass
class Treated:
    """A repaired model and how it came about.

    Attributes:
        tensors: new values of parameters and running statistics, by name.
        chosen: the remedy.
        stages, trained, scale, gain, error, samples: for the report.
        better: whether the gain is beyond chance.
        tanh: whether the tensors belong to the model with tanh for its logistic activations.
        race: all that was tried, the best first.
        products: scales that stand in the file.
    """

    tensors: Tensors
    chosen: str
    stages: tuple[Stage, ...]
    trained: Trained | None
    scale: Scale
    gain: float | None
    error: float | None
    better: bool
    samples: int
    recipe: str
    split: bool
    tanh: bool = False
    race: tuple[Contestant, ...] = ()
    products: Products = field(default_factory=dict)


def treat(
    model: LoadedModel,
    sample: Sample,
    validation: Sample | None,
    before: Inspection,
    plan: tuple[Planned, ...],
    settings: Settings,
    fix: FixSettings,
    progress: Progress,
    checkpoints: Checkpoints | None = None,
    ranks: Ranks = ALONE,
) -> Treated:
    """Try the plan's remedies on the model, fine-tune the best, and put the model back.

    Args:
        ranks: the processes that share every batch.
        checkpoints: of the trainings, which go on from them; None: none are kept.

    Raises:
        OptionError: there are no labels to train with, or nothing to train.
    """
    assert model.module is not None
    if not sample.labels:
        raise OptionError("a repair needs labels to train with", where="--data",
                          hint="Add an array y.")  # fmt: skip
    with untouched(model.module):
        treatment = Treating(
            model, sample, validation, before, settings, fix, progress, checkpoints
        )
        coupled = any(h.batch_axis is None for h in before.measurements.heads)
        treatment.trainee.shares = Shares(
            ranks, whole=model.batch is not None or coupled, shard=fix.shard
        )
        return treatment.run(plan)


def check_names(module: torch.nn.Module, fix: FixSettings) -> None:
    """Refuse globs that name nothing, or leave nothing.

    Raises:
        OptionError: says which.
    """
    names = Names.of(module).tensors
    check_globs("--freeze", fix.freeze, names)
    check_globs("--layers", fix.layers, names)
    left = [n for n in names if not is_named(n, fix.freeze)]
    if not left:
        raise OptionError("there is no parameter left to train", where="--freeze")
    if fix.layers and not any(is_named(n, fix.layers) for n in left):
        raise OptionError("every layer that it names is frozen", where="--layers")


class Treating:
    """A model under treatment; its numbers are changed in place and put back.

    Attributes:
        case: what remedies are given.
    """

    def __init__(
        self,
        model: LoadedModel,
        sample: Sample,
        validation: Sample | None,
        before: Inspection,
        settings: Settings,
        fix: FixSettings,
        progress: Progress,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        assert model.module is not None
        require_gradients(model.module)
        names = Names.of(model.module)
        self.fix, self.progress, self.before = fix, progress, before
        self.checkpoints, self.seed = checkpoints, settings.data.seed
        for name, tensor in names.tensors.items():
            if is_named(name, fix.freeze) and tensor.is_leaf:
                tensor.requires_grad_(False)
        trained = [t for t in names.tensors.values() if t.requires_grad and t.is_leaf]
        if not trained:
            raise OptionError("there is no parameter left to train", where="--freeze")
        self.module = model.module
        self.recipe = recipe_for(before, sample, validation is not None, fix, model.batch)
        self.data = Minibatches(
            sample, validation, size=self.recipe.batch, seed=settings.data.seed,
            exact=model.batch is not None,
        )  # fmt: skip
        device = torch.device(settings.probe.device)
        self.trainee: Trainee = trainee_of(
            model.module, trained, before.measurements, settings, device, fix.freeze
        )
        tensors = {
            n: t for n, t in names.tensors.items()
            if not is_named(n, fix.freeze) and (not fix.layers or is_named(n, fix.layers))
        }  # fmt: skip
        self.case = Case(
            before.measurements, before.diagnosis.causes, self.trainee, tensors, self.data,
            settings.data.seed, dict(model.module.named_buffers()), model.exchange,
            model.explicit,
        )  # fmt: skip
        self.ring = Ring(self.case)
        self.refused: list[Contestant] = []

    def run(self, plan: tuple[Planned, ...]) -> Treated:
        """Standardise if that is planned, race, fine-tune, fold."""
        first = self.trainee.score(self.data.held_out())
        raw = self.outputs()
        self.scale = scale_of(self.trainee, self.data)
        floor = floor_of(self.scale, self.trainee, len(first.points))
        falling = FALLING * loss_of_a_guess(self.scale, self.trainee, self.data)
        ceiling = ceiling_of(self.scale)
        self.recipe = replace(self.recipe, floor=floor, ceiling=ceiling, falling=falling)
        with self._as_tanh(plan) as start:
            return self._repaired(plan, first, raw, start)

    def _repaired(
        self, plan: tuple[Planned, ...], first: Scored, raw: torch.Tensor, start: Tensors
    ) -> Treated:
        with self.case.with_tensors(start):
            standardised = start | self._standardised(plan)
        candidates = self._candidates(plan, standardised)
        if any(p.remedy == "restart" for p in plan) and not self.tanh:
            candidates.append(Candidate(PLAIN, Result({}, ("trained on as it is",)), first))
        ranked = self._raced(candidates)
        shown = (*(c.shown(self.scale) for c in ranked), *self.refused)
        tried = (
            self._fine_tuned(chosen, first, raw, again=i > 0)
            for i, chosen in enumerate(ranked[: TRIED if self.fix.finetune else 1])
        )
        treated = best_of(tried, self.scale(self.recipe.floor))
        return replace(treated, race=shown if len(shown) > 1 else ())

    def _raced(self, candidates: list[Candidate]) -> list[Candidate]:
        """The best first: by a race, or by what each is right after its remedy."""
        if not self.fix.finetune:
            return sorted(candidates, key=lambda c: c.right_after.rank, reverse=True)
        return self.ring.race(candidates, self.recipe, self._keeper, self.progress)

    def _fine_tuned(
        self, chosen: Candidate, first: Scored, raw: torch.Tensor, again: bool
    ) -> Treated:
        """One contestant trained to the end, and what it is then by itself."""
        name = chosen.planned.remedy
        stages = [self._stage("before", first, None, ())]
        with put_back(self.module, self.seed), self.case.with_products(chosen.result.products):
            with self.ring.under(chosen):
                self.ring.enter(dict(chosen.result.changed))
                drift = self.drift(raw)
                stage = self._stage(name, chosen.right_after, drift, chosen.result.said)
                stages.append(replace(stage, places=chosen.result.places))
                trained, state = self._fine_tune(f"fine-tuning-{name}" if again else "fine-tuning")
            if chosen.standard is not None:
                state |= chosen.standard.folded(state)
            self.ring.enter(state)
            final = self.trainee.score(self.data.held_out())
            stages.append(self._stage("fine-tuned", final, self.drift(raw), ()))
        held_against = _guessing(first, self.scale)
        gain, error = gain_of(final, held_against, self.scale.room)
        better = is_proven(final, held_against, self.scale.room, self.recipe.floor)
        return Treated(
            state, name, tuple(stages), trained, self.scale, gain, error, better,
            len(final.points), str(self.recipe), self.data.split, self.tanh,
            products=chosen.result.products,
        )  # fmt: skip

    @contextmanager
    def _as_tanh(self, plan: tuple[Planned, ...]) -> Iterator[Tensors]:
        """The logistic units exchanged inside, where the plan has it, and the weights that then
        keep the function. A plan of more goes on without it where it cannot be."""
        self.tanh = False
        self.said_first: tuple[str, ...] = ()
        if not any(p.remedy == "tanh" for p in plan):
            yield {}
            return
        try:
            result = perform(remedy("tanh"), self.case)
        except RemedyError as error:
            if len(plan) == 1:
                raise
            self.said_first = (f"logistic activations stay: {error.what}",)
            yield {}
            return
        exchange, measured = self.case.exchange, self.case.measured
        assert isinstance(exchange, Exchange)
        self.tanh, self.said_first = True, result.said
        self.case = replace(self.case, measured=as_tanh(measured))
        exchange.swap(True)
        try:
            yield dict(result.changed)
        finally:
            exchange.swap(False)

    def _standardised(self, plan: tuple[Planned, ...]) -> Tensors:
        """Values for the standardised input that keep the function, where the plan has it."""
        self.standard = None
        if not any(p.remedy == "standardise" for p in plan):
            return {}
        learned = self.before.measurements.skill
        keeps = learned is not None and learned.value is not None and learned.value >= LEARNED
        found = standardisation(self.case, keeps)
        if found is None:
            self.said_first += ("input left as it is: it cannot be folded exactly",)
            return {}
        self.standard = found
        # With nothing to keep, the weights as they are suit the standardised input.
        return found.unfolded(self.case.tensors) if keeps else found.opened(self.case.tensors)

    def _candidates(self, plan: tuple[Planned, ...], start: Tensors) -> list[Candidate]:
        found: list[Candidate] = []
        refused: RemedyError | None = None
        self.trainee.prepare = self.standard or as_it_is
        self.progress.start("applying remedies", None)
        for planned in plan:
            try:
                candidate = self._candidate(planned, start)
            except RemedyError as error:
                refused = refused or error
                self.refused.append(Contestant(planned.remedy, None, reason=error.what))
                continue
            twin = next((o for o in found if candidate.starts_as(o)), None)
            if twin is None:
                found.append(candidate)
                continue
            reason = f"the same numbers as {twin.planned.remedy}"
            self.refused.append(Contestant(planned.remedy, None, reason=reason))
        self.trainee.prepare = as_it_is
        self.progress.finish()
        if not found and refused is not None:
            raise refused
        return found

    def _candidate(self, planned: Planned, start: Tensors) -> Candidate:
        result = self._result(planned.remedy, start)
        values = start | dict(result.changed)
        with self.case.with_tensors(values):
            if self.standard is not None:
                values |= self.standard.opened(self.case.tensors)
        with self.case.with_tensors(values), self.case.with_products(result.products):
            scored = self.trainee.score(self.data.held_out())
        said = (*self.said_first, *result.said)
        result = replace(result, changed=values, said=said)
        return Candidate(planned, result, scored, self.standard)

    def _result(self, name: str, start: Tensors) -> Result:
        """What a remedy changes in the model that it is given."""
        if name == "standardise" and self.standard is not None:
            return Result({}, ("trained on the standardised input, folded afterwards",))
        if name == "tanh" and self.tanh:
            return Result({})
        if name in PREPARED:
            what = "cannot be applied: it would change the function"
            raise RemedyError(what, where=f"--method {name}")
        with self.case.with_tensors(start):
            return perform(remedy(name, self.fix.alpha or 2.0), self.case)

    def _fine_tune(self, name: str) -> tuple[Trained | None, Tensors]:
        """The state with the best held-out score on the way."""
        if not self.fix.finetune:
            return None, self._state()
        self.progress.start("fine-tuning", self.recipe.steps)
        keeper = self._keeper(name.replace(" ", "-"))
        with events(self.checkpoints.events if self.checkpoints else None) as told:
            trained = train(self.trainee, self.data, self.recipe, self.progress, keeper, told)
        self.progress.finish()
        return trained, dict(trained.best)

    def _keeper(self, name: str) -> Keeper | None:
        return self.checkpoints.of(name) if self.checkpoints is not None else None

    def _state(self) -> Tensors:
        tensors = (*self.module.named_parameters(), *self.module.named_buffers())
        return {n: t.detach().clone() for n, t in tensors}

    def outputs(self) -> torch.Tensor:
        """Of all held-out samples, as one vector."""
        self.trainee.set_training(False)
        with torch.no_grad():
            found = [self.trainee.call(batch) for batch in self.data.held_out()]
        return torch.cat([f.double().flatten() for f in found if f is not None])

    def drift(self, raw: torch.Tensor) -> float | None:
        """Root mean square of the change of the outputs since ``raw`` over their own."""
        now = self.outputs()
        size = float(raw.square().mean().sqrt())
        return finite(float((now - raw).square().mean().sqrt()) / max(size, 1e-30))

    def _stage(
        self, name: str, scored: Scored, drift: float | None, said: tuple[str, ...]
    ) -> Stage:
        score, loss = self.scale(scored.mean), float(scored.losses.mean())
        return Stage(name, finite(score), finite(loss), drift, said)


def best_of(tried: Iterable[Treated], guess: float) -> Treated:
    """The first that got better and scores above ``guess``; after it none is trained. Else the
    best that got better, else the first: on a plateau at chance a race is decided by chance too.
    """
    found: list[Treated] = []
    for treated in tried:
        found.append(treated)
        if treated.better and _ends(treated) > guess:
            return treated
    return max(found, key=lambda t: _ends(t) if t.better else -math.inf)


def _ends(treated: Treated) -> float:
    score = treated.stages[-1].score
    return -math.inf if score is None else score


def _guessing(scored: Scored, scale: Scale) -> Scored:
    """Scores with those that are not finite replaced by a guess's: what a repair has to beat."""
    guess = scale.chance if scale.metric == "accuracy" else -scale.room
    points = torch.where(torch.isfinite(scored.points), scored.points, guess)
    return Scored(points, scored.losses)

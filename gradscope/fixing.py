"""``fix`` stage by stage: diagnose, plan, repair, measure again, write. Part of the pipeline.

Everything that imports torch is imported inside the functions, so that ``--help`` stays quick.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gradscope.config import FixSettings, Settings
from gradscope.errors import OptionError
from gradscope.files import check_target, copy_atomic, replace_atomic
from gradscope.model import Edit, Exchange, Given
from gradscope.pipeline import companions_of, examined, inputs_of, samples_of
from gradscope.progress import Progress, Silent
from gradscope.ranks import ALONE, Ranks
from gradscope.second_look import as_wrong, is_confidently_wrong, is_doubtful, looked_at_again
from gradscope.treatment import PLAIN, Outcome, Planned, Run, Stage, Treatment
from gradscope.unproven import RANK, TRAINED, Tried, why_not

if TYPE_CHECKING:
    import torch

    from gradscope.diagnosis import Inspection
    from gradscope.model import LoadedModel, Sample
    from gradscope.repair import Rescaled, Treated


SECOND_LOOK = 600
"""Steps of the trial: with as many, none of 118 healthy networks of the zoo with nothing planted
was accused."""


class Fixing:
    """One model under repair.

    Args:
        settings: the model, its data, how it is measured.
        repair: how it is repaired, and where the result goes.
        progress: told about long work.
        kept: keeps the run; None: nobody does.
        ranks: the processes that share the work; the first one writes.
    """

    def __init__(
        self,
        settings: Settings,
        repair: FixSettings,
        progress: Progress,
        kept: Run | None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.settings, self.repair, self.progress, self.kept = settings, repair, progress, kept
        self.ranks = ranks

    def run(self) -> Treatment:
        """Everything, as far as it is needed.

        Raises:
            GradscopeError: the request cannot be served, or nothing could be measured.
        """
        from gradscope.loading import check_saving, load_model

        settings, repair = self.settings, self.repair
        if repair.out is not None:
            check_target(repair.out, inputs=inputs_of(settings), option="--out")
        self.model: LoadedModel = load_model(settings.model, settings.load)
        if repair.out is not None:
            check_saving(settings.model)
        sample, self.validation = samples_of(self.model, settings, Given())
        self.before = examined(
            self.model, sample, self.validation, settings, self.progress, self.ranks
        )
        if self.model.module is None or sample is None:
            hint = "Name the code that builds it: --arch FILE.py:factory."
            raise OptionError("a repair needs the model's architecture", where="--arch", hint=hint)
        self.sample: Sample = sample
        asked = repair.alpha is not None or repair.method is not None
        if self._is_healthy() and not asked:
            self._look_again()
            if self._is_healthy():
                return self._healthy()
        self.plan = self._planned()
        return self._repaired()

    def _is_healthy(self) -> bool:
        return self.before.diagnosis.verdict.value == "healthy"

    def _look_again(self) -> None:
        """A trial of a model that was called healthy in spite of doubts: whether a repaired copy
        learns clearly more. One that is sure of what is wrong needs none."""
        if is_confidently_wrong(self.before):
            self.before = replace(self.before, diagnosis=as_wrong(self.before.diagnosis))
            return
        if not is_doubtful(self.before) or self.repair.emit_only or self.ranks.size > 1:
            return
        probe = replace(self.settings.probe, trial=SECOND_LOOK)
        found = examined(
            self.model, self.sample, self.validation, replace(self.settings, probe=probe),
            self.progress,
        )  # fmt: skip
        self.before = replace(found, diagnosis=looked_at_again(found))

    def _healthy(self) -> Treatment:
        """A healthy model is returned bit for bit."""
        out, written = self.repair.out, None
        if out is not None and not (self.repair.plan_only or self.repair.emit_only):
            beside = companions_of(self.settings.model)
            if self.ranks.rank == 0:
                copy_atomic(self.settings.model, out, beside, option="--out")
            written = out
        summary = f"Nothing to repair. {self.before.diagnosis.summary}"
        return Treatment(Outcome.UNCHANGED, summary, (), self.before, written=written)

    def _planned(self) -> tuple[Planned, ...]:
        from gradscope.repair import make_plan

        repair = self.repair
        if repair.alpha is not None or repair.method is not None:
            name = repair.method or "alpha"
            asked = "--alpha" if repair.alpha is not None else "--method"
            return (Planned(name, f"asked for by {asked}"),)
        plan = make_plan(self.before.measurements, self.before.diagnosis.causes, repair.rescale)
        if repair.finetune:
            return plan
        # Weights drawn anew are worth nothing before they are trained.
        return tuple(p for p in plan if p.remedy != "restart") or plan

    def _repaired(self) -> Treatment:
        from gradscope.repair import Checkpoints, check_names, treat

        assert self.model.module is not None
        check_names(self.model.module, self.repair)
        intent = self._intent()
        if self.repair.plan_only:
            return intent
        if self.repair.emit_only:
            if self.kept is not None:
                self.kept.begin(intent)
            summary = f"Ready to be run; nothing was trained. It is {intent.summary}"
            return replace(intent, outcome=Outcome.EMITTED, summary=summary)
        if not self.sample.labels:
            return self._rescaled()
        checkpoints = None
        if self.kept is not None and self.repair.finetune:
            kept = self.kept.begin(intent)
            checkpoints = Checkpoints(Path(kept.checkpoints), kept.identity, kept.events)
        treated = treat(
            self.model, self.sample, self.validation, self.before, self.plan, self.settings,
            self.repair, self.progress, checkpoints, self.ranks,
        )  # fmt: skip
        return self._verified(treated)

    def _intent(self) -> Treatment:
        from gradscope.repair import warnings_of

        diagnosis = self.before.diagnosis
        plan = self.plan
        if not self.sample.labels:
            plan = tuple(p for p in plan if p.remedy in _kept_without_labels(plan))
        return Treatment(
            outcome=Outcome.PLANNED,
            summary=f"{diagnosis.verdict.value}: {diagnosis.summary}",
            plan=plan,
            before=self.before,
            warnings=warnings_of(diagnosis.causes, self.repair),
            threads=_threads(),
            processes=self.ranks.size,
        )

    def _verified(self, treated: Treated) -> Treatment:
        """Measured again as it will be written; written only if it is better."""
        after, changed = self._measured_with(treated)
        improved = treated.better
        written = self._written(changed, treated) if improved else None
        first, last = treated.stages[0], treated.stages[-1]
        scores = f"{treated.scale.metric} {_number(first.score)} to {_number(last.score)}"
        not_better = "; that is not better beyond chance, and nothing was written"
        trained = treated.trained
        # In every race; the plan names it where it was the one that went on.
        plain = (PLAIN,) if treated.chosen == PLAIN.remedy else ()
        moments = trained.moments if trained else []
        return replace(
            self._intent(),
            plan=(*self.plan, *plain),
            outcome=Outcome.IMPROVED if improved else Outcome.NOT_IMPROVED,
            summary=f"{'Improved' if improved else 'Not improved'}: {scores} on held-out data"
            f"{'' if improved else not_better}.",
            after=after,
            chosen=treated.chosen,
            metric=treated.scale.metric,
            chance=treated.scale.chance,
            held_out="a quarter of the sample, not trained on" if treated.split else "--val",
            samples=treated.samples,
            recipe=treated.recipe,
            race=treated.race,
            stages=treated.stages,
            steps=tuple(step for step, _ in moments),
            scores=tuple(_finite(treated.scale(s.mean)) for _, s in moments),
            losses=tuple(_finite(float(s.losses.mean())) for _, s in moments),
            trained_on=tuple(trained.trained_on) if trained else (),
            stopped=trained.stopped if trained else None,
            resumed=trained.resumed if trained else None,
            gain=treated.gain,
            error=treated.error,
            written=written,
        )

    def _rescaled(self) -> Treatment:
        """Without labels: what keeps the outputs and is judged better, measured again."""
        from gradscope.repair import rescale

        plan = self._intent().plan
        found = rescale(
            self.model, self.sample, self.before, plan, self.settings, self.repair
        )  # fmt: skip
        limit, verdict = self.repair.max_drift, self.before.diagnosis.verdict.value
        measured = [(r, *self._measured_with(r)) for r in found if math.isfinite(r.drift)]
        verdicts = {id(r): after.diagnosis.verdict.value for r, after, _ in measured}
        tried = {id(r): Tried(r.remedy, r.drift, verdicts.get(id(r), verdict)) for r in found}
        better = [
            m for m in measured
            if m[0].drift <= limit and tried[id(m[0])].is_better_than(verdict)
        ]  # fmt: skip
        before = Stage("before", None, None, None)
        if not better:
            needing = [p.remedy for p in self.plan if p.remedy in TRAINED]
            return replace(
                self._intent(),
                outcome=Outcome.NOT_IMPROVED,
                summary=why_not(list(tried.values()), needing, verdict, limit),
                stages=(before, *map(_stage, found)),
            )
        best, after, changed = max(
            better, key=lambda t: (RANK[t[1].diagnosis.verdict.value], -t[0].drift)
        )
        better_by = f"{verdict} to {after.diagnosis.verdict.value}"
        return replace(
            self._intent(),
            outcome=Outcome.IMPROVED,
            summary=f"Improved without labels: {better_by}, outputs moved by {best.drift:.2g} of "
            f"their size (--max-drift {limit:g}).",
            after=after,
            chosen=best.remedy,
            stages=(before, _stage(best)),
            written=self._written(changed, best),
        )

    def _measured_with(
        self, made: Treated | Rescaled
    ) -> tuple[Inspection, dict[str, torch.Tensor]]:
        """An inspection of the model as it was made, and the values that are new."""
        tensors, tanh, explicit = made.tensors, made.tanh, self.model.explicit
        module = self.model.module
        assert module is not None
        own = dict((*module.named_parameters(), *module.named_buffers()))
        held = {n: own[n].detach().clone() for n in tensors}
        exchange = self.model.exchange
        swap = exchange.swap if tanh and isinstance(exchange, Exchange) else None
        try:
            if swap is not None:
                swap(True)
            if explicit is not None:
                explicit.put(made.products)
            for name, value in tensors.items():
                own[name].data.copy_(value)
            again = replace(self.settings, probe=replace(self.settings.probe, trial=0))
            # The outputs are meant to be others than those of the original.
            model = replace(self.model, verify=None)
            after = examined(model, self.sample, self.validation, again, Silent(), self.ranks)
        finally:
            if swap is not None:
                swap(False)
            if explicit is not None:
                explicit.put({})
            for name, value in held.items():
                own[name].data.copy_(value)
        return after, {n: v for n, v in tensors.items() if not v.equal(held[n])}

    def _written(self, changed: Mapping[str, torch.Tensor], made: Treated | Rescaled) -> str | None:
        from gradscope.loading import save_like

        if self.repair.out is None or self.ranks.rank:
            return self.repair.out
        original, under = self.settings.model, self.settings.load.key or ""
        edit = Edit(made.tanh, made.products)
        replace_atomic(
            self.repair.out,
            lambda path: save_like(original, path, changed, under=under, edit=edit),
            option="--out",
            staging=self.kept.staging() if self.kept is not None else None,
        )
        return self.repair.out


def _stage(found: Rescaled) -> Stage:
    return Stage(found.remedy, None, None, found.drift, found.said, found.places)


def _kept_without_labels(plan: tuple[Planned, ...]) -> set[str]:
    """What may keep the function."""
    return {p.remedy for p in plan} - set(TRAINED)


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _number(score: float | None) -> str:
    return "not finite" if score is None else f"{score:.3f}"

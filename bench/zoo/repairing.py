"""What ``gradscope fix`` makes of the models of the zoo, beside plain training and a restart.

Held-out samples are split in two: on the even ones everything chooses (``--val``, and the best
moment of plain training and of the restart), on the odd ones everything is scored. The arms:

- ``saved``: the model as it is in its file;
- ``fixed``: the file that ``fix`` with its defaults wrote, read by plain torch; what was not
  written stays as it was;
- ``plain``: the model trained on, and ``restart``: the architecture from a sane start (see
  ``truth.py``), both by Adam 1e-3 with batches of 32, scored once an epoch, for as many steps as
  the defaults allow ``fix`` in all, its races included;
- ``twin``: the healthy reference, by the family's own optimiser and budget.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bench.zoo import nets, starts
from bench.zoo.build import Builder, Saved, Unit, continued
from bench.zoo.data import Dataset
from bench.zoo.families import DEVELOPMENT, Family
from bench.zoo.training import BATCH, Score, chance, score
from bench.zoo.truth import CLOSE, decide
from gradscope.config import DataSettings, FixSettings, LoadSettings, Settings
from gradscope.errors import GradscopeError

NETS = Path(nets.__file__)
HEALTHY = ("converged", "trained")
"""Of the reference's moments; ``fix`` should leave them as they are."""


class OutOfTimeError(Exception):
    """The whole run's time is over; the model counts as not judged."""


@dataclass
class Watched:
    """Progress that ends a repair when time is over."""

    deadline: float
    steps: int = 0

    def start(self, what: str, total: int | None) -> None:
        """A stage."""

    def advance(self, steps: int = 1) -> None:
        """Steps of the optimiser, in races and in fine-tuning."""
        self.steps += steps
        _check(self.deadline)

    def finish(self) -> None:
        """Of a stage."""


def _check(deadline: float) -> None:
    if time.time() > deadline:
        raise OutOfTimeError


@dataclass(frozen=True)
class Task:
    """One model of one family and seed."""

    family: str
    seed: int
    condition: str
    folder: Path
    deadline: float

    @property
    def unit(self) -> Unit:
        family = next(f for f in DEVELOPMENT if f.name == self.family)
        return Unit("dev", family, self.seed, self.folder / self.family)


def prepare(task: Task) -> str:
    """Builds the unit's reference and every model of it; files beside one another."""
    torch.set_num_threads(1)
    unit = task.unit
    unit.folder.mkdir(parents=True, exist_ok=True)
    builder = Builder(unit)
    for condition in (*HEALTHY, *unit.family.faults):
        _check(task.deadline)
        torch.save((builder.make(condition), builder.config), unit.path(condition, ".saved"))
    return f"{unit.family.name} {unit.seed}: reference {builder.twin.value:.3f}"


def conditions(family: Family) -> tuple[str, ...]:
    """Faults, then what is healthy."""
    return (*family.faults, *HEALTHY)


def judge(task: Task) -> dict[str, Any]:
    """One model in all arms, as JSON can hold it."""
    torch.set_num_threads(1)
    started = time.perf_counter()
    unit = task.unit
    # Of our own making, moments ago.
    saved, config = torch.load(unit.path(task.condition, ".saved"), weights_only=False)
    record: dict[str, Any] = {
        "id": f"{task.family}/{task.condition}-{task.seed}", "family": task.family,
        "kind": unit.family.kind, "condition": task.condition, "seed": task.seed,
    }  # fmt: skip
    try:
        record |= _judged(task, unit, saved, config)
    except OutOfTimeError:
        record["error"] = "out of time"
    record["seconds"] = round(time.perf_counter() - started, 2)
    return record


def _judged(task: Task, unit: Unit, saved: Saved, config: dict[str, Any]) -> dict[str, Any]:
    family, planted = unit.family, task.condition not in HEALTHY
    now, low = score(saved.net, saved.judged), chance(saved.judged)
    untreated = saved.untreated
    if untreated is None:
        near = now.value >= low + (1 - CLOSE) * (saved.twin.value - low)
        on = unit.draw(f"on {task.condition}")
        untreated = now if near else continued(saved, family, on)
    truth = decide(now, untreated, saved.twin, low)
    val, test = _halves(saved.judged)
    found: dict[str, Any] = {
        "truth": truth.truth, "planted": planted, "chance": low,
        "saved": score(saved.net, test).value,
        "twin": _of(saved.twin, slice(1, None, 2)).value,
    }  # fmt: skip
    _check(task.deadline)
    repaired = Repaired.run(task, unit, saved, config)
    found |= repaired.record(saved.net, test)
    if truth.truth != "faulty":
        return found
    taught = replace(saved.shown, x_val=val.x_val, y_val=val.y_val)
    steps = repaired.allowed(len(taught.x))
    torch.manual_seed(unit.draw("restart"))
    sane = nets.build(**{**config, "outputs": saved.shown.outputs})
    starts.sane(sane, family)
    for name, net in (("plain", copy.deepcopy(saved.net)), ("restart", sane)):
        best, early = _trained(net, taught, family, steps, repaired.early_step, task.deadline)
        found[name] = score(best, test).value
        found[f"{name} early"] = early
    return found


def _halves(data: Dataset) -> tuple[Dataset, Dataset]:
    def part(rows: slice) -> Dataset:
        return replace(data, x_val=data.x_val[rows], y_val=data.y_val[rows])

    return part(slice(0, None, 2)), part(slice(1, None, 2))


def _of(whole: Score, rows: slice) -> Score:
    return Score(whole.credit[rows], whole.weight[rows], whole.classes)


@dataclass(frozen=True)
class Repaired:
    """What ``fix`` said and wrote.

    Attributes:
        said: outcome, remedy, verdicts, held-out scores by its own account.
        out: the file; absent if nothing was written.
        steps: of the optimiser, races included.
        early: (step, score) of its own account nearest to 100 steps.
    """

    said: dict[str, Any]
    out: Path
    steps: int
    early: tuple[int, float | None]

    @classmethod
    def run(cls, task: Task, unit: Unit, saved: Saved, config: dict[str, Any]) -> Repaired:
        """With the defaults, on files as a user has them."""
        from gradscope.pipeline import fix

        stem = unit.path(task.condition, "")
        path, out = stem.with_suffix(".pt"), stem.with_suffix(".fixed.pt")
        saved.net.zero_grad(set_to_none=True)
        torch.save(saved.net.state_dict(), path)
        shown, (val, _) = saved.shown, _halves(saved.judged)
        np.savez(stem.with_suffix(".npz"), x=shown.x, y=shown.y)
        np.savez(stem.with_suffix(".val.npz"), x=val.x_val, y=val.y_val)
        arguments = {**config, "outputs": shown.outputs}
        settings = Settings(
            str(path),
            load=LoadSettings(arch=f"{NETS}:build", arch_args=arguments),
            data=DataSettings(
                str(stem.with_suffix(".npz")), str(stem.with_suffix(".val.npz")), samples=None
            ),
        )
        watched = Watched(task.deadline)
        out.unlink(missing_ok=True)
        try:
            treatment = fix(settings, FixSettings(out=str(out)), watched)
        except GradscopeError as error:
            said: dict[str, Any] = {"outcome": "refused", "error": str(error)[:300]}
            return cls(said, out, watched.steps, (0, None))
        stages = treatment.stages
        said = {
            "outcome": treatment.outcome.value,
            "chosen": treatment.chosen,
            "plan": [p.remedy for p in treatment.plan],
            "verdict": treatment.before.diagnosis.verdict.value,
            "causes": [c.value for c in treatment.before.diagnosis.causes],
            "right after": stages[1].score if len(stages) > 1 else None,
            "same bytes": out.is_file() and out.read_bytes() == path.read_bytes(),
        }
        later = [(s, v) for s, v in zip(treatment.steps, treatment.scores, strict=True) if s]
        early = min(later, key=lambda m: abs(m[0] - 100), default=(0, None))
        return cls(said, out, watched.steps, early)

    @property
    def early_step(self) -> int:
        """Of the comparison with a restart; 100 where there was no training."""
        return self.early[0] or 100

    def allowed(self, samples: int) -> int:
        """Steps that ``fix`` would take at most: its own fine-tuning is cut short by patience."""
        whole = FixSettings().epochs * max(1, samples // BATCH)
        races = max(1, len(self.said.get("plan", ()))) * max(50, whole // 8)
        return max(self.steps, whole + races)

    def record(self, net: nn.Module, test: Dataset) -> dict[str, Any]:
        """Its scores on samples that it has not seen; read by plain torch."""
        before = score(net, test)
        after = before
        if self.out.is_file():
            fixed = copy.deepcopy(net)
            fixed.load_state_dict(torch.load(self.out, weights_only=True))
            after = score(fixed, test)
        return {
            **self.said, "fixed": after.value, "steps": self.steps,
            "fixed early": self.early[1], "early": self.early_step, "loss se": _loss(before, after),
        }  # fmt: skip


def _loss(before: Score, after: Score) -> float:
    """Standard errors by which the repaired model is worse than untouched; 0 or less: it is not."""
    sign = 1.0 if before.classes else -1.0
    lost = sign * (before.credit - after.credit)
    spread = float(lost.std()) / len(lost) ** 0.5
    return float(lost.mean()) / spread if spread > 0 else 0.0


def _trained(
    net: nn.Module, data: Dataset, family: Family, steps: int, early: int, deadline: float
) -> tuple[nn.Module, float]:
    """(the best of its moments by the held-out samples that choose, its score after ``early``)."""
    random = np.random.default_rng(0)
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    loss_of: Callable[..., torch.Tensor] = nn.CrossEntropyLoss() if data.classes else nn.MSELoss()
    optimiser = torch.optim.Adam(net.parameters(), 1e-3, fused=True)
    clip = family.kind in ("rnn", "lstm", "gru")
    best, most, noted = copy.deepcopy(net), score(net, data).value, 0.0
    for i in range(1, steps + 1):
        net.train()
        rows = torch.from_numpy(random.integers(0, len(x), BATCH))
        loss = loss_of(net(x[rows]), y[rows])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if clip:
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        if i == early:
            noted = _plainly(score(net, data), data)
        if i % max(1, len(x) // BATCH) == 0 or i == steps:
            _check(deadline)
            found = score(net, data).value
            if found > most:
                best, most = copy.deepcopy(net), found
    return best, noted


def _plainly(found: Score, data: Dataset) -> float:
    """As ``fix`` counts: accuracy, or 1 - MSE / variance."""
    mean = float(found.credit.mean())
    return mean if data.classes else 1 - mean / float(np.var(data.y_val))

"""What ``gradscope fix`` makes of the models of the zoo, beside plain training and a restart.

The models are those that ``calibration.py build`` wrote, and so are their truths. Held-out samples
are split in two: on the even ones everything chooses (``--val``, and the best
moment of plain training and of the restart), on the odd ones everything is scored. The arms:

- ``saved``: the model as it is in its file;
- ``fixed``: the file that ``fix`` with its defaults wrote, read by plain torch; what was not
  written stays as it was;
- ``restart``: the architecture from a sane start (see ``truth.py``), by Adam 1e-3 with batches of
  32, scored once an epoch, for as many steps as the defaults allow ``fix`` in all, its races
  included; ``plain``: the model trained on in the same way (only with ``--plain``);
- ``untreated``: what ``build`` found for it: the best of the model continued by the family's own
  optimiser and budget, on all held-out samples;
- ``twin``: the healthy reference, by the family's own optimiser and budget.
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bench.zoo import data as datasets
from bench.zoo import nets, starts
from bench.zoo.build import OWN_RUN, Unit
from bench.zoo.data import Dataset
from bench.zoo.families import Family
from bench.zoo.parts import PARTS
from bench.zoo.records import records
from bench.zoo.training import BATCH, Score, score
from gradscope.config import DataSettings, FixSettings, LoadSettings, Settings
from gradscope.errors import GradscopeError
from gradscope.repair.recipe import EPOCHS, SHORTEST

NETS = Path(nets.__file__)
FAMILIES = {f.name: f for families in PARTS.values() for f in families}
SHARES = {"faulty": 3, "partly": 1, "harmless": 3, "healthy": 3}
"""Of each ten models: faulty at chance, faulty that have learned something, planted without harm,
healthy with nothing planted, which are soon told. Within each, every family has its turn."""


class OutOfTimeError(Exception):
    """The whole run's time is over; the model counts as not judged."""


@dataclass
class Watched:
    """Progress that ends a repair when time is over."""

    deadline: float
    steps: int = 0
    counting: bool = False

    def start(self, what: str, total: int | None) -> None:
        """A stage: what is counted are steps of the optimiser, in races and in fine-tuning."""
        self.counting = what in ("remedies", "fine-tuning")

    def advance(self, steps: int = 1) -> None:
        """Steps of the optimiser, or samples that are looked at."""
        self.steps += steps if self.counting else 0
        _check(self.deadline)

    def finish(self) -> None:
        """Of a stage."""


def _check(deadline: float) -> None:
    if time.time() > deadline:
        raise OutOfTimeError


@dataclass(frozen=True)
class Task:
    """One model of the zoo, by what ``build`` wrote about it.

    Attributes:
        folder: for what ``fix`` is given and what it writes.
        plain: whether the model itself is trained on too.
    """

    record: dict[str, Any]
    folder: Path
    deadline: float
    plain: bool

    @property
    def name(self) -> str:
        """Among all parts."""
        return f"{self.record['part']}/{self.record['id']}"

    @property
    def unit(self) -> Unit:
        """The model's family and seed."""
        path = Path(self.record["path"])
        family = FAMILIES[self.record["family"]]
        return Unit(self.record["part"], family, self.record["seed"], path.parent)


def stratum(record: dict[str, Any]) -> str | None:
    """One of ``SHARES``; None for what is in no table."""
    if record["truth"] == "faulty":
        return "partly" if record["saved"] > record["chance"] + 0.1 else "faulty"
    if record["truth"] != "healthy":
        return None
    return "harmless" if record["planted"] else "healthy"


def sample(
    folders: list[Path], seed: int, strata: Iterable[str] = tuple(SHARES)
) -> Iterator[dict[str, Any]]:
    """Records in random order, the strata in turn by their shares and in each the families in
    turn: where it is cut off, it is a sample of all."""
    drawn = random.Random(seed)
    groups: dict[str, dict[str, list[dict[str, Any]]]] = {name: {} for name in strata}
    for folder in folders:
        for record in records(folder):
            where = stratum(record)
            if where in groups and Path(record["path"] + ".pt").is_file():
                groups[where].setdefault(record["family"], []).append(record)
    rows = {}
    for name, families in groups.items():
        for kept in families.values():
            drawn.shuffle(kept)
        order = drawn.sample(sorted(families), len(families))
        turns = zip_longest(*(families[f] for f in order))
        rows[name] = iter([r for turn in turns for r in turn if r is not None])
    while rows:
        for name in list(rows):
            for _ in range(SHARES[name]):
                record = next(rows[name], None)
                if record is None:
                    del rows[name]
                    break
                yield record


def judge(task: Task) -> dict[str, Any]:
    """One model in all arms, as JSON can hold it."""
    torch.set_num_threads(1)
    started = time.perf_counter()
    kept = ("id", "part", "family", "kind", "condition", "seed", "planted", "truth", "chance",
            "untreated")  # fmt: skip
    found: dict[str, Any] = {key: task.record[key] for key in kept}
    found["stratum"] = stratum(task.record)
    try:
        found |= _judged(task)
    except OutOfTimeError:
        found["error"] = "out of time"
    found["seconds"] = round(time.perf_counter() - started, 2)
    return found


def _judged(task: Task) -> dict[str, Any]:
    unit, condition, config = task.unit, task.record["condition"], task.record["config"]
    family = unit.family
    shown, judged = _data(unit, condition)
    path = Path(task.record["path"] + ".pt")
    net = _read(path, config)
    own = condition in OWN_RUN
    last = "converged" if unit.path("converged", ".pt").is_file() else "trained"
    twin = net if own else _read(unit.path(last, ".pt"), config)
    plain = judged if own else _data(unit, "converged")[1]
    val, test = _halves(judged)
    found: dict[str, Any] = {
        "saved": score(net, test).value, "twin": score(twin, _halves(plain)[1]).value,
    }  # fmt: skip
    repaired = Repaired.run(task, path, replace(shown, x_val=val.x_val, y_val=val.y_val), config)
    found |= repaired.record(net, test, config)
    if task.record["truth"] != "faulty":
        return found
    taught = replace(shown, x_val=val.x_val, y_val=val.y_val)
    steps = repaired.allowed(len(taught.x))
    torch.manual_seed(unit.draw("restart"))
    sane = nets.build(**config)
    starts.sane(sane, family)
    arms = {"restart": sane} | ({"plain": copy.deepcopy(net)} if task.plain else {})
    for name, arm in arms.items():
        best, early = _trained(arm, taught, family, steps, repaired.early_step, task.deadline)
        found[name] = score(best, test).value
        found[f"{name} early"] = early
    return found


def _data(unit: Unit, condition: str) -> tuple[Dataset, Dataset]:
    """(what the model is taught, what it is judged on): the files beside it hold a part of it."""
    data = datasets.load(unit.family.data, unit.family.kind, unit.seed)
    if condition == "noisy":
        return datasets.noisy(data, unit.seed), data
    if condition == "imbalanced":
        return datasets.imbalanced(data, unit.seed), datasets.first_class(data)
    shown = datasets.rescaled(data, condition)
    return shown, shown


def _read(path: Path, config: dict[str, Any]) -> nn.Module:
    # Written by ``build``: weights, or a whole module of ``nets.py``.
    held = torch.load(path, weights_only=False)
    if isinstance(held, nn.Module):
        return held.eval()
    net = nets.build(**config)
    net.load_state_dict(held)
    return net.eval()


def _halves(data: Dataset) -> tuple[Dataset, Dataset]:
    def part(rows: slice) -> Dataset:
        return replace(data, x_val=data.x_val[rows], y_val=data.y_val[rows])

    return part(slice(0, None, 2)), part(slice(1, None, 2))


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
    def run(cls, task: Task, path: Path, data: Dataset, config: dict[str, Any]) -> Repaired:
        """With the defaults, on files as a user has them."""
        from gradscope.pipeline import fix

        stem = task.folder / task.name.replace("/", "+")
        task.folder.mkdir(parents=True, exist_ok=True)
        out = stem.with_name(stem.name + ".fixed.pt")
        files = [stem.with_name(stem.name + end) for end in (".npz", ".val.npz")]
        np.savez(files[0], x=data.x, y=data.y)
        np.savez(files[1], x=data.x_val, y=data.y_val)
        load = LoadSettings(arch=f"{NETS}:build", arch_args=config)
        if task.record["whole"]:
            load = LoadSettings()
        settings = Settings(
            str(path), load=load,
            data=DataSettings(str(files[0]), str(files[1]), samples=None),
        )  # fmt: skip
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
        """Steps that ``fix`` would take at most if it is not prolonged, and what it took if it was:
        its own fine-tuning is cut short by patience."""
        whole = EPOCHS * max(SHORTEST, samples // BATCH)
        races = max(1, len(self.said.get("plan", ()))) * max(50, whole // 8)
        return max(self.steps, whole + races)

    def record(self, net: nn.Module, test: Dataset, config: dict[str, Any]) -> dict[str, Any]:
        """Its scores on samples that it has not seen; read by plain torch."""
        before = score(net, test)
        after = before
        if self.out.is_file():
            after = score(_read(self.out, config), test)
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

"""Trials on a sample of the zoo, each model with its family's own optimiser, against the same
verdicts without a trial."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.zoo.families import Family
from bench.zoo.judging import LABELLED, judge
from bench.zoo.measuring import NETS
from bench.zoo.parts import PARTS
from bench.zoo.rates import share, table
from bench.zoo.records import records
from gradscope.config import DataSettings, LoadSettings, ProbeSettings, Settings
from gradscope.counterfactual import outcome
from gradscope.diagnosis import diagnose
from gradscope.errors import GradscopeError
from gradscope.rules import run_rules

STRATA = {"faulty": ("faulty", True), "nothing planted": ("healthy", False),
          "planted, harmless": ("healthy", True)}  # fmt: skip
SHARES = {"faulty": 0.35, "nothing planted": 0.3, "planted, harmless": 0.35}
SLOW = ("transformer", "postln", "mixer", "lstm", "gru", "gruseq", "unet1d", "rescnn")
"""Kinds whose steps take several times as long."""


@dataclass(frozen=True)
class Tried:
    """One model.

    Attributes:
        record: of the zoo.
        stratum: of :data:`STRATA`.
        chosen: sample, or wrong: one that the numbers alone judge wrongly.
        plain, tried: verdict without a trial, and with it.
        what: outcome of the trial; or why there is none.
        scores: best untreated, and repaired.
        how: optimiser.
        seconds: that it took.
    """

    record: dict[str, Any]
    stratum: str
    chosen: str
    plain: str
    tried: str
    what: str
    scores: str
    how: str
    seconds: float


def pick(
    folders: Sequence[Path], models: int, seed: int, *, slow: bool
) -> list[tuple[str, str, dict[str, Any]]]:
    """(chosen, stratum, record): a stratified sample in mixed order, then what the numbers judge
    wrongly of the rest.

    Args:
        folders: of parts of the zoo, with their models.
        models: of the sample.
        seed: of the draw.
        slow: whether the slow kinds are among them.
    """
    every = [r for f in folders for r in records(f) if Path(r["path"] + ".pt").is_file()]
    every = [r for r in every if slow or r["kind"] not in SLOW]
    every.sort(key=lambda r: (r["part"], r["id"]))
    draw, found, rest = random.Random(seed), [], []
    for name, truth in STRATA.items():
        those = [r for r in every if (r["truth"], r["planted"]) == truth]
        draw.shuffle(those)
        count = round(models * SHARES[name])
        found += [((i + 0.5) / count, "sample", name, r) for i, r in enumerate(those[:count])]
        rest += [(2.0 + draw.random(), "wrong", name, r) for r in those[count:] if _wrong(r)]
    return [(c, s, r) for _, c, s, r in sorted([*found, *rest], key=lambda row: row[0])]


def _wrong(record: dict[str, Any]) -> bool:
    judged = judge(record, LABELLED)
    return judged is not None and (judged.verdict == "unhealthy") != (record["truth"] == "faulty")


def options(family: Family, steps: int) -> ProbeSettings:
    """A trial with the family's own optimiser."""
    named = {"momentum": "sgd", "sgd": "sgd"}.get(family.optimiser, family.optimiser)
    momentum = {"momentum": 0.9, "sgd": 0.0}.get(family.optimiser)
    return ProbeSettings(
        trial=steps, trial_optimizer=named, trial_rate=family.lr, trial_momentum=momentum
    )


def run_one(chosen: str, stratum: str, record: dict[str, Any], steps: int, *, own: bool) -> Tried:
    """Inspect one model with a trial.

    Args:
        steps: of the trial.
        own: with the family's optimiser; else as for a file that keeps none.
    """
    from gradscope.pipeline import inspect

    data = Path(record["path"]).parent / record["data"]
    arch = {} if record["whole"] else {"arch": f"{NETS}:build", "arch_args": record["config"]}
    samples = DataSettings(data=f"{data}.npz", val=f"{data}-val.npz")
    family = next(f for f in PARTS[record["part"]] if f.name == record["family"])
    probe = options(family, steps) if own else ProbeSettings(trial=steps)
    started = time.process_time()
    try:
        m = inspect(Settings(f"{record['path']}.pt", LoadSettings(**arch), samples, probe))
    except GradscopeError as error:
        return Tried(record, stratum, chosen, "error", "error", str(error), "", "", 0.0)
    found = m.measurements
    alone = replace(found, trial=None)
    plain = diagnose(alone, run_rules(alone)).verdict.value
    trial = found.trial
    what = "no trial" if trial is None else outcome(trial).value
    scores = how = ""
    if trial is not None:
        best = max((s for s in trial.untreated.score if s is not None), default=None)
        scores = f"{_short(best)} {_short(trial.repaired.last)} in {trial.steps}"
        how = trial.repaired.how
    took = time.process_time() - started
    return Tried(record, stratum, chosen, plain, m.diagnosis.verdict.value, what, scores, how, took)


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def report(rows: Sequence[Tried]) -> list[str]:
    """Markdown lines: both groups, then every model."""
    lines = []
    groups = {
        "sample": "The sample",
        "wrong": "All others that the numbers alone judge wrongly, as far as time allowed",
    }
    for chosen, title in groups.items():
        those = [r for r in rows if r.chosen == chosen]
        if those:
            lines += [f"## {title}", "", *_rates(those)]
    lines += ["## Models", ""]
    head = ("model", "truth", "alone", "with the trial", "outcome", "untreated, repaired",
            "optimiser", "zoo: saved, untreated, twin")  # fmt: skip
    body = [
        (r.record["id"], r.stratum, r.plain, r.tried, r.what, r.scores, r.how,
         " ".join(f"{r.record[k]:.2f}" for k in ("saved", "untreated", "twin")))
        for r in rows
    ]  # fmt: skip
    return [*lines, *table(head, body)]


def _rates(rows: Sequence[Tried]) -> list[str]:
    body = []
    for name in STRATA:
        those = [r for r in rows if r.stratum == name]
        n = len(those)
        alone = sum(r.plain == "unhealthy" for r in those)
        tried = sum(r.tried == "unhealthy" for r in those)
        other = Counter(r.tried for r in those if r.tried != "unhealthy")
        rest = ", ".join(f"{v} {k}" for k, v in other.items())
        body.append((f"{name}: called unhealthy", share(alone, n), share(tried, n), rest))
    return table(("", "alone", "with the trial", "else"), body)

"""Builds the saved models of one family and seed, with their data and their measured truth.

Layout: ``DIR/PART/FAMILY/CONDITION-SEED.{pt,json}`` and ``DATA-SEED{,-val}.npz`` beside them. The
JSON says how to load the model, what was planted and what the experiment of ``truth.py`` found.
"""

from __future__ import annotations

import copy
import json
import os
import time
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bench.zoo import data as datasets
from bench.zoo import fourth_plants, fresh_plants, nets, plants, starts
from bench.zoo.data import Dataset
from bench.zoo.families import RECURRENT, Family
from bench.zoo.training import Score, chance, score, train
from bench.zoo.truth import CLOSE, decide

SHOWN = 512
"""Samples at most in the file that a diagnosis is given, and in the held-out one."""
IMAGES = ("cnn", "cnn1d", "rescnn", "unet1d")
"""Kinds whose features are channels."""
NOISY = {"noisy": 0.3, "noisy20": 0.2, "noisy40": 0.4}
"""Conditions, and the share of labels that is wrong."""
SKEWED = {"imbalanced": 99, "skewed": 19}
"""Conditions, and how many others there are to one sample of the first class."""
OWN_RUN = (*NOISY, *SKEWED)
"""Conditions whose twin is their own run: what the labels teach is all there is."""
AFTER_TRAINING = plants.AFTER_TRAINING | fresh_plants.AFTER_TRAINING | fourth_plants.AFTER_TRAINING
"""Planted in the trained reference; the others in a new network."""


@dataclass(frozen=True)
class Unit:
    """What is built together: it shares a reference."""

    part: str
    family: Family
    seed: int
    folder: Path

    @property
    def conditions(self) -> tuple[str, ...]:
        return (*self.family.healthy, *self.family.faults)

    def path(self, condition: str, suffix: str) -> Path:
        return self.folder / f"{condition}-{self.seed}{suffix}"

    def done(self) -> bool:
        return all(self.path(c, ".json").is_file() for c in self.conditions)

    def draw(self, what: str) -> int:
        """A seed of its own for each purpose."""
        return zlib.crc32(f"{self.family.name}/{what}/{self.seed}".encode())


@dataclass(frozen=True)
class Saved:
    """A model as it goes into its file, and the scores known by then."""

    net: nn.Module
    shown: Dataset
    data_name: str
    untreated: Score | None
    twin: Score
    judged: Dataset


class Builder:
    """The reference of a unit, and every condition made from it."""

    def __init__(self, unit: Unit) -> None:
        self.unit, family = unit, unit.family
        torch.set_num_threads(1)
        self.data = datasets.load(family.data, family.kind, unit.seed)
        self.config = _config(family, self.data)
        steps = family.steps
        self.start = self.fresh("reference")
        marks = {"fresh": 0, "early": steps // 20, "trained": steps // 2, "converged": steps}
        kept = train(
            copy.deepcopy(self.start), self.data, family, steps, unit.draw("batches"),
            keep=marks.values(),
        )  # fmt: skip
        self.reference = {name: kept[at] for name, at in marks.items()}
        self.twin = score(self.reference["converged"], self.data)

    def fresh(self, purpose: str, *, default: bool | None = None) -> nn.Module:
        """A new network: a sane start, or torch's default (shallow nets of seed 1, if not told)."""
        family = self.unit.family
        torch.manual_seed(self.unit.draw(purpose))
        net = nets.build(**self.config)
        shallow = family.depth < starts.DEEP and family.kind not in RECURRENT
        if default is None:
            default = shallow and self.unit.seed % 2 == 1
        if not default:
            starts.sane(net, family)
        return net

    def make(self, condition: str) -> Saved:
        """One condition."""
        if condition in self.reference:
            net = self.reference[condition]
            return Saved(net, self.data, "plain", self.twin, self.twin, self.data)
        if condition in OWN_RUN:
            return self._own_run(condition)
        if condition in ("decayed", "hot", "smoothed"):
            return self._variant(condition)
        if condition == "overtrained":
            return self._overtrained()
        if condition in ("pruned", "rounded", *fourth_plants.CHANGED):
            return self._changed(condition)
        return self._planted(condition)

    def _own_run(self, condition: str) -> Saved:
        unit, family = self.unit, self.unit.family
        if condition in NOISY:
            taught = datasets.noisy(self.data, unit.seed, NOISY[condition])
            judged, net = self.data, self.start
        else:
            taught = datasets.imbalanced(self.data, unit.seed, SKEWED[condition])
            judged = datasets.first_class(self.data)
            torch.manual_seed(unit.draw("reference"))
            net = nets.build(**{**self.config, "outputs": 2})
            starts.sane(net, family)
        net = copy.deepcopy(net)
        train(net, taught, family, family.steps, unit.draw(condition))
        twin = score(net, judged)
        return Saved(net, taught, condition, twin, twin, judged)

    def _variant(self, condition: str) -> Saved:
        family = self.unit.family
        net = copy.deepcopy(self.start)
        how = {"decayed": {"decay": 1e-3}, "hot": {"factor": 3.0}, "smoothed": {"smoothing": 0.2}}
        seed = self.unit.draw(condition)
        train(net, self.data, family, family.steps, seed, **how[condition])
        return Saved(net, self.data, "plain", None, self.twin, self.data)

    def _overtrained(self) -> Saved:
        net, family = copy.deepcopy(self.reference["converged"]), self.unit.family
        train(net, self.data, family, 3 * family.steps, self.unit.draw("overtrained"))
        return Saved(net, self.data, "plain", None, self.twin, self.data)

    def _changed(self, condition: str) -> Saved:
        net = copy.deepcopy(self.reference["converged"])
        plants.plant(condition, net, self.unit.family, torch.from_numpy(self.data.x))
        return Saved(net.eval(), self.data, "plain", None, self.twin, self.data)

    def _planted(self, condition: str) -> Saved:
        unit, family = self.unit, self.unit.family
        shown = datasets.rescaled(self.data, condition)
        name = condition if condition.startswith("inputs") else "plain"
        if condition in AFTER_TRAINING:
            net = copy.deepcopy(self.reference["converged"])
        else:
            net = self.fresh(condition, default=True if condition in plants.DEFAULT_START else None)
        torch.manual_seed(unit.draw(f"plant {condition}"))
        plants.plant(condition, net, family, torch.from_numpy(shown.x))
        steps, factor = (family.steps // 4 if unit.seed % 2 else 0), 1.0
        if condition in plants.WHOLE_BUDGET | fourth_plants.WHOLE_BUDGET:
            steps = family.steps
        if condition in fourth_plants.HALF_BUDGET:
            steps = family.steps // 2
        if condition == "diverged":
            steps, factor = family.steps // 2, 300.0
        if condition == "overshot":
            steps, factor = family.steps // 2, 100.0
        if condition in ("nan", "scaled-works", *fresh_plants.AS_SAVED, *fourth_plants.AS_SAVED):
            steps = 0
        train(net, shown, family, steps, unit.draw(f"pre {condition}"), factor=factor)
        net.eval()
        return Saved(net, shown, name, None, self.twin, shown)


def _config(family: Family, data: Dataset) -> dict[str, Any]:
    """Keywords of ``nets.build``."""
    x = data.x
    tokens = not np.issubdtype(x.dtype, np.floating)
    inputs = x.shape[1] if family.kind in IMAGES else x.shape[-1]
    size = x.shape[1] if family.kind in ("transformer", "mixer") else x.shape[-1]
    return {
        "kind": family.kind,
        "activation": family.activation,
        "inputs": int(inputs),
        "width": family.width,
        "outputs": data.outputs,
        "depth": family.depth,
        "norm": family.norm,
        "size": int(size),
        "vocabulary": int(x.max()) + 1 if tokens else 0,
    }


def continued(saved: Saved, family: Family, seed: int) -> Score:
    """The best of an untreated continuation, looked at after 25, 50 and 100 % of the budget."""
    net, steps = copy.deepcopy(saved.net), family.steps
    looks = (steps // 4, steps // 2, steps)
    kept = train(net, saved.shown, family, steps, seed, keep=looks)
    scores = [score(kept[at], saved.judged) for at in looks]
    return max(scores, key=lambda s: s.value)


def build_unit(unit: Unit) -> str:
    """Build what is missing; one line about it."""
    if unit.done():
        return f"{unit.family.name} {unit.seed}: there already"
    unit.folder.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    builder, counts = Builder(unit), dict.fromkeys(("faulty", "healthy", "ambiguous"), 0)
    for condition in unit.conditions:
        record = _build_one(builder, condition)
        counts[record["truth"]] = counts.get(record["truth"], 0) + 1
    took = time.perf_counter() - started
    twin = builder.twin.value
    return f"{unit.family.name} {unit.seed}: {took:.0f} s, reference {twin:.3f}, {counts}"


def _build_one(builder: Builder, condition: str) -> dict[str, Any]:
    unit, family, started = builder.unit, builder.unit.family, time.perf_counter()
    saved = builder.make(condition)
    now, untreated = score(saved.net, saved.judged), saved.untreated
    low = chance(saved.judged)
    if untreated is None:
        near = now.value >= low + (1 - CLOSE) * (saved.twin.value - low)
        untreated = now if near else continued(saved, family, unit.draw(f"on {condition}"))
    found = decide(now, untreated, saved.twin, low)
    _write_model(saved.net, unit.path(condition, ".pt"), family)
    _write_data(saved.shown, unit.folder / f"{saved.data_name}-{unit.seed}")
    record = {
        "id": f"{family.name}/{condition}-{unit.seed}",
        "part": unit.part,
        "family": family.name,
        "kind": family.kind,
        "activation": family.activation,
        "condition": condition,
        "seed": unit.seed,
        **asdict(found),
        "whole": _whole(family),
        "config": {**builder.config, "outputs": saved.shown.outputs},
        "data": f"{saved.data_name}-{unit.seed}",
        "seconds": round(time.perf_counter() - started, 2),
    }
    _replace(unit.path(condition, ".json"), (json.dumps(record, indent=1) + "\n").encode())
    return record


def _whole(family: Family) -> bool:
    """Whether the file holds the module and not only its weights."""
    chain = family.kind in ("mlp", "cnn", "cnn1d", "dropmlp")
    return family.whole and chain and family.activation != "arctan"


def _write_model(net: nn.Module, path: Path, family: Family) -> None:
    net.zero_grad(set_to_none=True)
    partial = path.with_suffix(f".{os.getpid()}")
    torch.save(net if _whole(family) else net.state_dict(), partial)
    partial.replace(path)


def _write_data(data: Dataset, stem: Path) -> None:
    if stem.with_name(stem.name + "-val.npz").is_file():
        return
    np.savez(stem.with_name(stem.name + ".npz"), x=data.x[:SHOWN], y=data.y[:SHOWN])
    held = {"x": data.x_val[:SHOWN], "y": data.y_val[:SHOWN]}
    np.savez(stem.with_name(stem.name + "-val.npz"), **held)


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_bytes(content)
    partial.replace(path)

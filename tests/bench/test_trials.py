"""Trials on the zoo: the sample, each family's own optimiser, and what is counted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench.zoo import trials
from bench.zoo.families import DEVELOPMENT
from bench.zoo.trials import SHARES, STRATA, Tried, options, pick, report
from gradscope.repair.trial_recipes import choose

NAMES = {"adam": "Adam", "adamw": "AdamW", "momentum": "SGD", "sgd": "SGD", "rmsprop": "RMSprop"}


@pytest.mark.parametrize("optimiser", NAMES)
def test_a_family_is_tried_with_its_own_optimiser(optimiser):
    """Momentum is SGD with 9/10, sgd has none."""
    family = replace(DEVELOPMENT[0], optimiser=optimiser, lr=0.03)
    chosen = choose(options(family, 9), None, deep=True).optimiser
    momentum = ", momentum 0.9" if optimiser == "momentum" else ""
    assert str(chosen) == f"{NAMES[optimiser]} 0.03{momentum}"


def write(folder: Path, count: int) -> None:
    """A part of the zoo: records with a model file each."""
    kinds = [("faulty", "u10"), ("healthy", "trained"), ("healthy", "u10"), ("ambiguous", "u10")]
    inside = folder / "family"
    inside.mkdir(parents=True)
    for truth, condition in kinds:
        for i in range(count):
            stem = inside / f"{truth}-{condition}-{i}"
            record = {"id": stem.name, "part": folder.name, "condition": condition,
                      "activation": "tanh", "kind": "mlp" if i % 2 else "lstm",
                      "truth": truth}  # fmt: skip
            stem.with_suffix(".json").write_text(json.dumps(record))
            if i != 1:
                stem.with_suffix(".pt").touch()


def test_the_sample_is_stratified_mixed_and_the_same_for_the_same_seed(tmp_path):
    write(tmp_path / "dev", 40)
    found = pick([tmp_path / "dev"], 20, 3, slow=False)
    assert found == pick([tmp_path / "dev"], 20, 3, slow=False)
    assert found != pick([tmp_path / "dev"], 20, 4, slow=False)
    counts = {s: sum(stratum == s for _, stratum, _ in found) for s in STRATA}
    assert counts == {s: round(20 * SHARES[s]) for s in STRATA}
    assert {stratum for _, stratum, _ in found[:4]} == set(STRATA)  # what is broken off is a sample
    assert all(r["kind"] == "mlp" and not r["id"].endswith("-1") for _, _, r in found)


def test_what_is_counted():
    record = {"id": "a/b-0", "saved": 0.1, "untreated": 0.2, "twin": 0.9}
    row = Tried(record, "faulty", "sample", "healthy", "unhealthy", "w", "0.1 0.9", "SGD 0.1", 2.0)
    rows = [row, replace(row, plain="unhealthy", tried="undetermined")]
    rows += [replace(row, stratum="nothing planted", tried="healthy", chosen="wrong")]
    text = "\n".join(report(rows))
    sample, _, wrong = text.partition("## All others")
    assert "| faulty: called unhealthy | .500 (1/2;" in sample
    assert "1 undetermined |" in sample
    assert "| nothing planted: called unhealthy | .000 (0/1;" in wrong
    assert "0.10 0.20 0.90" in wrong


def test_every_stratum_is_a_truth_of_the_zoo():
    assert set(trials.SHARES) == set(STRATA)
    assert sum(SHARES.values()) == pytest.approx(1)

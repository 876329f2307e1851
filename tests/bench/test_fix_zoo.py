"""The tables about repairs of the zoo, from records made by hand; one model is really judged."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from itertools import islice

import pytest

from bench.fix_zoo import tables
from bench.zoo.build import Unit, build_unit
from bench.zoo.records import records
from bench.zoo.repairing import FAMILIES, SHARES, Task, judge, sample, stratum

BASE = {
    "part": "dev", "stratum": "faulty", "family": "mlp-tanh-wine", "kind": "mlp", "seed": 0,
    "truth": "faulty", "planted": True,
    "chance": 0.1, "saved": 0.1, "twin": 1.0, "outcome": "improved", "chosen": "kappa",
    "verdict": "unhealthy", "causes": ["large-parameters"], "right after": 0.5, "fixed": 0.96,
    "untreated": 0.2, "restart": 0.9, "early": 100, "fixed early": 0.8, "restart early": 0.7,
    "loss se": -9.0, "same bytes": False,
}  # fmt: skip
HEALTHY = {
    "stratum": "healthy", "truth": "healthy", "planted": False, "saved": 0.98, "fixed": 0.98,
    "loss se": 0.0,
}  # fmt: skip


def record(name: str, **changes) -> dict:
    return {**BASE, "id": name, "condition": name.partition("/")[2], **changes}


def test_each_question_has_its_answer():
    found = [
        record("a/u10-0"),
        record("a/u10-1", fixed=0.94, outcome="not improved"),
        record("a/n1-0", fixed=0.05, **{"loss se": 2.5}),
        record("a/converged-0", **HEALTHY, outcome="unchanged"),
        record("a/trained-0", **HEALTHY),
        record("a/n3-0", stratum="partly", saved=0.4),
        record("a/bias-0", **HEALTHY | {"stratum": "harmless"}, outcome="unchanged"),
        {"part": "dev", "id": "a/x30-0", "family": "a", "error": "MemoryError()"},
    ]
    text = tables(found, "said")
    assert "7 models judged; 1 failed" in text
    assert "- dev/a/x30-0: MemoryError()" in text
    assert "| faulty: reach 95% of the twin's held-out score, fix | .500 (2/4;" in text
    assert "| partly trained: reach 95% of the twin's held-out score, fix | 1.000 (1/1;" in text
    assert "more than 2 standard errors | .143 (1/7;" in text
    assert "healthy: unchanged | .500 (1/2;" in text
    assert "harmless: unchanged | 1.000 (1/1;" in text
    missed = text.partition("## Not reached")[2].partition("## Worse")[0]
    assert ("a/u10-1" in missed, "a/u10-0" in missed) == (True, False)
    changed = text.partition("## Healthy, changed")[2].partition("## Planted")[0]
    assert ("a/trained-0" in changed, "a/bias-0" in changed) == (True, False)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """One family with two of its conditions, as ``calibration.py build`` writes it."""
    family = replace(FAMILIES["mlp-hardtanh-wine"], healthy=("converged",), faults=("u10", "bias"))
    folder = tmp_path_factory.mktemp("zoo") / "dev"
    build_unit(Unit("dev", family, 0, folder / family.name))
    return folder


def test_time_is_kept(zoo, tmp_path):
    record = next(r for r in records(zoo) if r["condition"] == "u10")
    late = Task(record, tmp_path, time.time() - 1, False)
    assert judge(late)["error"] == "out of time"
    found = judge(replace(late, deadline=time.time() + 300, plain=True))
    assert found["twin"] > 0.9
    assert found["fixed"] == pytest.approx(found["saved"]) or found["outcome"] == "improved"
    assert {"plain", "restart"} <= found.keys() or found["truth"] != "faulty"


def test_a_part_of_the_models_is_a_sample_of_all(zoo, monkeypatch):
    """Wherever the run is cut off: the strata by their shares, and the families in turn."""
    made = [
        {"truth": truth, "planted": truth == "faulty" or i % 2 == 0, "saved": saved, "chance": 0.1,
         "family": f"family-{i % 5}", "path": str(zoo / "mlp-hardtanh-wine" / "u10-0"), "i": i}
        for truth in ("faulty", "healthy", "ambiguous") for saved in (0.1, 0.5) for i in range(40)
    ]  # fmt: skip
    monkeypatch.setattr("bench.zoo.repairing.records", lambda folder: made)
    some = list(islice(sample([zoo], 0), 20))
    assert Counter(map(stratum, some)) == {name: 2 * n for name, n in SHARES.items()}
    faulty = [r["family"] for r in some if stratum(r) == "faulty"]
    assert set(Counter(faulty).values()) == {1, 2}
    everything = list(sample([zoo], 0))
    assert len(everything) == sum(stratum(r) is not None for r in made)
    assert [r["i"] for r in sample([zoo], 1)] != [r["i"] for r in everything]

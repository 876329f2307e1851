"""The tables about repairs of the zoo, from records made by hand; one model is really judged."""

from __future__ import annotations

import time

import pytest

from bench.fix_zoo import tables
from bench.zoo.repairing import Task, judge, prepare

BASE = {
    "family": "mlp-tanh-wine", "kind": "mlp", "seed": 0, "truth": "faulty", "planted": True,
    "chance": 0.1, "saved": 0.1, "twin": 1.0, "outcome": "improved", "chosen": "kappa",
    "verdict": "unhealthy", "causes": ["large-parameters"], "right after": 0.5, "fixed": 0.96,
    "plain": 0.2, "restart": 0.9, "early": 100, "fixed early": 0.8, "restart early": 0.7,
    "loss se": -9.0, "same bytes": False,
}  # fmt: skip
HEALTHY = {"truth": "healthy", "planted": False, "saved": 0.98, "fixed": 0.98, "loss se": 0.0}


def record(name: str, **changes) -> dict:
    return {**BASE, "id": name, "condition": name.partition("/")[2], **changes}


def test_each_question_has_its_answer():
    found = [
        record("a/u10-0"),
        record("a/u10-1", fixed=0.94, outcome="not improved"),
        record("a/n1-0", fixed=0.05, **{"loss se": 2.5}),
        record("a/converged-0", **HEALTHY, outcome="unchanged"),
        record("a/trained-0", **HEALTHY),
        {"id": "a/x30-0", "family": "a", "condition": "x30", "error": "out of time"},
    ]
    text = tables(found, "said")
    assert "5 models judged; 1 not ended" in text
    assert "held-out score, fix | .333 (1/3;" in text
    assert "more than 2 standard errors | .200 (1/5;" in text
    assert "healthy: unchanged | .500 (1/2;" in text
    missed = text.partition("## Not reached")[2].partition("## Worse")[0]
    assert ("a/u10-1" in missed, "a/u10-0" in missed) == (True, False)
    assert "a/trained-0" in text.partition("## Healthy, changed")[2]


def test_time_is_kept(tmp_path):
    task = Task("mlp-hardtanh-wine", 0, "u10", tmp_path, time.time() + 300)
    prepare(task)
    late = Task("mlp-hardtanh-wine", 0, "u10", tmp_path, time.time() - 1)
    assert judge(late)["error"] == "out of time"
    found = judge(task)
    assert found["truth"] in ("faulty", "healthy", "ambiguous")
    assert found["fixed"] == pytest.approx(found["saved"]) or found["outcome"] == "improved"

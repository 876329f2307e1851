"""What a plain learner reaches: against the naive definition, and when there is none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gradscope import pipeline
from gradscope.diagnosis import Verdict, diagnose
from gradscope.findings import Skipped
from gradscope.measurements import Measurements, Reference, Skill
from gradscope.probe import reference
from gradscope.probe.reference import ROWS, _answers
from gradscope.rules import run_rules
from gradscope.rules.examples import measured, parameter, site, weight
from tests.support import sample_of

SAMPLES = Path(__file__).parent.parent.parent / "sample_models"
with np.load(SAMPLES / "digits.npz") as _file:
    DIGITS = tuple(torch.from_numpy(_file[name][:512]) for name in ("x", "y"))


def rows(n: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def rings() -> tuple[torch.Tensor, torch.Tensor]:
    """Inside or outside of a circle: no line tells them apart."""
    x = rows(300, 2)
    return x, (x.square().sum(1) > 1.4).long()


@pytest.mark.parametrize("ridge", [1e-2, 1e-5])
def test_the_closed_form_leaves_one_out(ridge):
    """Fitting to all others, one by one, gives the same answers."""
    x, y = rows(20, 6).double(), rows(20, 3, 1).double()
    kernel, n = x @ x.T, len(x)
    index = [1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6].index(ridge)
    found = list(_answers(kernel, y))[index]
    for i in range(n):
        others = [j for j in range(n) if j != i]
        inner = kernel[others][:, others] + ridge * n * torch.eye(n - 1, dtype=x.dtype)
        naive = kernel[i, others] @ torch.linalg.solve(inner, y[others])
        torch.testing.assert_close(found[i], naive)


def test_it_learns_what_can_be_learned_from_the_sample():
    assert reference(sample_of(*DIGITS), "cross-entropy").score > 0.9
    assert reference(sample_of(*rings()), "cross-entropy").score > 0.8
    linear = rows(200, 5)
    assert reference(sample_of(linear, linear @ rows(5, 2, 1)), "mse").score > 0.99


def test_it_learns_nothing_where_there_is_nothing():
    x = rows(300, 5)
    labels = torch.randint(0, 3, (300,), generator=torch.Generator().manual_seed(2))
    for y, kind in ((labels, "cross-entropy"), (rows(300, 1, 3), "mse")):
        found = reference(sample_of(x, y), kind)
        assert found.score < 3 * found.error


def test_what_is_repeated_tells_nothing_of_itself():
    """Labels without a meaning, each sample four times: it would be all right by its copies."""
    x, labels = (
        rows(100, 5),
        torch.randint(0, 3, (100,), generator=torch.Generator().manual_seed(2)),
    )
    for y, kind in ((labels, "cross-entropy"), (rows(100, 1, 3), "mse")):
        four = [t.repeat(4, *[1] * (t.dim() - 1)) for t in (x, y)]
        found, once = reference(sample_of(*four), kind), reference(sample_of(x, y), kind)
        assert found.score == pytest.approx(once.score, abs=1e-6)
        assert found.samples == once.samples == 100
    few = [t[:20].repeat(4, *[1] * (t.dim() - 1)) for t in (x, labels)]
    assert "20 different samples" in reference(sample_of(*few), "cross-entropy").reason


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_scale_and_offset_of_the_inputs_do_not_matter(scale):
    x, y = rings()
    found = reference(sample_of(x * scale + 3 * scale, y), "cross-entropy")
    assert found.score == pytest.approx(reference(sample_of(x, y), "cross-entropy").score, abs=0.02)


def test_it_looks_at_the_first_rows_only():
    x, y = rows(ROWS + 60, 4), torch.arange(ROWS + 60) % 2
    assert reference(sample_of(x, y), "cross-entropy").samples == ROWS


PAIR = (rows(64, 4), torch.arange(64) % 2)
UNFIT = {
    "tokens": (torch.randint(0, 9, (64, 5)), PAIR[1], "cross-entropy", "whole numbers"),
    "few": (PAIR[0][:20], PAIR[1][:20], "cross-entropy", "20 samples"),
    "wide": (torch.zeros(64, 1 << 15), PAIR[1], "cross-entropy", "32,768"),
    "alike": (torch.ones(64, 4), PAIR[1], "cross-entropy", "the same"),
    "one class": (PAIR[0], torch.zeros(64).long(), "cross-entropy", "one class"),
    "labels at every step": (PAIR[0], torch.zeros(64, 4).long(), "cross-entropy", "one label"),
    "constant": (PAIR[0], torch.ones(64, 1), "mse", "vary"),
    "itself": (PAIR[0], PAIR[0].clone(), "mse", "inputs themselves"),
    "a loss of the user's": (PAIR[0], PAIR[1], "losses.py:mine", "losses.py:mine"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_why_there_is_nothing_to_compare_with(name):
    x, y, kind, reason = UNFIT[name]
    found = reference(sample_of(x, y), kind)
    assert isinstance(found, Skipped)
    assert reason in found.reason


def partly_learned(ratio: float) -> Measurements:
    own = Skill(0.3, 0.02, 1.5, "cross-entropy", "", 0.4, True, 450, 0.1, 0.33, 0.02)
    relu = site("0/relu", kind="relu", saturated_fraction=None, shrink=None)
    large = tuple(parameter(f"{i}.weight", weight=weight(init_ratio=ratio)) for i in range(3))
    return measured(relu, parameters=large, skill=own)


def verdict(m: Measurements) -> Verdict:
    return diagnose(m, run_rules(m)).verdict


def test_it_is_measured_where_the_verdict_depends_on_it():
    m = partly_learned(6.0)
    assert verdict(m) is Verdict.HEALTHY
    found = pipeline._with_reference(m, sample_of(*DIGITS), {})
    assert found.reference.score > 0.9
    assert verdict(found) is Verdict.UNHEALTHY
    assert "plain learner" in diagnose(found, run_rules(found)).summary


@pytest.mark.parametrize(
    "m",
    [
        partly_learned(1.0),
        replace(partly_learned(6.0), skill=replace(partly_learned(1.0).skill, value=0.9)),
        replace(partly_learned(6.0), skill=replace(partly_learned(1.0).skill, value=0.0)),
    ],
    ids=["nothing wrong", "it works", "it has learned nothing"],
)
def test_elsewhere_it_costs_nothing(m, monkeypatch):
    def never(*_: object) -> Reference:
        raise AssertionError

    monkeypatch.setattr("gradscope.probe.reference", never)
    assert pipeline._with_reference(m, sample_of(*DIGITS), {}) == m


def test_a_reason_stands_in_for_it():
    few = tuple(a[:20] for a in DIGITS)
    found = pipeline._with_reference(partly_learned(6.0), sample_of(*few), {})
    assert found.reference is None
    assert "20 samples" in found.skipped[-1].reason
    assert verdict(found) is Verdict.HEALTHY

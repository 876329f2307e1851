"""What a repair prints."""

from __future__ import annotations

from gradscope.diagnosis import diagnose
from gradscope.report.treatment import as_text
from gradscope.treatment import Outcome, Planned, Stage, Treatment
from tests.report.examples import EXAMPLES, inspection

BEFORE = inspection(EXAMPLES["saturated"]())
PLAN = (Planned("kappa", "large weights"),)


def test_a_model_that_was_not_trained_has_no_row_for_it():
    stages = tuple(Stage(n, 0.5, 1.0, None, ()) for n in ("before", "kappa", "fine-tuned"))
    t = Treatment(
        Outcome.NOT_IMPROVED, "Not improved.", PLAN, BEFORE, stages=stages, recipe="Adam 0.001",
        samples=300, held_out="--val",
    )  # fmt: skip
    text = as_text(t, 80)
    assert "fine-tuned" not in text
    assert "Trained  not at all; scored on 300 held-out samples (--val)" in text


def test_no_two_blank_lines():
    summary = f"unhealthy: {diagnose(BEFORE.measurements, BEFORE.findings).summary}"
    text = as_text(Treatment(Outcome.PLANNED, summary, PLAN, BEFORE), 80)
    assert "\n\n\n" not in text


def test_the_outcome_is_said_once():
    t = Treatment(Outcome.IMPROVED, "Improved: accuracy 0.5 to 0.9.", PLAN, BEFORE)
    assert "IMPROVED  accuracy 0.5 to 0.9." in as_text(t, 80)

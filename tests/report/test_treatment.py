"""What a repair prints."""

from __future__ import annotations

import json
from dataclasses import replace

import jsonschema
import pytest

from gradscope.config import DataSettings, LoadSettings, Settings
from gradscope.diagnosis import diagnose
from gradscope.report.treatment import as_text
from gradscope.report.treatment_json import as_json
from gradscope.treatment import Contestant, Outcome, Placed, Planned, Stage, Treatment
from tests.renew_golden import FIX_SCHEMA
from tests.report.examples import EXAMPLES, inspection

BEFORE = inspection(EXAMPLES["saturated"]())
PLAN = (Planned("kappa", "large weights"),)
VALIDATOR = jsonschema.Draft202012Validator(json.loads(FIX_SCHEMA.read_text()))
RACE = (
    Contestant("restart", 0.1, 0.9, 50),
    Contestant("kappa", 0.25, 0.8, 50, "the loss is nan at step 7"),
    Contestant("plain training", None, None, 50),
    Contestant("polar", None, reason="cannot be applied: no layer of its own was found"),
)
RACED = Treatment(
    Outcome.IMPROVED, "Improved.", PLAN, BEFORE, race=RACE, chosen="restart", metric="accuracy"
)


def test_a_race_is_one_table():
    shown = as_text(RACED, 100).split("\n\n")
    assert shown[-2].splitlines() == [
        "Race              right after    best of 50 steps",
        " * restart              0.100               0.900",
        "   kappa                0.250               0.800  the loss is nan at step 7",
        "   plain training           -                   -",
        "   polar                    -                   -  "
        "cannot be applied: no layer of its own was found",
    ]


def test_a_race_that_some_ran_for_longer_names_no_number_of_steps():
    race = (replace(RACE[0], steps=100), *RACE[1:])
    assert "Race              right after     best on the way\n" in as_text(
        replace(RACED, race=race), 100
    )


def test_without_training_there_is_no_best_of_a_race():
    race = tuple(replace(c, best=None, steps=0) for c in RACE[:2])
    text = as_text(replace(RACED, race=race), 100)
    assert "Race              right after\n * restart              0.100\n" in text


SCALED = Stage(
    "alpha", 0.5, 1.0, 0.1, ("alpha 2 for 3 activations",),
    (
        Placed("0/tanh", "folded", "1/2 into 0.weight; 2 into 2.weight"),
        Placed("2/tanh", "explicit", "times 2 as a product of its own"),
        Placed("4/tanh", "left", "no weight can take its scale: a layer norm"),
    ),
)  # fmt: skip


def test_where_scales_went_is_counted():
    text = as_text(replace(RACED, stages=(SCALED,)), 100)
    assert "scales: 1 folded exactly, 1 explicit in the file, 1 left as it is" in text
    told = json.loads(as_json(replace(RACED, stages=(SCALED,))))
    VALIDATOR.validate(told)
    assert [p["state"] for p in told["stages"][0]["places"]] == ["folded", "explicit", "left"]


@pytest.mark.parametrize("t", [RACED, Treatment(Outcome.PLANNED, "p", PLAN, BEFORE)])
def test_what_programs_are_told_is_as_the_schema_says(t: Treatment):
    VALIDATOR.validate(json.loads(as_json(t)))


def test_the_schema_refuses_what_is_wrong():
    told = json.loads(as_json(RACED))
    del told["race"][0]["right_after"]
    assert not VALIDATOR.is_valid(told)


def test_a_model_that_was_not_trained_has_no_row_for_it():
    stages = tuple(Stage(n, 0.5, 1.0, None, ()) for n in ("before", "kappa", "fine-tuned"))
    t = Treatment(
        Outcome.NOT_IMPROVED, "Not improved.", PLAN, BEFORE, stages=stages, recipe="Adam 0.001",
        samples=300, held_out="--val",
    )  # fmt: skip
    text = as_text(t, 80)
    assert "fine-tuned" not in text
    assert "Trained  not at all; scored on 300 held-out samples (--val)" in text


def test_what_was_tried_is_a_race_of_several_only():
    assert "\nRemedy\n" in as_text(RACED, 80)
    both = (*PLAN, Planned("restart", "what any repair has to beat"))
    assert "\nRemedies tried\n" in as_text(replace(RACED, plan=both), 80)


def test_a_repaired_model_is_looked_at_beside_the_original():
    settings = Settings("net.pt", data=DataSettings("x.npz", "v.npz"))
    before = replace(BEFORE, settings=settings)
    lines = as_text(replace(RACED, before=before, written="new.pt"), 80).splitlines()
    assert "  gradscope inspect new.pt --data x.npz --val v.npz" in lines
    assert "  gradscope compare net.pt new.pt --data x.npz --val v.npz" in lines
    copied = Treatment(Outcome.UNCHANGED, "Nothing to repair.", (), before, written="new.pt")
    assert "gradscope compare" not in as_text(copied, 80)


@pytest.mark.parametrize(("trusted", "ending"), [(True, " --trust-model"), (False, "")])
def test_what_was_emitted_is_started_with_the_same_trust(trusted: bool, ending: str):
    settings = Settings("net.pt", LoadSettings(trust_model=trusted))
    before = replace(BEFORE, settings=settings)
    text = as_text(Treatment(Outcome.EMITTED, "Ready.", PLAN, before), 80, "net.pt.run")
    assert f"  gradscope fix --run net.pt.run{ending}\n" in text


def test_no_two_blank_lines():
    summary = f"unhealthy: {diagnose(BEFORE.measurements, BEFORE.findings).summary}"
    text = as_text(Treatment(Outcome.PLANNED, summary, PLAN, BEFORE), 80)
    assert "\n\n\n" not in text


def test_the_outcome_is_said_once():
    t = Treatment(Outcome.IMPROVED, "Improved: accuracy 0.5 to 0.9.", PLAN, BEFORE)
    assert "IMPROVED  accuracy 0.5 to 0.9." in as_text(t, 80)

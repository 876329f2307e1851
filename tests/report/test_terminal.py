"""Lines of the report in a terminal that depend on more than its numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gradscope.report import render
from tests.report.examples import EXAMPLES, inspection


@pytest.mark.parametrize(
    ("note", "said"),
    [
        (
            "64 of 900 samples, stratified by label, seed 3",
            "64 of 900 samples, stratified by label;",
        ),
        ("64 of 900 samples, at random, seed 3", "64 of 900 samples, at random, labels;"),
        ("the last batch is smaller", "64 of 900 samples, labels;"),
    ],
)
def test_how_samples_were_chosen_is_told_once(note, said):
    m = EXAMPLES["saturated"]()
    sample = replace(m.sample, samples=64, available=900, labels=True, notes=(note,))
    text = render("terminal", inspection(replace(m, sample=sample)), width=120)
    assert said in text
    assert ("note" in text) == note.startswith("the last")
    assert "seed 3" not in text


def test_no_note_is_left_out_in_silence():
    m = EXAMPLES["saturated"]()
    found = inspection(
        replace(m, model=replace(m.model, notes=tuple(f"thing {i}" for i in range(6))))
    )
    text = render("terminal", found)
    assert "thing 3" in text
    assert "thing 4" not in text
    assert "note  and 2 more (--all)" in text
    assert all(f"thing {i}" in render("terminal", found, all_layers=True) for i in range(6))

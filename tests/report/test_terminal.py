"""Lines of the report in a terminal that depend on more than its numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gradscope.measurements import Units
from gradscope.report import Canvas, render
from gradscope.report.terminal_page import Page
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


@pytest.mark.parametrize("width", [40, 60, 80])
def test_no_share_of_a_gate_is_cut(width: int):
    """A part of a number is another number."""
    found = inspection(EXAMPLES["recurrent"]())
    narrow, wide = (
        render("terminal", found, width=w).split("Gates, share")[1] for w in (width, 140)
    )
    told = [line.split("\n\n")[0].split() for line in (narrow, wide)]
    assert [w for w in told[0] if w.startswith(".")] == [w for w in told[1] if w.startswith(".")]


@pytest.mark.parametrize("bounded", [True, False])
def test_dead_units_stand_apart_from_the_ledger(bounded: bool):
    m = EXAMPLES["saturated"]()
    dead = replace(m.sites[0], units=Units(8, None, None, 3, (), (0, 1, 2)))
    others = (
        m.sites[1:]
        if bounded
        else tuple(replace(s, saturated_fraction=None, units=None) for s in m.sites[1:])
    )
    sites = (replace(dead, kind="relu", saturated_fraction=None), *others)
    lines = render("terminal", inspection(replace(m, sites=sites))).splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("Dead units"))
    assert lines[at - 1].startswith("Saturated") or (not lines[at - 1] and not bounded)


def test_a_whole_report_does_not_ask_for_itself():
    found = inspection(EXAMPLES["saturated"]())
    assert " --all\n" in render("terminal", found)
    assert " --all\n" not in render("terminal", found, all_layers=True)


def test_a_long_word_goes_on_in_the_next_line():
    m = EXAMPLES["saturated"]()
    path = "/".join(f"folder{i}" for i in range(30))
    found = inspection(replace(m, model=replace(m.model, notes=(f"read {path} twice",))))
    assert f"read{path}twice" in "".join(render("terminal", found).split())


@pytest.mark.parametrize(("last", "lines"), [(18, 1), (19, 2)])
def test_pieces_fill_a_line_to_its_last_column(last, lines):
    """Of 40 columns a word of 4, a piece of 15 and three spaces leave 18."""
    page = Page(Canvas(width=40))
    page.packed("of: ", ["a" * 15, "b" * last])
    assert len(page.text().rstrip().splitlines()) == lines

"""What is new, worse and gone, what is a regression, and what a trend is called."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradscope.checking.baseline import entry_of, is_worse
from gradscope.comparing import Figures, compare
from gradscope.diagnosis import Verdict
from gradscope.findings import Severity
from tests.comparing.examples import SETUP, subject
from tests.report.check_examples import LARGE, LOST, UNDERFLOW

HEALTHY, WARNING, UNHEALTHY, OPEN = (
    Verdict.HEALTHY, Verdict.WARNING, Verdict.UNHEALTHY, Verdict.UNDETERMINED,
)  # fmt: skip


def names(findings):
    return [f.code for f in findings]


def test_findings_are_new_worse_the_same_or_gone():
    first = subject(UNHEALTHY, replace(LOST, value=-3.0), UNDERFLOW, LARGE)
    new = replace(LARGE, where="layers.5.weight")
    change = compare([first, subject(UNHEALTHY, LOST, UNDERFLOW, new)], 0.1).changes[0]
    assert (names(change.new), [f.where for f in change.new]) == (["GS301"], ["layers.5.weight"])
    assert [(k.finding.code, k.value) for k in change.worse] == [("GS101", -3.0)]
    assert [k.finding.code for k in change.same] == ["GS106"]
    assert [(g.code, g.where) for g in change.gone] == [("GS301", LARGE.where)]


@pytest.mark.parametrize(
    ("first", "last", "regressions"),
    [
        ((HEALTHY,), (HEALTHY,), 0),
        ((HEALTHY,), (OPEN,), 1),
        ((HEALTHY,), (WARNING,), 1),
        ((OPEN,), (WARNING,), 0),
        ((WARNING,), (OPEN,), 0),
        ((WARNING,), (UNHEALTHY,), 1),
        ((UNHEALTHY,), (HEALTHY,), 0),
        ((HEALTHY,), (HEALTHY, UNDERFLOW), 0),  # information alone is none
        ((HEALTHY,), (HEALTHY, LARGE), 1),
        ((UNHEALTHY, LOST), (UNHEALTHY, LOST), 0),
        ((UNHEALTHY, LOST), (UNHEALTHY, replace(LOST, value=-6.5)), 0),  # within the tolerance
        ((UNHEALTHY, LOST), (UNHEALTHY, replace(LOST, value=-6.7)), 1),
        ((UNHEALTHY, LOST), (UNHEALTHY, replace(LOST, value=None)), 1),
        ((UNHEALTHY, LOST), (UNHEALTHY, replace(LOST, value=-3.0)), 0),
        ((UNHEALTHY, replace(LOST, severity=Severity.WARNING)), (UNHEALTHY, LOST), 1),
        ((UNHEALTHY, LOST), (UNHEALTHY, replace(LOST, severity=Severity.WARNING)), 0),
        ((HEALTHY, UNDERFLOW), (HEALTHY, replace(UNDERFLOW, value=1.0)), 0),
        ((HEALTHY,), (UNHEALTHY, LOST, LARGE), 3),
    ],
)
def test_what_a_regression_is(first, last, regressions):
    subjects = [subject(*first), subject(*last)]
    found = compare(subjects, 0.1)
    assert len(found.changes[0].regressions) == regressions
    assert (found.is_regression, found.exit_status) == (regressions > 0, 0)
    assert compare(subjects, 0.1, fails=True).exit_status == (regressions > 0)


@given(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3), st.floats(0, 1))
def test_graver_is_what_a_baseline_calls_worse(before, after, tolerance):
    one, other = replace(LOST, value=before), replace(LOST, value=after)
    change = compare([subject(UNHEALTHY, one), subject(UNHEALTHY, other)], tolerance).changes[0]
    assert bool(change.worse) == is_worse(other, entry_of(one), tolerance)


def test_each_later_one_is_compared_with_the_first():
    found = compare([subject(HEALTHY), subject(UNHEALTHY, LOST), subject(UNHEALTHY, LOST)], 0.1)
    assert [names(c.new) for c in found.changes] == [["GS101"], ["GS101"]]
    assert [c.letter for c in found.changes] == ["B", "C"]


def test_a_better_verdict_is_told():
    found = compare([subject(UNHEALTHY, LOST), subject(HEALTHY), subject(UNHEALTHY)], 0.1)
    assert [(c.verdict_better, c.verdict_worse) for c in found.changes] == [
        (True, False), (False, False),
    ]  # fmt: skip


def test_letters_go_on_after_z():
    found = compare([subject()] * 54, 0.1)
    assert [found.subjects[i].letter for i in (0, 25, 26, 27, 52, 53)] == [
        "A", "Z", "AA", "AB", "BA", "BB",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ((0.5, 0.5, 0.5), "steady"),
        ((0.5, 0.55, 0.46), "steady"),
        ((0.1, 0.2, 0.9), "rises"),
        ((-1.0, -3.0, -6.0), "falls"),
        ((0.1, 0.9, 0.1), "turns"),
        ((-6.0, -1.0, -6.0), "turns"),
        ((0.9, 0.1, 0.8), "turns"),  # never above the first one again
        ((0.1, 0.9, 0.2), "turns"),
        ((-6.0, -5.9, -5.8), "steady"),
        ((0.1, None, 0.5, 0.9), "rises"),
    ],
)
def test_trends_have_a_word(values, word):
    subjects = [subject(figures=Figures(skill=v)) for v in values]
    (trend,) = compare(subjects, 0.1).trends
    assert (trend.figure, trend.values, trend.word) == ("skill", values, word)


def test_two_have_no_trend_nor_have_numbers_that_were_not_measured():
    assert compare([subject(figures=Figures(skill=v)) for v in (0.1, 0.9)], 0.1).trends == ()
    assert compare([subject(figures=Figures(skill=v)) for v in (0.1, None, 0.9)], 0.1).trends == ()


def test_ledgers_are_joined_by_site():
    short, long = subject(left=(0.0, -1.0)), subject(left=(0.0, -1.0, -2.0, -3.0))
    rows = {row.label: row.left for row in compare([short, long], 0.1).rows}
    assert rows == {
        "6/tanh": (None, 0.0), "4/tanh": (None, -1.0), "2/tanh": (0.0, -2.0), "0/tanh": (-1.0, -3.0)
    }  # fmt: skip
    assert list(rows) == ["6/tanh", "4/tanh", "2/tanh", "0/tanh"]


def test_what_was_measured_otherwise_is_told():
    other = subject(setup=SETUP | {"data": "raw.npz"})
    (note,) = compare([subject(), other, subject()], 0.1).notes
    assert note.startswith("B was not measured as A was")
    assert "data (digits.npz; raw.npz)" in note
    assert "seed" not in note

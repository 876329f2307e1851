"""What counts: a table of verdicts, thresholds of failure, selections, ignores and baselines."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gradscope.checking import Entry, count_findings, refusal, summarise, unused
from gradscope.checking.baseline import entry_of
from gradscope.checking.counting import _why
from gradscope.config import CheckSettings, Ignore
from gradscope.findings import Severity
from tests.checking.examples import INSPECTIONS, LOST

# Verdicts, each with the statuses at --fail-on error, warning, undetermined, never.
CASES = {
    "healthy": (0, 0, 0, 0),
    "warning": (0, 1, 0, 0),
    "unhealthy": (1, 1, 1, 0),
    "undetermined, no labels": (0, 1, 1, 0),  # a warning that labels would settle
    "undetermined, made-up input": (0, 0, 1, 0),
    "undetermined, weights only": (0, 0, 1, 0),
}


@pytest.mark.parametrize("name", CASES)
def test_exit_status_by_verdict_and_fail_on(name: str):
    found = INSPECTIONS[name]
    levels = ("error", "warning", "undetermined", "never")
    statuses = [count_findings("m.pt", found, CheckSettings(level)).exit_status for level in levels]
    assert tuple(statuses) == CASES[name]


def test_nothing_measured_is_a_status_of_its_own():
    empty = INSPECTIONS["undetermined, weights only"]
    empty = replace(empty, measurements=replace(empty.measurements, parameters=()))
    model = count_findings("m.pt", empty, CheckSettings("never"))
    assert (model.exit_status, model.error) == (3, "nothing could be measured")


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [((0,), 0), ((0, 1), 1), ((1, 3, 0), 3), ((3, 2, 1), 2), ((0, 2), 2), ((), 0)],
)
def test_over_several_models_2_comes_before_3_before_1(statuses, expected):
    models = [replace(refusal("m.pt", "no", 2), exit_status=s) for s in statuses]
    assert summarise(models).exit_status == expected


# --- selected and ignored ----------------------------------------------------------------------

UNHEALTHY, SATURATED = INSPECTIONS["unhealthy"], INSPECTIONS["saturated"]


@pytest.mark.parametrize(
    ("found", "codes", "status"),
    [
        (UNHEALTHY, {"GS101"}, 1),
        (UNHEALTHY, {"GS203", "GS501"}, 0),
        (SATURATED, {"GS201"}, 1),
        (SATURATED, {"GS202"}, 0),  # a warning, and the verdict is the whole model's
        (SATURATED, set(), 0),
    ],
)
def test_a_rule_that_is_not_selected_counts_in_nothing(found, codes, status):
    model = count_findings("m.pt", found, CheckSettings(codes=frozenset(codes)))
    assert model.exit_status == status
    assert {f.code for f in model.counted} <= codes
    assert model.verdict is found.diagnosis.verdict, "the verdict that is told is the whole one"


@pytest.mark.parametrize(
    ("ignore", "is_ignored"),
    [
        (Ignore("GS101", "why"), True),
        (Ignore("GS101", "why", where="layers.0/*"), True),
        (Ignore("GS101", "why", where="layers.0/tanh ... layers.19/tanh"), True),
        (Ignore("GS101", "why", where="encoder.*"), False),
        (Ignore("GS101", "why", model="models/*.pt"), True),
        (Ignore("GS101", "why", model="other/*.pt"), False),
    ],
)
def test_an_ignore_is_about_a_rule_a_place_and_a_model(ignore, is_ignored, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "m.pt").touch()
    settings = CheckSettings(ignores=((ignore, frozenset({"GS101"})),))
    model = count_findings("models/m.pt", UNHEALTHY, settings)
    assert [i.reason for i in model.ignored] == (["why"] if is_ignored else [])
    assert model.exit_status == (0 if is_ignored else 1)
    applies = ignore.model != "other/*.pt"
    assert bool(list(unused(settings, [model]))) is (applies and not is_ignored)


def test_an_ignore_is_not_called_unused_where_nobody_looked():
    ignores = ((Ignore("GS203", "why"), frozenset({"GS203"})),)
    settings = CheckSettings(codes=frozenset({"GS101"}), ignores=ignores)
    model = count_findings("m.pt", UNHEALTHY, settings)
    assert list(unused(settings, [model])) == []
    everything = replace(settings, codes=None)
    assert list(unused(everything, [refusal("m.pt", "no", 2)])) == []
    assert len(list(unused(everything, [model]))) == 1


def test_brackets_in_a_place_can_be_written_as_they_are_printed():
    place = next(f.where for f in SATURATED.findings if f.code == "GS202")
    ignores = ((Ignore("GS202", "why", where=place), frozenset({"GS202"})),)
    model = count_findings("m.pt", SATURATED, CheckSettings(ignores=ignores))
    assert [i.finding.where for i in model.ignored] == [place]


# --- against a baseline ------------------------------------------------------------------------


def _entry(**given: object) -> Entry:
    return replace(entry_of(LOST), **given)


@pytest.mark.parametrize(
    ("entry", "tolerance", "kind"),
    [
        (_entry(), 0.1, "known"),
        (_entry(value=-5.0), 0.1, "known"),  # -5.3 is 6 % further
        (_entry(value=-5.0), 0.0, "worse"),
        (_entry(value=-4.5), 0.1, "worse"),
        (_entry(value=-9.0), 0.1, "known"),  # better
        (_entry(value=None), 0.1, "known"),
        (_entry(severity="warning"), 9.0, "worse"),
        (_entry(fingerprint="0" * 16), 0.1, "new"),
    ],
)
def test_a_known_finding_passes_unless_it_is_worse(entry, tolerance, kind):
    model = count_findings("m.pt", UNHEALTHY, CheckSettings(tolerance=tolerance), [entry])
    found = {"known": model.known, "worse": model.worse, "new": model.findings}
    assert [k for k, v in found.items() if v] == [kind]
    assert model.exit_status == (0 if kind == "known" else 1)
    assert [f.fingerprint for f in model.fixed] == (["0" * 16] if kind == "new" else [])


def test_accepting_makes_everything_known():
    model = count_findings("m.pt", SATURATED, CheckSettings("warning", accept=True))
    assert model.exit_status == 0
    assert model.counted == ()
    assert {k.finding.code for k in model.known} == {f.code for f in SATURATED.findings}


def test_an_entry_of_a_rule_that_is_not_selected_is_not_fixed():
    settings = CheckSettings(codes=frozenset({"GS101"}))
    gone = [_entry(code="GS203", fingerprint="0" * 16), _entry(fingerprint="1" * 16)]
    model = count_findings("m.pt", UNHEALTHY, settings, gone)
    assert [f.fingerprint for f in model.fixed] == ["1" * 16]


def test_what_is_ignored_now_is_not_fixed():
    ignores = ((Ignore("GS101", "why"), frozenset({"GS101"})),)
    model = count_findings("m.pt", UNHEALTHY, CheckSettings(ignores=ignores), [_entry()])
    assert (model.fixed, model.known, model.exit_status) == ((), (), 0)


def test_every_finding_stands_in_one_list_and_the_severest_is_told_first():
    model = count_findings("m.pt", SATURATED, CheckSettings(), [entry_of(SATURATED.findings[0])])
    lists = [*model.counted, *(k.finding for k in model.known)]
    assert sorted(lists, key=repr) == sorted(SATURATED.findings, key=repr)
    ranks = [f.severity.rank for f in model.counted]
    assert ranks == sorted(ranks, reverse=True)
    assert Severity.ERROR.rank in ranks


@pytest.mark.parametrize(
    ("failing", "said"), [(1, "1 finding that fails"), (2, "2 findings that fail")]
)
def test_what_fails_is_told_in_its_number(failing: int, said: str):
    assert _why(failing, INSPECTIONS["unhealthy"].diagnosis, True) == said

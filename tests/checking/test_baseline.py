"""A baseline is a ratchet: what it knows passes, it only tightens, and any file may be hostile."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradscope.checking import Baseline, Entry, ModelCheck, read_baseline, refusal
from gradscope.checking.baseline import (
    SCHEMA,
    BaselineError,
    accepted,
    as_text,
    compare,
    entry_of,
    is_worse,
    key_of,
    pruned,
)
from gradscope.checking.results import Fixed, Ignored, Known
from gradscope.findings import Finding, Severity
from tests.renew_golden import BASELINE_SCHEMA

FOUND = Finding("GS101", "vanishing-gradient", Severity.ERROR, "0/tanh", "lost", -6.0, -2.5)
ENTRY = entry_of(FOUND)

VALIDATOR = jsonschema.Draft202012Validator(json.loads(BASELINE_SCHEMA.read_text()))
NUMBERS = st.none() | st.floats(-1e6, 1e6)
FINDINGS = st.builds(
    replace, st.just(FOUND), severity=st.sampled_from(list(Severity)), value=NUMBERS,
    threshold=NUMBERS, about=st.sampled_from(["", "a", "b"]),
)  # fmt: skip


# --- what is worse -----------------------------------------------------------------------------


@given(FINDINGS)
def test_no_finding_is_worse_than_itself(found: Finding):
    """With no tolerance at all: the file keeps four digits, and five are not compared with them."""
    assert not is_worse(found, entry_of(found), 0.0)


@pytest.mark.parametrize(
    ("value", "threshold", "before", "worse"),
    [
        (-6.5, -2.5, -6.0, False),  # within a tenth
        (-6.7, -2.5, -6.0, True),
        (-5.0, -2.5, -6.0, False),
        (0.80, 0.5, 0.75, False),
        (0.90, 0.5, 0.75, True),
        (60.0, 5.0, 50.0, True),
        (4.0, 0.0, 3.0, True),  # a count, which should be 0
        (3.0, 0.0, 3.0, False),
        (1e-13, 1e-8, 4e-12, False),  # lower is worse, but it is nothing already
        (1e-9, 1e-8, 9e-9, True),
        (7.0, None, 1.0, False),  # no threshold: only the severity counts
        (None, -2.5, -6.0, True),  # nothing arrives any more
        (float("-inf"), -2.5, -6.0, True),
        (None, -2.5, None, False),
        (-6.0, -2.5, None, False),
    ],
)
def test_worse_is_further_beyond_the_threshold(value, threshold, before, worse):
    finding = replace(FOUND, value=value, threshold=threshold)
    assert is_worse(finding, replace(ENTRY, value=before), 0.1) is worse


@given(FINDINGS)
def test_a_finding_is_never_worse_than_its_own_entry(finding):
    assert not is_worse(finding, entry_of(finding), 1e-3)


@given(FINDINGS, FINDINGS, st.floats(0, 10), st.floats(0, 10))
def test_a_larger_tolerance_lets_more_pass(finding, before, one, other):
    entry, low, high = entry_of(before), min(one, other), max(one, other)
    assert is_worse(finding, entry, low) or not is_worse(finding, entry, high)


@given(st.lists(FINDINGS, max_size=4), st.lists(FINDINGS, max_size=4))
def test_each_finding_is_in_one_list_and_each_entry_known_worse_or_fixed(found, before):
    entries = [entry_of(f) for f in before]
    parts = compare(found, [], entries, 0.1)
    told = [*parts.new, *(k.finding for k in (*parts.worse, *parts.known))]
    assert sorted(map(repr, told)) == sorted(map(repr, found))
    there = {f.fingerprint for f in found}
    assert {f.fingerprint for f in parts.fixed} == {e.fingerprint for e in entries} - there


# --- the file ----------------------------------------------------------------------------------

ENTRIES = st.builds(
    Entry, st.text("0123456789abcdef", min_size=16, max_size=16), st.text(), st.text(), st.text(),
    st.sampled_from([s.value for s in Severity]), NUMBERS,
)  # fmt: skip


@given(st.dictionaries(st.text(), st.lists(ENTRIES, min_size=1, max_size=3), max_size=3))
def test_written_and_read_it_is_the_same_and_its_bytes_do_not_depend_on_the_order(models):
    plain = {k: tuple(v) for k, v in models.items()}
    turned = {k: tuple(reversed(v)) for k, v in reversed(plain.items())}
    text = as_text(Baseline(plain))
    assert all(text == as_text(Baseline(m)) for m in (plain, dict(reversed(plain.items()))))
    assert sorted(text.splitlines()) == sorted(as_text(Baseline(turned)).splitlines())
    text.encode("utf-8")
    VALIDATOR.validate(json.loads(text))


def test_it_can_be_read_again(tmp_path: Path):
    path = tmp_path / "b.json"
    before = Baseline({"m.pt": (ENTRY, replace(ENTRY, where="\ud800", value=None))})
    path.write_text(as_text(before))
    assert set(read_baseline(str(path)).models["m.pt"]) == set(before.models["m.pt"])


def test_numbers_are_rounded_and_paths_are_relative_to_the_file():
    assert entry_of(replace(FOUND, value=-5.9663321)).value == -5.966
    assert entry_of(replace(FOUND, value=float("nan"))).value is None
    assert key_of("a/models/m.pt", "a/ci/b.json") == "../models/m.pt"
    assert key_of("m.pt", "b.json") == "m.pt"


def _file(**given: object) -> str:
    return json.dumps({"schema": SCHEMA, "models": {}} | given)


def _with_entry(**given: object) -> str:
    fields = {
        "fingerprint": "0" * 16, "code": "GS101", "name": "n", "where": "w",
        "severity": "error", "value": 1.0,
    }  # fmt: skip
    return _file(models={"m.pt": [fields | given]})


HOSTILE = {
    "empty": "",
    "no JSON": "{",
    "not UTF-8": b"\xff\xfe{",
    "deep": "[" * 100_000,
    "deep in a model": '{"schema": "' + SCHEMA + '", "models": {"m": ' + "[" * 100_000,
    "a list": "[]",
    "another schema": _file(schema="gradscope.baseline/9"),
    "another file": '{"version": 2, "results": []}',
    "more keys": _file(more=1),
    "models are a list": _file(models=[]),
    "findings are an object": _file(models={"m.pt": {}}),
    "a finding is a number": _file(models={"m.pt": [3]}),
    "a finding lacks a key": _file(models={"m.pt": [{"fingerprint": "0"}]}),
    "a finding has more keys": _with_entry(more=1),
    "an unknown severity": _with_entry(severity="fatal"),
    "a severity that is a list": _with_entry(severity=[]),
    "a number as text": _with_entry(value="1"),
    "a truth as number": _with_entry(value=True),
    "NaN": _with_entry(value=float("nan")),
    "infinity": _with_entry(value=float("inf")),
    "too large a number": _with_entry(value=0).replace('"value": 0', '"value": 1e999'),
    "a huge integer": _with_entry(value=0).replace('"value": 0', '"value": 1' + "0" * 400),
    "digits without end": _with_entry(value=0).replace('"value": 0', '"value": 1' + "0" * 5000),
    "a place that is null": _with_entry(where=None),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_one_line(name: str, tmp_path: Path):
    path = tmp_path / "b.json"
    content = HOSTILE[name]
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BaselineError) as caught:
        read_baseline(str(path))
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 600


def test_the_schema_refuses_what_the_reader_refuses():
    jsonschema.Draft202012Validator.check_schema(VALIDATOR.schema)
    for name in ("a list", "another schema", "more keys", "a finding has more keys",
                 "a number as text", "a truth as number", "a place that is null"):  # fmt: skip
        content = HOSTILE[name]
        assert isinstance(content, str)
        assert not VALIDATOR.is_valid(json.loads(content)), name


def test_a_file_of_any_size_is_not_read_to_its_end(tmp_path: Path):
    path = tmp_path / "b.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse
    with pytest.raises(BaselineError, match="more than 16 MB"):
        read_baseline(str(path))
    with pytest.raises(BaselineError, match="--write-baseline makes one"):
        read_baseline(str(tmp_path / "gone.json"))
    with pytest.raises(BaselineError):
        read_baseline(str(tmp_path))


# --- renewing ----------------------------------------------------------------------------------

OTHER = replace(FOUND, where="2/tanh", about="")
GONE = Entry("0" * 16, "GS203", "dead-relu", "0/relu", "warning", 0.9)


def _known(finding: Finding, value: float | None = None) -> Known:
    return Known(finding, value, finding.severity)


def _fixed(entry: Entry) -> Fixed:
    return Fixed(entry.code, entry.name, entry.where, entry.fingerprint, entry.value)


def test_accepting_takes_all_that_counts_and_leaves_out_what_is_fixed_or_ignored():
    before = Baseline({"m.pt": (GONE, entry_of(OTHER)), "not-in-this-run.pt": (ENTRY,)})
    model = ModelCheck(
        "m.pt", 0, "", known=(_known(FOUND),), ignored=(Ignored(OTHER, "why"),),
        fixed=(_fixed(GONE),),
    )  # fmt: skip
    refused = refusal("broken.pt", "no", 2)
    assert accepted(before, [model, refused], "b.json").models == {
        "m.pt": (ENTRY,), "not-in-this-run.pt": (ENTRY,)
    }  # fmt: skip


def test_pruning_removes_what_is_fixed_and_tightens_and_never_loosens(tmp_path: Path):
    for name in ("m.pt", "refused.pt"):
        (tmp_path / name).touch()
    path = str(tmp_path / "b.json")
    looser = replace(OTHER, value=-6.3)  # passes, and yet
    before = Baseline({
        "m.pt": (GONE, replace(ENTRY, value=-9.0), entry_of(OTHER)),
        "refused.pt": (ENTRY,), "deleted.pt": (ENTRY,),
    })  # fmt: skip
    model = ModelCheck(
        str(tmp_path / "m.pt"), 0, "", known=(_known(FOUND), _known(looser)), fixed=(_fixed(GONE),)
    )
    after = pruned(before, [model, refusal(str(tmp_path / "refused.pt"), "no", 2)], path)
    assert after.models == {"m.pt": (ENTRY, entry_of(OTHER)), "refused.pt": (ENTRY,)}
    assert pruned(after, [model], path) == after

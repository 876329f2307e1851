"""Saved reports: read back as they were measured, and refused in one line where they are none."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from gradscope.comparing import ReportError, read_report, subject_of
from gradscope.report import render
from tests.report.examples import EXAMPLES, inspection

GOOD = json.loads(render("json", inspection(EXAMPLES["saturated"]())))
HUGE = 10**400


def changed(**values: object) -> str:
    """A report with other values."""
    return json.dumps(GOOD | values)


def without(key: str) -> str:
    return json.dumps({k: v for k, v in GOOD.items() if k != key})


def in_finding(**values: object) -> str:
    return changed(findings=[GOOD["findings"][0] | values])


BAD = {
    "no object": "{]",
    "empty object": "{}",
    "another schema": changed(schema="gradscope.check/1"),
    "a later schema": changed(schema="gradscope.report/2"),
    "schema is a list": changed(schema=["gradscope.report/1"]),
    "no verdict": without("verdict"),
    "no findings": without("findings"),
    "no activations": without("activations"),
    "an unknown verdict": changed(verdict="splendid"),
    "an unknown cause": changed(causes=["bad luck"]),
    "a cause that is none": changed(causes=[{}]),
    "findings are a number": changed(findings=3),
    "a finding is a list": changed(findings=[[]]),
    "a severity": in_finding(severity="fatal"),
    "a code": in_finding(code=7),
    "a name": in_finding(name="x\x1b[31m"),
    "another code": in_finding(code="::error::"),
    "a value": in_finding(value="much"),
    "a value is true": in_finding(value=True),
    "remedies": in_finding(remedies=[1]),
    "huge": in_finding(value=HUGE),
    "NaN": changed(ledger=None).replace('"ledger": null', '"ledger": NaN'),
    "infinite": in_finding(value=1).replace('"value": 1,', '"value": 1e999,'),
    "digits": changed().replace('"seed": 0', '"seed": ' + "9" * 5000),
    "deep": '{"schema": ' + "[" * 100_000,
    "parameters": changed(model=GOOD["model"] | {"parameters": 1.5}),
    "ledger": changed(ledger=[1]),
    "a model": changed(model=None),
    "cut off": changed()[: len(changed()) // 2],
    "not utf-8": '{"schema": "\udcff"}',
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_saved_report_is_the_inspection(name: str, tmp_path: Path):
    found = inspection(EXAMPLES[name]())
    path = tmp_path / "report.json"
    path.write_text(render("json", found))
    saved, live = read_report(str(path)), subject_of(str(path), found)
    assert saved is not None
    assert saved.saved
    for field in ("verdict", "summary", "causes", "figures", "setup", "places", "parameters"):
        assert getattr(saved, field) == getattr(live, field), field
    assert [f.fingerprint for f in saved.findings] == [f.fingerprint for f in live.findings]
    if name not in ("broken", "odd-names"):  # JSON has neither infinity nor half a character
        assert saved.findings == live.findings


@pytest.mark.parametrize(
    ("total", "median", "of_median"), [(-1.0, -2.0, True), (-2.0, -1.0, False), (-1.0, -1.0, True)]
)
def test_what_is_left_is_of_the_one_that_lost_more(total, median, of_median, tmp_path: Path):
    found = inspection(EXAMPLES["vanishing"]())
    m = found.measurements
    ledger = replace(
        m.heads[0].ledger,
        total=total,
        median=median,
        entries=tuple(
            replace(e, cumulative=-1.0, cumulative_median=-2.0) for e in m.heads[0].ledger.entries
        ),
    )
    changed = replace(m, heads=(replace(m.heads[0], ledger=ledger), *m.heads[1:]))
    found = replace(found, measurements=changed)
    path = tmp_path / "report.json"
    path.write_text(render("json", found))
    for subject in (read_report(str(path)), subject_of("model.pt", found)):
        assert subject is not None
        assert {p.left for p in subject.places} == {-2.0 if of_median else -1.0}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_report_is_refused_in_one_line(name: str, tmp_path: Path):
    path = tmp_path / "report.json"
    path.write_bytes(BAD[name].encode("utf-8", "surrogateescape"))
    with pytest.raises(ReportError) as caught:
        read_report(str(path))
    text = str(caught.value)
    assert caught.value.exit_status == 2
    assert text.count("\n") == 0
    assert len(text) < len(str(path)) + 400
    assert "--format json" in text


def test_a_file_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gradscope.comparing.saved.MOST_BYTES", 1000)
    path = tmp_path / "report.json"
    path.write_text(changed())
    with pytest.raises(ReportError, match="more than"):
        read_report(str(path))


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\3\4", b"\x80\2}q\0.", b'{\0\0\0\0\0\0\0{"a": 1}', b'  {"weight_map": {}}', b"[1]"],
)
def test_what_looks_like_a_model_is_left_to_its_loader(content: bytes, tmp_path: Path):
    path = tmp_path / "model"
    path.write_bytes(content)
    assert read_report(str(path)) is None


@pytest.mark.parametrize("path", ["nowhere.json", ".", "pipe", "pipe/report.json", "a\0b"])
def test_what_is_no_file_is_left_to_the_loader(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)
    assert read_report(path) is None

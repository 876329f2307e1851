"""The formats terminal, concise and JSON of ``gradscope check``, on every kind of result."""

from __future__ import annotations

import json
import re
from html import unescape

import jsonschema
import pytest

from gradscope.diagnosis import Verdict
from gradscope.findings import Severity
from gradscope.report import CHECK_FORMATS, Canvas, check_format
from gradscope.report.text import safe
from tests.renew_golden import CHECK_ENDINGS, CHECK_SCHEMA
from tests.report.check_examples import CHECKS, result
from tests.report.check_examples import model as checked

VALIDATOR = jsonschema.Draft202012Validator(json.loads(CHECK_SCHEMA.read_text()))
FORMATS = ("terminal", "concise", "json")
of_all = pytest.mark.parametrize("name", CHECKS)


def rendered(form: str, name: str, canvas: Canvas | None = None) -> str:
    """An example in a format."""
    return check_format(form).render(CHECKS[name](), canvas or Canvas())


def test_every_format_has_golden_files():
    assert {*CHECK_ENDINGS, "html"} == set(CHECK_FORMATS)


def test_an_undetermined_model_that_passes_says_what_would_settle_it():
    found = checked(
        "models/b.onnx", 0, "nothing that fails", Verdict.UNDETERMINED, settle="--data FILE"
    )
    text = check_format("terminal").render(result(found), Canvas())
    assert "What would settle it: --data FILE." in text
    assert "Nothing fails." in text


@of_all
def test_the_page_tells_all_lets_nothing_run_and_asks_for_nothing(name: str):
    found, text = CHECKS[name](), rendered("html", name)
    assert "default-src 'none'" in text
    assert not re.search(r'<script|(src|href)="(?!#|data:,)', text)
    assert len(text) < 200_000
    shown = unescape(text)
    for one in found.models:
        assert safe(one.why) in shown
        for finding in one.counted:
            assert safe(finding.message) in shown


@pytest.mark.parametrize("form", CHECK_FORMATS)
def test_a_format_goes_by_its_name(form: str):
    assert check_format(form).name == form


@of_all
@pytest.mark.parametrize("form", FORMATS)
def test_same_result_same_bytes_and_no_control_character(form: str, name: str):
    text = rendered(form, name)
    assert text == rendered(form, name)
    assert text.endswith("\n")
    assert all(c.isprintable() or c == "\n" for c in text)


def test_the_schema_is_a_schema_and_strict():
    jsonschema.Draft202012Validator.check_schema(VALIDATOR.schema)
    assert VALIDATOR.schema["additionalProperties"] is False
    assert all(d["additionalProperties"] is False for d in VALIDATOR.schema["$defs"].values())


@of_all
def test_json_is_valid_and_has_the_exit_status(name: str):
    report = json.loads(rendered("json", name))
    VALIDATOR.validate(report)
    assert report["summary"]["exit_status"] == CHECKS[name]().summary.exit_status
    report["models"][0]["verdict"] = "fine"
    assert not VALIDATOR.is_valid(report)


@of_all
@pytest.mark.parametrize("width", [40, 80, 160])
def test_no_line_is_wider_than_asked_but_for_commands(name: str, width: int):
    check = CHECKS[name]()
    commands = {f"  {safe(command)}" for command, _ in check.next}
    lines = rendered("terminal", name, Canvas(width)).splitlines()
    assert max(len(line) for line in lines if line not in commands) <= width


@of_all
def test_ascii_only_where_the_stream_knows_no_more(name: str):
    assert rendered("terminal", name, Canvas(unicode=False)).isascii()


@of_all
def test_the_terminal_tells_errors_and_warnings_and_counts_information(name: str):
    text = rendered("terminal", name)
    for model in CHECKS[name]().models:
        for finding in model.counted:
            assert (finding.code in text) or finding.severity is Severity.INFORMATION
        told = [f for f in model.findings if f.severity is Severity.INFORMATION]
        assert not told or f"{len(told)} information" in text


@of_all
def test_concise_has_a_line_for_each_thing_that_counts_and_one_of_summary(name: str):
    found = CHECKS[name]()
    lines = rendered("concise", name).splitlines()
    counted = sum(len(m.counted) for m in found.models if m.error is None)
    extra = sum(1 if m.error is not None else len(m.fixed) + m.verdict_counts for m in found.models)
    assert len(lines) == counted + extra + len(found.notes) + 1

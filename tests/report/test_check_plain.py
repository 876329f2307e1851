"""The formats terminal, concise and JSON of ``gradscope check``, on every kind of result."""

from __future__ import annotations

import json

import jsonschema
import pytest

from gradscope.findings import Severity
from gradscope.report import CHECK_FORMATS, Canvas, check_format
from gradscope.report.text import safe
from tests.renew_golden import CHECK_ENDINGS, CHECK_SCHEMA
from tests.report.check_examples import CHECKS

VALIDATOR = jsonschema.Draft202012Validator(json.loads(CHECK_SCHEMA.read_text()))
FORMATS = ("terminal", "concise", "json")
of_all = pytest.mark.parametrize("name", CHECKS)


def rendered(form: str, name: str, canvas: Canvas | None = None) -> str:
    """An example in a format."""
    return check_format(form).render(CHECKS[name](), canvas or Canvas())


def test_every_format_has_golden_files():
    assert set(CHECK_ENDINGS) == set(CHECK_FORMATS)


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

"""What machines read of a check: valid by the formats' own rules, stable, safe from any name."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import jsonschema
import junitparser
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from gradscope.checking import CheckResult
from gradscope.diagnosis import Verdict
from gradscope.findings import Severity
from gradscope.report import Canvas, check_format
from gradscope.report.text import safe
from tests.report.check_examples import (
    CHECKS,
    HOSTILE,
    LARGE,
    LOST,
    compared,
    hostile,
    model,
    result,
)

WRITABLE = HOSTILE.replace("\ud800", "")
"""Without the half of a surrogate pair, which a reader cannot give back."""
FORMATS = ("sarif", "junit", "github", "markdown", "gitlab")
SCHEMA = json.loads(
    (Path(__file__).parent / "schemas" / "sarif-schema-2.1.0.json").read_text(encoding="utf-8")
)
SARIF = jsonschema.Draft4Validator(SCHEMA, format_checker=jsonschema.FormatChecker())


def test_github_gets_what_fails_before_what_does_not():
    passes = model("a.pt", 0, "nothing that fails", Verdict.WARNING, findings=(LARGE,))
    fails = model("b.pt", 1, "open", Verdict.UNDETERMINED, verdict_counts=True)
    lines = rendered("github", result(passes, fails, fail_on="undetermined")).splitlines()
    assert [line.partition(",")[0] for line in lines[:2]] == [
        "::warning file=b.pt", "::warning file=a.pt"
    ]  # fmt: skip


def rendered(name: str, check: CheckResult) -> str:
    """A check in a format."""
    return check_format(name).render(check, Canvas())


def named(text: str) -> CheckResult:
    """A check whose every text is this."""
    plain = hostile()
    first = plain.models[0]
    bad = replace(LOST, where=text, message=text)
    models = (
        replace(first, path=f"m/{text}.pt", why=text, summary=text, advice=text, findings=(bad,),
                ignored=(replace(first.ignored[0], finding=bad, reason=text),), known=()),
    )  # fmt: skip
    return replace(plain, models=models, notes=(text,), next=((text, text),))


# --- all of them -------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("check", CHECKS)
def test_same_result_same_bytes_and_no_absolute_path(name, check):
    text = rendered(name, CHECKS[check]())
    assert text == rendered(name, CHECKS[check]())
    assert text.endswith("\n")
    assert "/somewhere" not in text
    text.encode("utf-8")  # no half of a surrogate pair


@pytest.mark.parametrize("name", FORMATS)
def test_no_control_character_gets_through(name):
    text = rendered(name, hostile())
    assert all(c.isprintable() or c == "\n" for c in text)


@pytest.mark.parametrize("name", ["sarif", "gitlab"])
def test_a_fingerprint_does_not_depend_on_the_number(name):
    def fingerprints(value: float) -> list[str]:
        found = replace(LOST, value=value, message=f"{value} decades")
        check = result(replace(compared().models[0], findings=(found,), worse=(), known=()))
        return re.findall(r'(?:"gradscope/v1"|"fingerprint"): "([0-9a-f]{32})"',
                          rendered(name, check))  # fmt: skip

    assert fingerprints(-6.0) == fingerprints(-7.5)
    assert len(fingerprints(-6.0)) == len(set(fingerprints(-6.0))) > 0


@pytest.mark.parametrize("name", ["sarif", "gitlab"])
def test_one_finding_in_two_models_has_two_fingerprints(name):
    one = model("a.pt", 1, "1", Verdict.UNHEALTHY, findings=(LOST,))
    text = rendered(name, result(one, replace(one, path="b.pt")))
    found = re.findall(r'(?:"gradscope/v1"|"fingerprint"): "(\w+)"', text)
    assert len(set(found)) == 2


# --- SARIF -------------------------------------------------------------------


@pytest.mark.parametrize("check", CHECKS)
def test_sarif_is_valid(check):
    log = json.loads(rendered("sarif", CHECKS[check]()))
    SARIF.validate(log)
    run = log["runs"][0]
    rules = run["tool"]["driver"]["rules"]
    assert all(rule["help"]["text"] for rule in rules)
    for found in run["results"]:
        if "ruleIndex" in found:
            assert rules[found["ruleIndex"]]["id"] == found["ruleId"]
        place = found["locations"][0]["physicalLocation"]["artifactLocation"]
        assert run["artifacts"][place["index"]]["location"]["uri"] == place["uri"]
        assert place["uriBaseId"] in run["originalUriBaseIds"]


def test_the_schema_refuses_what_is_wrong():
    log = json.loads(rendered("sarif", compared()))
    log["runs"][0]["results"][0]["level"] = "fatal"
    assert not SARIF.is_valid(log)


def test_sarif_tells_known_worse_and_ignored_findings_apart():
    run = json.loads(rendered("sarif", compared()))["runs"][0]
    by_rule = {r["ruleId"]: r for r in run["results"]}
    assert by_rule["GS101"]["baselineState"] == "updated"
    assert "(baseline: -3.1)" in by_rule["GS101"]["message"]["text"]
    assert by_rule["GS301"]["baselineState"] == "unchanged"
    suppressed = by_rule["GS106"]["suppressions"][0]
    assert suppressed["justification"] == "trained in bfloat16, see #12"
    assert by_rule["GS101"]["suppressions"] == []


def test_without_a_baseline_there_is_no_state():
    run = json.loads(rendered("sarif", CHECKS["unhealthy"]()))["runs"][0]
    assert not any("baselineState" in r for r in run["results"])
    assert [r["level"] for r in run["results"]] == ["note", "error", "error", "warning", "note"]
    assert run["invocations"][0]["exitCode"] == 1
    assert run["invocations"][0]["executionSuccessful"] is True


def test_a_refused_model_is_a_failed_execution_and_no_result():
    run = json.loads(rendered("sarif", CHECKS["refused"]()))["runs"][0]
    invocation = run["invocations"][0]
    assert run["results"] == []
    assert invocation["executionSuccessful"] is False
    told = [n["message"]["text"] for n in invocation["toolExecutionNotifications"]]
    assert told[0].startswith("is broken: ")


def test_sarif_names_files_so_that_they_are_found():
    run = json.loads(rendered("sarif", CHECKS["unhealthy"]()))["runs"][0]
    uris = [a["location"]["uri"] for a in run["artifacts"]]
    assert uris == ["models/a.pt", "models/deep%20net.pt"]


@settings(deadline=None)
@example(WRITABLE)
@given(st.text(max_size=40))
def test_any_text_stands_in_sarif(text):
    log = json.loads(rendered("sarif", named(text)))
    SARIF.validate(log)
    found = log["runs"][0]["results"][1]
    raw = found["message"]["text"]
    assert not set("{}") & set(raw.replace("{{", "").replace("}}", ""))
    said = raw.replace("{{", "{").replace("}}", "}").replace("]\\(", "](")
    assert said == f"{safe(text)}: {safe(text)}" or "\\(" in text
    uri = found["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert unquote(uri) == safe(f"m/{text}.pt")


# --- JUnit -------------------------------------------------------------------


@pytest.mark.parametrize("check", CHECKS)
def test_another_reader_understands_junit(check):
    expected = CHECKS[check]()
    read = junitparser.JUnitXml.fromstring(rendered("junit", expected).encode())
    assert len(list(read)) == len(expected.models)
    written = (read.tests, read.failures, read.errors, read.skipped)
    read.update_statistics()  # counted anew
    assert written == (read.tests, read.failures, read.errors, read.skipped)
    for suite, one in zip(read, expected.models, strict=True):
        assert suite.tests >= 1
        assert (suite.failures > 0) == (one.exit_status == 1)
        assert (suite.errors > 0) == (one.exit_status in (2, 3))


def test_junit_skips_what_is_ignored_and_passes_what_is_known():
    read = junitparser.JUnitXml.fromstring(rendered("junit", compared()).encode())
    cases = {case.name.split()[0]: case for suite in read for case in suite}
    assert isinstance(cases["GS101"].result[0], junitparser.Failure)
    assert isinstance(cases["GS106"].result[0], junitparser.Skipped)
    assert cases["GS106"].result[0].message == "ignored: trained in bfloat16, see #12"
    assert not cases["GS301"].result
    assert cases["GS301"].system_out.startswith("known to the baseline, ")


@settings(deadline=None)
@example(WRITABLE)
@given(st.text(max_size=40))
def test_any_text_stands_in_junit(text):
    read = junitparser.JUnitXml.fromstring(rendered("junit", named(text)).encode())
    suite = next(iter(read))
    case = list(suite)[1]
    assert suite.name == safe(f"m/{text}.pt")
    assert case.name == f"GS101 vanishing-gradient: {safe(text)}"
    assert case.result[0].message == safe(text)


# --- GitHub ------------------------------------------------------------------


def read_command(line: str) -> tuple[str, dict[str, str], str]:
    """As the runner reads it: up to the next ``::``, properties by commas, then unescaped."""
    head, _, data = line.removeprefix("::").partition("::")
    command, _, properties = head.partition(" ")
    pairs = (p.partition("=") for p in properties.split(",") if p)
    found = {k: _plain(v.replace("%3A", ":").replace("%2C", ",")) for k, _, v in pairs}
    return command, found, _plain(data)


def _plain(text: str) -> str:
    return text.replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%")


def test_annotations_say_what_counts_the_gravest_first():
    *lines, summary = rendered("github", CHECKS["unhealthy"]()).splitlines()
    commands = [read_command(line) for line in lines]
    assert [c[0] for c in commands] == ["error", "error", "warning", "notice", "notice"]
    assert commands[1][1] == {"file": "models/deep net.pt", "title": "GS101 vanishing-gradient"}
    assert commands[2][2] == "layers.3.weight[17,:]: 46 times its usual size: 100%, or so"
    assert "100%25" in lines[2]
    findings = "1 error, 1 warning, 2 information"
    assert summary == f"2 models: 1 unhealthy, 1 healthy; {findings}; status 1"


def test_known_and_ignored_findings_are_not_annotated():
    text = rendered("github", compared())
    assert "GS101" in text
    assert "title=GS301" not in text
    assert "title=GS106" not in text


@settings(deadline=None)
@example(WRITABLE)
@given(st.text(max_size=40))
def test_no_text_begins_a_workflow_command_of_its_own(text):
    *lines, summary = rendered("github", named(text)).split("\n")[:-1]
    assert len(lines) == 3
    assert not summary.startswith("::")
    command, properties, data = read_command(lines[0])
    assert command == "error"
    assert properties["file"] == safe(f"m/{text}.pt")
    assert set(properties) == {"file", "title"}
    assert data == f"the model: unhealthy: {safe(text)}"


# --- GitLab ------------------------------------------------------------------

# What GitLab's documentation asks of each entry; it publishes no schema.
ISSUE = {
    "type": "object",
    "required": ["description", "check_name", "fingerprint", "severity", "location"],
    "properties": {
        "description": {"type": "string", "minLength": 1},
        "check_name": {"type": "string", "pattern": "^gradscope/"},
        "fingerprint": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
        "severity": {"enum": ["info", "minor", "major", "critical", "blocker"]},
        "location": {
            "type": "object",
            "required": ["path", "lines"],
            "properties": {
                "path": {"type": "string", "pattern": "^(?!\\./|/)"},
                "lines": {
                    "type": "object",
                    "required": ["begin"],
                    "properties": {"begin": {"type": "integer", "minimum": 1}},
                },
            },
        },
    },
}


@pytest.mark.parametrize("check", CHECKS)
def test_gitlab_gets_what_it_asks_for(check):
    issues = json.loads(rendered("gitlab", CHECKS[check]()))
    jsonschema.validate(issues, {"type": "array", "items": ISSUE})
    assert len({i["fingerprint"] for i in issues}) == len(issues)


def test_a_healthy_model_has_no_issue():
    assert json.loads(rendered("gitlab", CHECKS["healthy"]())) == []


def test_gitlab_severities():
    issues = json.loads(rendered("gitlab", CHECKS["refused"]()))
    assert [i["severity"] for i in issues] == ["blocker", "blocker"]
    issues = json.loads(rendered("gitlab", CHECKS["unhealthy"]()))
    assert [i["severity"] for i in issues] == ["info", "critical", "critical", "major", "info"]


# --- Markdown ----------------------------------------------------------------

OURS = re.compile(r"</?details( open)?>|<summary>.*</summary>")


def read_page(text: str) -> tuple[list[list[str]], list[str]]:
    """(rows of all tables as text, pieces of HTML) as a reader of markdown sees them."""
    rows: list[list[str]] = []
    pieces: list[str] = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "html_block":
            pieces += token.content.strip().splitlines()
        elif token.type == "inline":
            kinds = {child.type for child in token.children}
            assert kinds <= {"text", "text_special", "strong_open", "strong_close",
                             "softbreak"}, kinds  # fmt: skip
            if token.level == 4:  # in a cell
                rows[-1].append("".join(child.content for child in token.children))
    return rows, pieces


@pytest.mark.parametrize("check", CHECKS)
def test_markdown_is_read_as_it_is_meant(check):
    expected = CHECKS[check]()
    rows, pieces = read_page(rendered("markdown", expected))
    assert all(OURS.fullmatch(piece) for piece in pieces if piece)
    assert all(len(row) in (5, 7) for row in rows)
    models = [row for row in rows if len(row) == 7][1:]
    assert len(models) == len(expected.models)
    assert "✅" in rendered("markdown", CHECKS["healthy"]()).splitlines()[0]


@settings(deadline=None)
@example(WRITABLE)
@given(
    st.text(max_size=40)
    | st.sampled_from(
        [HOSTILE, "| a", "- a", "1. a", "# a", "> a", "---", "a\\", "\\|", "www.a.b", "*x*"]
    )
)
def test_any_text_stands_in_a_cell(text):
    page = rendered("markdown", named(text))
    rows, pieces = read_page(page)
    assert all(OURS.fullmatch(piece) for piece in pieces if piece)
    models = [row for row in rows if len(row) == 7][1:]
    assert models[0][0] == safe(f"m/{text}.pt").strip()
    found = [row for row in rows if len(row) == 5][1]
    assert found[2] == found[3] == safe(text).strip()
    notes = re.findall(r"(?m)^- (.*)$", page)
    for note in notes:
        tokens = MarkdownIt("commonmark").parse(note)
        assert [token.type for token in tokens] in (
            ["paragraph_open", "inline", "paragraph_close"], [])  # fmt: skip
    summary = next(p for p in pieces if p.startswith("<summary>"))
    assert unescape(summary[9:-10]) == safe(f"m/{text}.pt")


def test_a_long_list_is_cut_and_says_so():
    many = tuple(replace(LOST, where=f"{i}/tanh", severity=Severity.WARNING) for i in range(600))
    text = rendered("markdown", result(model("a.pt", 0, "none", Verdict.WARNING, findings=many)))
    assert "and 550 more" in text
    assert len(text) < 20_000


def test_commands_can_be_pasted():
    check = replace(CHECKS["unhealthy"](), next=(("gradscope inspect 'a```b.pt'", "all"),))
    tokens = MarkdownIt().parse(rendered("markdown", check))
    fence = next(t for t in tokens if t.type == "fence")
    assert fence.content == "# all\ngradscope inspect 'a```b.pt'\n"

"""What a comparison says in every format: valid, stable, safe from any name."""

from __future__ import annotations

import json
import re
from itertools import pairwise

import jsonschema
import junitparser
import pytest
from markdown_it import MarkdownIt

from gradscope.comparing import Figures, compare
from gradscope.report import COMPARE_FORMATS, Canvas, compare_format
from tests.comparing.examples import COMPARISONS, checkpoints, hostile, refused, subject, worse
from tests.renew_golden import COMPARE_SCHEMA
from tests.report.test_check_formats import SARIF

VALIDATOR = jsonschema.Draft202012Validator(json.loads(COMPARE_SCHEMA.read_text()))


def rendered(name: str, comparison, canvas: Canvas | None = None) -> str:
    return compare_format(name).render(comparison, canvas or Canvas())


@pytest.mark.parametrize("format_", COMPARE_FORMATS)
@pytest.mark.parametrize("name", COMPARISONS)
def test_same_comparison_same_bytes(format_: str, name: str):
    text = rendered(format_, COMPARISONS[name]())
    assert text == rendered(format_, COMPARISONS[name]())
    assert text.endswith("\n")
    assert "\x1b" not in text


@pytest.mark.parametrize("name", COMPARISONS)
def test_json_follows_its_schema(name: str):
    jsonschema.Draft202012Validator.check_schema(VALIDATOR.schema)
    VALIDATOR.validate(json.loads(rendered("json", COMPARISONS[name]())))


def test_the_schema_is_strict():
    content = json.loads(rendered("json", worse()))
    for broken in (
        content | {"more": 1},
        {k: v for k, v in content.items() if k != "changes"},
        content | {"subjects": content["subjects"][:1]},
    ):
        assert not VALIDATOR.is_valid(broken)


@pytest.mark.parametrize("name", COMPARISONS)
def test_sarif_and_junit_are_valid(name: str):
    SARIF.validate(json.loads(rendered("sarif", COMPARISONS[name]())))
    tests = junitparser.JUnitXml.fromstring(rendered("junit", COMPARISONS[name]()).encode())
    # Without --fail-on-regression nothing fails.
    assert bool(tests.failures or tests.errors) == bool(COMPARISONS[name]().exit_status)


@pytest.mark.parametrize("name", COMPARISONS)
@pytest.mark.parametrize("width", [40, 80, 160])
def test_no_line_is_wider_than_asked_but_for_commands(name: str, width: int):
    text = rendered("terminal", COMPARISONS[name](), Canvas(width))
    shown, _, _ = text.partition("\nWhat now")
    assert max(map(len, shown.splitlines())) <= width


def test_ascii_where_the_stream_knows_no_more():
    for make in COMPARISONS.values():
        assert rendered("terminal", make(), Canvas(unicode=False)).isascii()


def test_numbers_of_any_length_stay_apart():
    figures = Figures(-123.4, -1e3, 0.5, -12345.678, 1.0, 2.6e-4)
    both = [subject(figures=figures), subject(figures=Figures(0.1, 0.1, 0.1, 0.9, 0.9, 0.1))]
    lines = rendered("terminal", compare(both, 0.1)).splitlines()
    head, row = next((a, b) for a, b in pairwise(lines) if "verdict" in a)
    assert len(row.split()) == len(head.split()) + 1  # and the letter
    assert "2.6e-04" in row.split()


def test_numbers_of_a_trend_stay_apart():
    figures = (Figures(skill=-6.5e4 - i, loss=1.5e5 + i) for i in range(3))
    text = rendered("terminal", compare([subject(figures=f) for f in figures], 0.1))
    rows = [line.split() for line in text.split("Trend\n")[1].split("\n\n")[0].splitlines()]
    assert [len(row) for row in rows] == [5, 5]


def test_all_unfolds_every_place():
    folded = rendered("terminal", checkpoints())
    every = rendered("terminal", checkpoints(), Canvas(all_layers=True))
    assert "places" in folded
    assert len(re.findall(r"^\d+/tanh ", every, re.M)) == 40


@pytest.mark.parametrize("format_", ["sarif", "junit", "github", "gitlab", "concise"])
def test_formats_of_a_check_tell_what_is_new_and_worse(format_: str):
    text = rendered(format_, worse())
    assert "layers.5.weight" in text
    assert "GS101" in text
    if format_ in ("github", "gitlab"):
        assert "GS106" not in text  # known, and no worse


@pytest.mark.parametrize("format_", COMPARE_FORMATS)
def test_what_was_refused_is_told_with_its_reason(format_: str):
    text = rendered(format_, refused())
    shown = "".join(text.replace("\\", "").split())
    for path, reason in (("runs/a.pt", "does not exist"), ("runs/c.pt", "nothing could be")):
        assert path in text
        assert reason.replace(" ", "") in shown
    assert "nothing got worse" not in text.lower()


def test_the_first_that_could_be_served_stands_in_for_the_first():
    found = refused()
    assert [s.letter for s in found.subjects] == ["B", "D"]
    assert "compared with B" in found.notes[0]
    assert found.exit_status == 2


def test_the_page_lets_nothing_run_and_asks_for_nothing():
    text = rendered("html", hostile())
    assert "<script" not in text
    assert "default-src 'none'" in text
    assert not re.search(r'(src|href)="(?!#|data:,)', text)
    assert "&lt;script&gt;" in text
    assert len(text) < 200_000


def test_markdown_has_no_tag_and_no_link_of_a_model():
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(
        rendered("markdown", hostile())
    )  # fmt: skip
    assert "<script>" not in html
    assert "<a " not in html

"""The report as a notebook shows it: a fragment of a page that is whole and runs nothing."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from gradscope.report.notebook import as_html
from tests.report.examples import EXAMPLES, inspection


class _Checked(HTMLParser):
    """Fails on tags that are not closed and on everything that runs or fetches."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag, attrs):
        assert tag not in ("script", "img", "link", "iframe", "style"), tag
        assert all(name == "style" or name == "class" for name, _ in attrs), attrs
        assert all("url(" not in (value or "") for _, value in attrs), attrs
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def page(found) -> _Checked:
    """The notebook's fragment, parsed."""
    parser = _Checked()
    parser.feed(as_html(found))
    parser.close()
    assert not parser.open
    return parser


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_notebook_shows_every_report(name):
    found = inspection(EXAMPLES[name]())
    text = " ".join(page(found).texts)
    assert found.diagnosis.verdict.value.upper() in text
    assert found.diagnosis.summary in text
    assert all(f.code in text for f in found.findings[:20])
    assert len(as_html(found)) < 40_000


def test_the_notebook_s_longest_bar_has_300_pixels():
    found = as_html(inspection(EXAMPLES["vanishing"]()))
    bars = re.findall(r"white-space:nowrap.>(.*?)</span></", found)
    widths = [sum(map(int, re.findall(r"width:(\d+)px", bar))) for bar in bars]
    assert 296 <= max(widths) <= 303  # each of its parts is rounded


def test_the_notebook_escapes_names():
    bad = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&\x1b[31m"
    found = inspection(EXAMPLES["vanishing"]())
    model = replace(found.measurements.model, path=bad)
    findings = tuple(replace(f, where=bad, message=bad) for f in found.findings)
    parsed = page(replace(found, measurements=replace(found.measurements, model=model),
                          findings=findings))  # fmt: skip
    assert any("<script>" in text for text in parsed.texts)
    assert "\x1b" not in as_html(replace(found, findings=findings))

"""The page as bytes: the same each time, of a bounded size, whole or absent; what it leaves out."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradscope.cli.main import main
from gradscope.diagnosis import Inspection
from gradscope.report import render
from gradscope.report.html.bounded import MOST_LAYERS, MOST_PARAMETERS, bounded, spread
from tests.bad_requests import good_files
from tests.renew_screenshots import FOLDER, MOST_BYTES, VIEWS
from tests.report.examples import EXAMPLES, inspection
from tests.report.pages import HOSTILE, MADE, MEASURED, deep, hostile


class Reader(HTMLParser):
    """What a browser would see: elements with their attributes, and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.mark.parametrize("name", EXAMPLES)
def test_same_inspection_same_bytes(name: str):
    one, two = (render("html", inspection(EXAMPLES[name]())) for _ in range(2))
    assert one == two
    assert one.endswith("</html>\n")


def test_same_bytes_in_another_process():
    code = "import hashlib;from tests.report.pages import deep;from gradscope.report import render;"
    code += "print(hashlib.sha256(render('html', deep(20)).encode()).hexdigest())"
    done = [
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[2])},
        ).stdout
        for seed in ("1", "2")
    ]
    assert done[0] == done[1]
    assert len(done[0].strip()) == 64


@pytest.mark.parametrize("layers", [500, 2000])
def test_no_number_of_layers_takes_more_than_six_megabytes(layers: int):
    assert len(render("html", deep(layers)).encode()) <= 6e6


def test_what_is_left_out_of_a_large_model_is_said_and_is_not_what_findings_name():
    whole = deep(MOST_LAYERS + 200)
    every = whole.measurements.parameters
    plain = bounded(replace(whole, findings=()))[0].measurements.parameters
    out = next(p.name for p in every if p not in plain)
    less, said = bounded(replace(whole, findings=(replace(whole.findings[0], where=out),)))
    kept = less.measurements.parameters
    assert (len(plain), len(kept)) == (MOST_PARAMETERS, MOST_PARAMETERS)
    assert out in {p.name for p in kept}
    assert (kept[0], kept[-1]) == (every[0], every[-1])
    assert said["parameters"].startswith("1,000 of 1,400 parameters are shown")
    page = render("html", whole)
    assert said["parameters"] in page
    assert said["ledger"] in page
    assert bounded(deep(10))[1] == dict.fromkeys(said, "")


@given(st.integers(0, 50), st.integers(0, 20))
def test_a_spread_has_both_ends_and_nothing_twice(n: int, most: int):
    found = spread(range(n), most)
    assert len(found) == min(n, most)
    assert found == sorted(set(found))
    if most > 1 and n:
        assert (found[0], found[-1]) == (0, n - 1)


def test_there_is_a_small_picture_of_each_kind():
    expected = {FOLDER / f"{name}-{view}.png" for name in MEASURED for view in VIEWS}
    assert set(FOLDER.glob("*.png")) == expected
    assert all(picture.stat().st_size < MOST_BYTES for picture in expected)


def test_it_refers_to_nothing_outside():
    reader = Reader(render("html", deep(3)))
    for tag, attributes in reader.tags:
        assert "src" not in attributes, tag
        link = attributes.get("href") or "#"
        assert link.startswith("#") or link == "data:,", link


def test_only_its_own_scripts_may_run():
    reader = Reader(render("html", hostile()))
    scripts = [attributes for tag, attributes in reader.tags if tag == "script"]
    assert len(scripts) == 3
    policy = next(a["content"] for t, a in reader.tags if t == "meta" and "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "unsafe-inline" not in policy.partition("style-src")[0]
    assert not [a for _, a in reader.tags if any(name.startswith("on") for name in a)]


def test_names_are_text():
    text = render("html", hostile())
    reader = Reader(text)
    shown = "".join(reader.texts)
    for name in HOSTILE[:5]:
        assert name in shown
    assert "window.pwned = 2'>" not in text
    assert "49" not in re.findall(r"<title>(.*?)</title>", text)[0]
    assert not set("\u202e\x1b\u2028") & set(text)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (MADE["weights-only"], "no architecture; --arch FILE.py:factory"),
        (lambda: inspection(EXAMPLES["recurrent"]()), "hidden activations: 0, and a ratio needs"),
        (lambda: deep(2), "a vector has none"),
        (MADE["broken"], "not all weights are finite"),
        (MADE["residual"], "the data have no labels"),
    ],
)
def test_what_was_not_measured_has_its_reason(make: Callable[[], Inspection], reason: str):
    text = render("html", make())
    assert "not measured" in text
    assert reason in "".join(Reader(text).texts)


def test_the_terminal_needs_no_plotly():
    code = "from gradscope.report import render;from tests.report.examples import *;import sys;"
    code += "found = inspection(EXAMPLES['healthy']());render('terminal', found);"
    code += "assert not {'plotly', 'jinja2'} & set(sys.modules);"
    code += "render('html', found);assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    good_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


GOOD = ["inspect", "model.pt", "--data", "data.npz"]


def test_to_stdout_and_to_a_file_alike(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main([*GOOD, "--format", "html", "--output", "html:page.html"]) == 0
    printed = capsys.readouterr().out
    assert printed == (folder / "page.html").read_text(encoding="utf-8")


def test_several_reports_of_one_run(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main([*GOOD, "--output", "html:page.html", "--output", "json:report.json"]) == 0
    assert (folder / "page.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert (folder / "report.json").read_text(encoding="utf-8").startswith("{")
    assert "What now" in capsys.readouterr().out


@pytest.mark.parametrize(
    "target", ["html:", "html:model.pt", "html:nowhere/page.html", "json:data.npz"]
)
def test_nothing_is_written_over_or_in_part(
    folder: Path, target: str, capsys: pytest.CaptureFixture[str]
):
    before = {p: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    assert main([*GOOD, "--output", "html:page.html", "--output", target]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert before == {p: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def test_one_file_is_not_two_reports(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main([*GOOD, "--output", "html:a", "--output", "json:a"]) == 2
    assert "named twice" in capsys.readouterr().err
    assert main([*GOOD, "--out", "a", "--output", "json:a"]) == 2
    assert "named twice" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["html", "html:"])
def test_a_format_without_a_file_is_no_output_of_the_model(
    text: str, folder: Path, capsys: pytest.CaptureFixture[str]
):
    assert main([*GOOD, "--output", text]) == 2
    err = capsys.readouterr().err
    assert f"--output: '{text}' names no file. Give it as html:FILE" in err

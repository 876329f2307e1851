"""The guide in ``docs/``: every command in it is run, and what it quotes is printed."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from gradscope.cli.main import main

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [DOCS / "index.md", *sorted((DOCS / "guide").glob("*.md"))]
BLOCK = re.compile(r"(?:<!-- status (\d) -->\n)?```(sh|text)\n(.*?)```", re.S)
NUMBER = re.compile(r"[-+]?\d*\.?\d+(?:e[-+]?\d+)?")


def blocks(page: Path) -> Iterator[tuple[str, int, list[str]]]:
    """(sh or text, status of the last command, lines)."""
    for status, kind, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        yield kind, int(status or 0), text.splitlines()


def words(line: str) -> str:
    """Without its numbers, whose last digits are a machine's own, nor the bars that they make."""
    return " ".join(re.sub(r"[█▓░]+", "", NUMBER.sub("#", line)).split())


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_commands_do_what_the_page_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    shutil.copytree(ROOT / "sample_models", tmp_path / "sample_models")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    printed: list[str] = []
    for kind, status, lines in blocks(page):
        if kind == "text":
            missing = [line for line in lines if words(line) not in printed]
            assert not missing
            continue
        for i, line in enumerate(lines):
            program, *arguments = shlex.split(line)
            assert program == "gradscope", line
            expected = status if i == len(lines) - 1 else 0
            assert main(arguments) == expected, line
        printed = [words(line) for line in capsys.readouterr().out.splitlines()]


def test_five_pages_at_most_all_in_the_navigation():
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    guide = [path for entry in nav[0]["Guide"] for path in entry.values()]
    assert {DOCS / path for path in guide} == set(PAGES)
    assert len(guide) <= 5
    rules = [DOCS / path for path in nav[2]["Rules"]]
    assert set(rules) == set((DOCS / "rules").glob("*.md"))


def test_links_lead_to_files():
    """Also those that leave ``docs/``, which mkdocs does not see."""
    for page in DOCS.rglob("*.md"):
        text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.S)
        for target in re.findall(r"\]\(([^)#\s]+)", text):
            assert "://" in target or (page.parent / target).exists(), f"{page}: {target}"


def test_no_command_is_left_unmarked():
    """What is typed stands in a block that is run."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"^```\n[^`]*^gradscope ", text, re.M), page


def test_it_builds_without_a_warning(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    for page in PAGES:
        built = tmp_path / page.relative_to(DOCS).with_suffix(".html")
        text = built.read_text(encoding="utf-8")
        assert not re.search(r'<(?:script|link|img)[^>]*(?:src|href)="https?:', text), page

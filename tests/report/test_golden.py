"""Reports as they are printed; ``make golden`` renews the files."""

from __future__ import annotations

from pathlib import Path

import pytest

from gradscope.report import render
from tests.renew_golden import GOLDEN, golden_files
from tests.report.examples import EXAMPLES, inspection

FILES = golden_files()


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_as_before(path: Path):
    assert path.read_text(encoding="utf-8") == FILES[path]


def test_no_golden_file_is_left_over():
    assert set(GOLDEN.iterdir()) <= set(FILES)


def test_twenty_layers_fit_on_one_screen():
    for name in ("healthy", "vanishing"):
        text = render("terminal", inspection(EXAMPLES[name]()), width=80)
        assert len(text.splitlines()) <= 45


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("width", [40, 80, 160])
def test_no_line_is_wider_than_asked_but_for_commands(name: str, width: int):
    text = render("terminal", inspection(EXAMPLES[name]()), width=width)
    lines = [line for line in text.splitlines() if not line.startswith("  gradscope ")]
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize("name", EXAMPLES)
def test_names_cannot_write_to_the_terminal(name: str):
    text = render("terminal", inspection(EXAMPLES[name]()), width=80)
    assert "\x1b" not in text
    assert "\x07" not in text


def test_all_unfolds_every_layer():
    found = inspection(EXAMPLES["deep"]())
    folded = render("terminal", found, width=80)
    every = render("terminal", found, width=80, all_layers=True)
    assert "layers alike" in folded
    assert "layers alike" not in every
    assert all(f"layers.{i}/tanh" in every for i in range(300))


def test_ascii_only_where_the_stream_knows_no_more():
    for make in EXAMPLES.values():
        assert render("terminal", inspection(make()), unicode=False).isascii()

"""``docs/check.md`` says what is so."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from gradscope.cli.layers import PER_MODEL, WHOLE_RUN, Layers
from gradscope.report import CHECK_FORMATS, check_format
from gradscope.rules import check_limits, codes_of
from gradscope.settings_file import find_settings, keys

PAGE = (Path(__file__).parents[2] / "docs" / "check.md").read_text(encoding="utf-8")


def test_its_settings_are_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    blocks = re.findall(r"```toml\n(.*?)```", PAGE, re.S)
    (tmp_path / "pyproject.toml").write_text(blocks[0])
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "encoder_1.safetensors").touch()
    monkeypatch.chdir(tmp_path)
    file = find_settings()
    assert set(check_limits(file.rules, "page")) == {"GS101", "GS203"}
    layers = Layers({}, file)
    assert layers.whole_run()["fail-on"].value == "warning"
    assert layers.of_model("models/encoder_1.safetensors")["arch"].value == "nets.py:encoder"
    (tmp_path / "pyproject.toml").write_text(blocks[1])
    (ignore,) = find_settings().ignores
    assert (codes_of(ignore.rule, "page"), ignore.where) == ({"GS203"}, "encoder.*")


def test_every_key_and_its_default_is_in_the_table():
    rows = [line.split("|")[1:-1] for line in PAGE.splitlines() if line.startswith("| `")]
    told = {
        key: (default.strip(), row[3].strip() == "yes")
        for row in rows
        if len(row) == 4
        for key, default in zip(
            re.findall(r"`([a-z-]+)`", row[0]), row[1].split(",") * 8, strict=False
        )
    }
    assert set(told) == {*keys.PER_MODEL, *keys.WHOLE_RUN, "ignore"}
    assert set(keys.PER_MODEL) == {k for k, (_, per_model) in told.items() if per_model}
    assert set(PER_MODEL) - {"trust-model"} == set(keys.PER_MODEL)
    assert set(WHOLE_RUN) - {"ignore"} == set(keys.WHOLE_RUN)
    for key, value in {**PER_MODEL, **WHOLE_RUN}.items():
        if isinstance(value, str | float | int) and not isinstance(value, bool):
            assert told[key][0] == str(value), key


def test_every_format_is_in_the_table():
    assert set(re.findall(r"^\| `(\w+)` \| [^|]+ \|$", PAGE, re.M)) == set(CHECK_FORMATS)
    documents = {name for name in CHECK_FORMATS if check_format(name).document}
    said = re.search(r"\n(.*) are whole documents", PAGE)
    assert said is not None
    assert set(re.findall(r"`(\w+)`", said[1])) == documents


def test_toml_blocks_are_toml():
    for block in re.findall(r"```toml\n(.*?)```", PAGE, re.S):
        tomllib.loads(block)

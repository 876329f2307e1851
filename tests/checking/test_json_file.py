"""JSON from a file that may be anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from gradscope.checking.json_file import read_json


def test_as_many_bytes_as_are_allowed_are_read_and_no_more(tmp_path: Path):
    path = tmp_path / "numbers.json"
    path.write_text("[1, 2]")
    assert read_json(str(path), 6) == [1, 2]
    with pytest.raises(ValueError, match="more than"):
        read_json(str(path), 5)

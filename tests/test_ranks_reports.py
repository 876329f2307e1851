"""Every number of a report is the same, whether one process made it or three."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.forked import run
from tests.ranks_reports import CASES, SIZE, reported
from tests.test_ranks import TOLERANCE, _numbers

OF_ALL = re.compile(r"(forward|backward)_passes$")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The reports of three processes."""
    out = tmp_path_factory.mktemp("reports")
    run("tests.ranks_reports", out, 180)
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(SIZE)]


@pytest.mark.parametrize("name", CASES)
def test_a_report_does_not_tell_how_many_made_it(name: str, shared: list[dict[str, Any]]) -> None:
    alone = dict(_numbers(json.loads(json.dumps(reported(name)))))
    for found in shared:
        report = dict(_numbers(found[name]))
        assert report.keys() == alone.keys()
        wrong = {p: (report[p], v) for p, v in alone.items() if not _same(p, report[p], v)}
        assert not wrong


def _same(place: str, shared: object, alone: object) -> bool:
    if OF_ALL.search(place):
        return True  # counted over all processes
    if isinstance(alone, float) and isinstance(shared, float):
        return shared == pytest.approx(alone, rel=TOLERANCE, abs=TOLERANCE)
    return shared == alone


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("images, held-out data", "sample_skill"),
        ("images, held-out data", "inputs"),
        ("images, held-out data", "findings"),
        ("tokens", "attention"),
        ("sequences", "activations"),
    ],
)
def test_the_reports_hold_what_is_to_be_merged(
    name: str, part: str, shared: list[dict[str, Any]]
) -> None:
    """Else the comparison would show nothing."""
    assert shared[0][name][part]

"""Words and numbers of the terminal."""

from __future__ import annotations

import pytest

from gradscope.report.text import decades, shorten_places


@pytest.mark.parametrize(
    ("value", "expected"),
    [(-5.84, "-5.8"), (-0.04, "0.0"), (-0.06, "-0.1"), (None, "-"), (float("nan"), "-")],
)
def test_nothing_lost_has_no_sign(value, expected):
    assert decades(value) == expected


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("0/relu[3, 4, 5]", 15, "0/relu[3, 4, 5]"),
        ("0/relu[3, 4, 5]", 14, "0/relu[3, ...]"),
        ("0/relu[3, 4, 5, ...] and 1 more", 30, "0/relu[3, 4, ...] and 1 more"),
        ("0.weight, 2.weight, head.bias", 25, "0.weight, 2.weight, ..."),
        ("0.weight, 2.weight, ... and 2 more", 30, "0.weight, ... and 2 more"),
        ("encoder.layers.11.weight", 15, "encode...weight"),
        ("an, odd [name, with] all, of, them]", 20, "an, odd ...all, ...]"),
    ],
)
def test_a_list_of_places_loses_whole_places(text, width, expected):
    found = shorten_places(text, width)
    assert len(found) <= width
    assert found == expected

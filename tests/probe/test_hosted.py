"""Statistics that are brought to the CPU together, and counts that need not wait for a device."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from gradscope.probe.hosted import count, count_in_lanes, to_host
from gradscope.probe.stats import ForwardStats, Moments, hosted


@given(st.lists(st.integers(0, 6), max_size=200))
def test_counts_in_lanes_are_those_of_bincount(numbers: list[int]) -> None:
    bins = torch.tensor(numbers, dtype=torch.int32)
    expected = torch.bincount(bins, minlength=7)
    assert torch.equal(count_in_lanes(bins, 7), expected)
    assert torch.equal(count(bins, 7), expected)


def test_what_is_on_the_cpu_stays_as_it_is() -> None:
    tensors = [torch.ones(2), torch.zeros(3, dtype=torch.int64)]
    assert all(a is b for a, b in zip(to_host(tensors), tensors, strict=True))


def test_every_tensor_of_a_statistic_comes_along_and_in_its_place() -> None:
    moments = (Moments(3, torch.rand(2), torch.rand(2)), Moments())
    whole = ForwardStats(
        6, 3, torch.tensor([1, 2]), None, torch.tensor(3.0), torch.tensor(4.0), torch.tensor(5.0),
        torch.tensor(0), moments, torch.arange(8),
    )  # fmt: skip
    for stats in (whole, ForwardStats()):
        (found,) = hosted([stats])
        assert found == stats
    one, two = hosted([whole, ForwardStats(2, out_square=torch.tensor(9.0))])
    assert one.moments[0].m2 is moments[0].m2
    assert two.out_square == 9.0

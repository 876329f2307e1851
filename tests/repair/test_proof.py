"""When a repaired model counts as better: by its answers, or by few answers and their losses."""

from __future__ import annotations

import pytest
import torch

from gradscope.repair.compare import is_proven
from gradscope.repair.training import Scored


def _scored(right: int, of: int, loss: float, spread: float = 0.1) -> Scored:
    points = torch.zeros(of, dtype=torch.float64)
    points[:right] = 1
    noise = torch.linspace(-spread, spread, of, dtype=torch.float64)
    return Scored(points, loss + noise)


@pytest.mark.parametrize(
    ("before", "after", "proven"),
    [
        pytest.param(_scored(200, 400, 2.0), _scored(380, 400, 0.1), True, id="by its answers"),
        pytest.param(_scored(34, 40, 0.8), _scored(38, 40, 0.2), True, id="by four, and the loss"),
        pytest.param(
            _scored(34, 40, 0.4), _scored(38, 40, 0.35, spread=2.0), False, id="by four alone"
        ),
        pytest.param(_scored(34, 40, 0.8), _scored(34, 40, 0.2), False, id="by the loss alone"),
        pytest.param(_scored(34, 40, 0.8), _scored(33, 40, 0.2), False, id="an answer lost"),
        pytest.param(_scored(38, 40, 0.2), _scored(34, 40, 0.8), False, id="worse"),
        pytest.param(
            _scored(8, 40, 9.0), _scored(13, 40, 1.1), False, id="from wrong to undecided"
        ),
        pytest.param(
            _scored(34, 40, float("inf")), _scored(38, 40, 0.2), False, id="a loss without measure"
        ),
    ],
)
def test_better_is_beyond_chance(before: Scored, after: Scored, proven: bool) -> None:
    assert is_proven(after, before, room=1.0, floor=0.5) is proven

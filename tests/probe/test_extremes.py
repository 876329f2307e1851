"""What the rules need beyond the reference table: inputs, outliers, use, the first NaN, time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from gradscope.probe.outliers import outliers
from gradscope.probe.rounds import alone
from tests.support import measured

near = lambda value: pytest.approx(value, rel=1e-9, abs=1e-12)  # noqa: E731


# --- inputs ---------------------------------------------------------------------------------


def columns(shape: tuple[int, ...], axis: int) -> torch.Tensor:
    """Columns of scales 1, 10, 100, ... around means 0, 5, 10, ..."""
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64).movedim(axis, -1)
    k = torch.arange(shape[axis], dtype=torch.float64)
    return (x * 10**k + 5 * k).movedim(-1, axis).contiguous()


INPUTS = {
    "rows": (lambda: nn.Linear(4, 3), (9, 4), 1),
    "sequences": (lambda: nn.Linear(4, 3), (9, 5, 4), 2),
    "images": (lambda: nn.Sequential(nn.Conv2d(3, 2, 3), nn.Tanh(), nn.Flatten()), (9, 3, 6, 6), 1),
    "signals": (lambda: nn.Sequential(nn.Conv1d(3, 2, 3), nn.Tanh(), nn.Flatten()), (9, 3, 7), 1),
}


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("batch_size", [9, 4])
def test_inputs_per_feature(name: str, batch_size: int):
    make, shape, axis = INPUTS[name]
    x = columns(shape, axis)
    (found,) = measured(make().double(), x, batch_size=batch_size).inputs
    rows = x.movedim(axis, -1).reshape(-1, shape[axis]).numpy()
    rms = np.sqrt((rows**2).mean(0))
    assert found.features == shape[axis]
    assert found.rms == near(math.sqrt((rows**2).mean()))
    assert found.mean == near(rows.mean())
    assert found.typical_rms == near(np.sort(rms)[(len(rms) - 1) // 2])
    assert found.nonfinite_fraction == 0
    order = np.argsort(-rms)
    assert [f.index for f in found.largest] == order.tolist()
    assert [f.mean for f in found.largest] == near(rows.mean(0)[order].tolist())
    assert [f.sd for f in found.largest] == near(rows.std(0)[order].tolist())


def test_nan_in_an_input_is_counted_and_spoils_only_its_feature():
    x = columns((8, 3), 1)
    x[2, 1] = torch.nan
    (found,) = measured(nn.Linear(3, 2).double(), x).inputs
    assert found.nonfinite_fraction == near(1 / 24)
    assert found.rms == near(math.sqrt(float(x[torch.isfinite(x)].square().mean())))
    spoilt = {f.index: f for f in found.largest}[1]
    assert (spoilt.mean, spoilt.sd) == (None, None)
    assert all(f.mean is not None for f in found.largest if f.index != 1)


def test_integers_have_no_scale():
    model = nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(12, 2))
    assert measured(model, torch.randint(0, 5, (6, 3))).inputs == ()


# --- weights --------------------------------------------------------------------------------


def test_outliers_are_named_by_index_and_scored():
    torch.manual_seed(0)
    w = torch.randn(6, 5, 2, dtype=torch.float64)
    w[4, 1, 0] = -200.0
    w[2] = 70.0
    found = {o.place: o for o in alone(outliers(w))}
    typical = 1.4826 * float(w.abs().flatten().median())
    assert found["[4,1,0]"].value == -200.0
    assert found["[4,1,0]"].score == near(200 / typical)
    rms = w.reshape(6, -1).square().mean(1).sqrt()
    assert found["[2,:,:]"].value == near(70.0)
    assert found["[2,:,:]"].score == near(70 / float(rms.median()))
    assert len(found) == 8


@pytest.mark.parametrize("w", [torch.zeros(3, 3), torch.ones(1), torch.eye(5)])
def test_no_outliers_where_nothing_is_typical(w: torch.Tensor):
    assert all(math.isfinite(o.score) for o in alone(outliers(w)))


# --- use ------------------------------------------------------------------------------------


class Parts(nn.Module):
    """One layer in use, one cut off, one not used."""

    def __init__(self) -> None:
        super().__init__()
        self.live, self.cut, self.idle = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.live(x).tanh() + self.cut(x).tanh().detach()


def test_cut_off_and_unused_are_told_apart():
    found = {p.name: p for p in measured(Parts(), torch.randn(5, 3)).parameters}
    used = {"live": True, "cut": True, "idle": False}
    states = {"live": "value", "cut": "no-path", "idle": "no-path"}
    for name in used:
        parameter = found[f"{name}.weight"]
        assert (parameter.used, parameter.gradient.state) == (used[name], states[name])


# --- the first operation that is not finite -------------------------------------------------


class Broken(nn.Module):
    """log of 0 behind the first layer, or a square root whose derivative is infinite there."""

    def __init__(self, step: str) -> None:
        super().__init__()
        self.a, self.b, self.step = nn.Linear(4, 4), nn.Linear(4, 2), step

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.a(x)) * 0
        return self.b(getattr(torch, self.step)(h)).tanh()


@pytest.mark.parametrize(
    ("step", "operation", "backward"), [("log", "log", False), ("sqrt", "div", True)]
)
def test_the_first_operation_is_named(step: str, operation: str, backward: bool):
    found = measured(Broken(step), torch.randn(5, 4)).first_nonfinite
    assert found is not None
    assert (found.operation, found.backward) == (operation, backward)
    assert found.after.startswith("a.") or backward


def test_no_operation_is_named_where_the_weights_or_the_input_are_to_blame():
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2))
    x = torch.randn(5, 3)
    assert measured(model, x).first_nonfinite is None
    spoilt = x.clone()
    spoilt[0, 0] = torch.inf
    assert measured(model, spoilt).first_nonfinite is None
    with torch.no_grad():
        model[0].weight[0, 0] = torch.nan
    assert measured(model, x).first_nonfinite is None


# --- time -----------------------------------------------------------------------------------


class Loop(nn.Module):
    """h <- tanh(gain h + x), read out at the last step; nearly linear for small x."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = nn.Parameter(gain * torch.eye(3))
        self.enter, self.read = nn.Parameter(torch.eye(3)), nn.Parameter(torch.eye(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.zeros(len(x), 3)
        for t in range(x.shape[1]):
            h = torch.tanh(h @ self.gain + x[:, t] @ self.enter)
        return h @ self.read


@pytest.mark.parametrize("gain", [3.0, 0.5])
def test_growth_through_time(gain: float):
    (found,) = measured(Loop(gain), 1e-6 * torch.randn(4, 6, 3)).ledger.time
    grown = 5 * math.log10(gain)
    assert found.growth == pytest.approx(max(grown, 0.0), abs=1e-3)
    assert found.total == pytest.approx(min(grown, 0.0), abs=1e-3)

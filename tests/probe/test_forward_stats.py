"""Statistics of single activations in float32, against float64."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gradscope.probe.activations import SIGMOID, TANH, Call
from gradscope.probe.forward_stats import of_inputs, with_outputs
from gradscope.probe.layout import BatchLayout, Plan
from gradscope.probe.magnitudes import BINS, count_magnitudes
from gradscope.probe.norms import norms_of
from gradscope.probe.stats import ForwardStats
from tests.support import measured

FUNCTIONS = {"tanh": (TANH, torch.tanh), "sigmoid": (SIGMOID, torch.sigmoid)}


def seen(name: str, z: torch.Tensor, *, stays: bool) -> ForwardStats:
    kind, function = FUNCTIONS[name]
    inputs = of_inputs(Call(kind), z[None], -1, stays=stays)
    (found,) = with_outputs(inputs, function(z)[None], Plan(BatchLayout(0)), len(z))
    return found


def slopes(name: str, z: torch.Tensor) -> float:
    half = z.double() * (0.5 if name == "sigmoid" else 1.0)
    return float(torch.cosh(half).square().reciprocal().sum())


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("stays", [True, False], ids=["kept", "in place"])
@pytest.mark.parametrize("scale", [1e-3, 0.3, 1.0, 2.0, 4.0, 30.0, 1e6])
@pytest.mark.parametrize("shape", [(64, 100), (16, 30, 100)], ids=["all spread", "some spread"])
def test_slopes_and_squares_of_any_scale(name, stays, scale, shape):
    z = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * scale
    found = seen(name, z, stays=stays)
    outputs = FUNCTIONS[name][1](z.double())
    assert float(found.relative) == pytest.approx(slopes(name, z), rel=2e-6)
    assert float(found.out_square) == pytest.approx(float(outputs.square().sum()), rel=1e-6)
    assert float(found.pre_square) == pytest.approx(float(z.double().square().sum()), rel=1e-6)
    edge = FUNCTIONS[name][0].edge(())
    assert found.saturated.tolist() == (z.abs() >= edge).flatten(0, -2).sum(dim=0).tolist()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_slopes_that_the_outputs_have_lost_come_from_the_inputs(name):
    z = torch.full((4, 8), 40.0)
    assert float(FUNCTIONS[name][1](z).min()) == 1.0  # 1 - y^2 would be 0
    assert float(seen(name, z, stays=True).relative) == pytest.approx(slopes(name, z), rel=1e-5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_counts_as_such(bad):
    z = torch.randn(8, 5)
    z[3, 2] = bad
    found = seen("tanh", z, stays=True)
    assert int(found.nonfinite[()] if found.nonfinite.dim() else found.nonfinite) == 1
    assert bool(torch.isnan(found.relative)) == (bad != bad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("calls", [1, 3])
def test_magnitudes_are_counted_by_their_leading_bits(dtype, calls):
    edge = 1.8
    exponents = torch.linspace(-50, 40, 1001, dtype=torch.float64).repeat(calls, 1)
    values = torch.exp2(exponents).to(dtype)
    values[:, 0], values[:, 1], values[:, 2] = 0.0, torch.inf, torch.nan
    found = count_magnitudes(values, edge)
    scaled = (values * (1 / edge)).double().nan_to_num(1e30, 1e30)
    octave = torch.floor(torch.log2(scaled.clamp_min(2.0**-60)))
    place = torch.floor((scaled / torch.exp2(octave) - 1) * 8) + (octave + 6) * 8
    bins = place.long().clamp(0, BINS - 1)
    expected = [torch.bincount(row, minlength=BINS).tolist() for row in bins]
    assert found.tolist() == expected


@pytest.mark.parametrize("n", [0, 5, 8191, 8192, 3 * 4096 + 7, 1 << 22])
def test_norms_of_long_rows_are_as_exact_as_of_short_ones(n):
    rows = torch.rand(2, n, generator=torch.Generator().manual_seed(0)) + 1
    assert norms_of(rows).tolist() == pytest.approx(rows.double().norm(dim=1).tolist(), rel=2e-7)


class Scaled(nn.Module):
    """A gate that is a single number."""

    def __init__(self):
        super().__init__()
        self.inner, self.last = nn.Linear(4, 4), nn.Linear(4, 2)
        self.gate = nn.Parameter(torch.tensor(0.3))

    def forward(self, x):
        return self.last(torch.tanh(self.inner(x)) * torch.sigmoid(self.gate))


def test_an_activation_of_a_single_number():
    site = next(s for s in measured(Scaled().eval(), torch.randn(8, 4)).sites if s.numel == 1)
    slope = slopes("sigmoid", torch.tensor([0.3]))
    assert site.mean_relative_derivative == pytest.approx(slope, rel=1e-6)

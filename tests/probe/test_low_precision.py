"""Types of low precision: half precision on a CPU, autocast inside."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.probe.test_awkward import Net, _encoder, built, data, plain
from tests.support import measured

pytestmark = pytest.mark.filterwarnings("ignore")


LOW = {
    "mlp": (lambda: built(plain), lambda: data(5)),
    "cnn": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.MaxPool2d(2), nn.Flatten(),
                              nn.Linear(36, 4), nn.LayerNorm(4), nn.GELU(), nn.Linear(4, 3)),
        lambda: data(2, 8, 8)),
    "lstm": (lambda: built(lambda m, x: m.head(m.rnn(x)[0][:, -1]),
                                      rnn=nn.LSTM(4, 5, batch_first=True), head=nn.Linear(5, 3)),
             lambda: data(5, 4)),
    "encoder": (_encoder, lambda: data(4, 8)),
}  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", LOW)
def test_half_precision_on_a_cpu(name, dtype):
    """Run as it is, in its own type; the numbers are float64's within its precision."""
    build, x = LOW[name]
    torch.manual_seed(0)
    module = build().to(dtype)
    found = measured(module, x().to(dtype))
    expected = measured(module.double(), x().to(dtype).double())
    assert found.run.dtype == str(dtype).removeprefix("torch.")
    for one, two in zip(found.sites, expected.sites, strict=True):
        assert one.output_gain == pytest.approx(two.output_gain, abs=0.02)
    for one, two in zip(found.parameters, expected.parameters, strict=True):
        if two.gradient.norm:
            assert one.gradient.norm == pytest.approx(two.gradient.norm, rel=0.05)


def test_autocast_inside():
    def mixed(net: Any, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return plain(net, x)

    torch.manual_seed(0)
    found = measured(Net(mixed), data(5).float())
    expected = measured(built(plain), data(5))
    for one, two in zip(found.sites, expected.sites, strict=True):
        assert one.output_gain == pytest.approx(two.output_gain, abs=0.02)

"""What cannot be examined: one line."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from gradscope.errors import ProbeError
from tests.probe.test_awkward import built, data, plain
from tests.support import measured

pytestmark = pytest.mark.filterwarnings("ignore")


def _constant(net: Any, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return plain(net, x)


def _overwritten(net: Any, x: torch.Tensor) -> torch.Tensor:
    return net.c(net.b(torch.tanh(net.a(x)).mul_(2)).tanh_().exp_().mul_(2))


def _quantised() -> nn.Module:
    net = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))
    return torch.ao.quantization.quantize_dynamic(net, {nn.Linear}, torch.qint8)


REFUSED = {
    "lazy layers": (lambda: nn.Sequential(nn.LazyLinear(6), nn.Tanh()), "'0.weight' has no size"),
    "quantised layers": (_quantised, "'0' (Linear) is quantised"),
    "device in the code": (
        lambda: built(lambda m, x: plain(m, x.to("cuda"))),
        "run it where there is one",
    ),
    "nothing but integers": (lambda: built(lambda m, x: plain(m, x).argmax(-1)), "int64 output"),
    "no gradient at all": (lambda: built(_constant), "detached output"),
    "no tensor": (lambda: built(lambda m, x: "cat"), "no tensor"),
    "broken in place": (lambda: built(_overwritten), "the backward pass failed"),
    "raises": (lambda: built(lambda m, x: m.nothing), "no attribute 'nothing'"),
}


# One of the cases asks for a device that is not there: with a GPU it would be served.
@pytest.mark.skipif(torch.cuda.is_available(), reason="here 'cuda' exists")
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_examined_is_said_in_one_line(name):
    build, message = REFUSED[name]
    with pytest.raises(ProbeError) as error:
        measured(build(), data(5).float() if name == "quantised layers" else data(5))
    assert message in str(error.value)
    assert "\n" not in str(error.value)

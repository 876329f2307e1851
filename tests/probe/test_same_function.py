"""The same function, put differently: the same numbers."""

from __future__ import annotations

import dataclasses
import warnings
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from gradscope.measurements import Measurements
from tests.probe.test_awkward import built, data, near, plain
from tests.support import measured

pytestmark = pytest.mark.filterwarnings("ignore")

Pair = namedtuple("Pair", ["logits", "state"])

segment = lambda net: lambda h: torch.tanh(net.b(torch.tanh(net.a(h))))  # noqa: E731


def _hooked(net: Any, x: torch.Tensor) -> torch.Tensor:
    hook = net.b.register_full_backward_hook(lambda *_: None)
    out = plain(net, x)
    hook.remove()
    return out


def _noisy(net: Any, x: torch.Tensor) -> torch.Tensor:
    warnings.warn("careful", stacklevel=1)
    torch.manual_seed(int(torch.randint(0, 99, (1,))))
    return plain(net, x)


def _chunked(net: Any, x: torch.Tensor) -> torch.Tensor:
    first = checkpoint_sequential(
        nn.Sequential(net.a, nn.Tanh(), net.b, nn.Tanh()), 2, x, use_reentrant=False
    )
    return net.c(first)


def _shifted_softmax(z: torch.Tensor) -> torch.Tensor:
    powers = torch.exp(z - z.max(dim=-1, keepdim=True).values)
    return powers / powers.sum(dim=-1, keepdim=True)


@dataclasses.dataclass
class Result:
    logits: torch.Tensor
    hidden: Any = None


class Bare:
    """Neither mapping, tuple nor dataclass."""

    def __init__(self, logits: torch.Tensor) -> None:
        self.logits = logits


SAME: dict[str, Callable[[Any, torch.Tensor], Any]] = {
    "checkpoint": lambda m, x: m.c(checkpoint(segment(m), x, use_reentrant=False)),
    "reentrant checkpoint": lambda m, x: m.c(checkpoint(segment(m), x, use_reentrant=True)),
    "checkpoints in a row": _chunked,
    "in place": lambda m, x: m.c(m.b(m.a(x).tanh_()).tanh_()),
    "input changed in place": lambda m, x: plain(m, x.mul_(2).div_(2)),
    "vmap": lambda m, x: torch.vmap(lambda row: plain(m, row))(x),
    "functional call": lambda m, x: torch.func.functional_call(
        nn.Sequential(m.a, nn.Tanh(), m.b, nn.Tanh(), m.c), {}, (x,)
    ),
    "hooks of its own": _hooked,
    "warns and reseeds": _noisy,
    "control flow": lambda m, x: plain(m, x) if len(x) > 1 else m.c(m.a(x)),
    "dict": lambda m, x: {"logits": plain(m, x), "none": None, "count": 3},
    "dataclass": lambda m, x: Result(plain(m, x)),
    "named tuple": lambda m, x: Pair(plain(m, x), None),
    "bare object": lambda m, x: Bare(plain(m, x)),
    "the same output twice": lambda m, x: (lambda y: (y, y))(plain(m, x)),
}


SQUASHED: dict[str, tuple[str, Callable[[torch.Tensor], torch.Tensor]]] = {
    "softmax": ("softmax", lambda z: z.softmax(-1)),
    "softmax by hand": ("softmax", lambda z: z.exp() / z.exp().sum(-1, keepdim=True)),
    "softmax by hand, one exp": (
        "softmax", lambda z: (lambda e: e / e.sum(-1, keepdim=True))(z.exp())
    ),
    "softmax by hand, shifted": ("softmax", _shifted_softmax),
    "softmax, limited": ("softmax", lambda z: z.softmax(-1).clamp(1e-6, 1 - 1e-6)),
    "log of softmax": ("log-softmax", lambda z: z.softmax(-1).log()),
    "log-softmax": ("log-softmax", lambda z: z.log_softmax(-1)),
    "log-softmax by hand": ("log-softmax", lambda z: z - z.logsumexp(-1, keepdim=True)),
    "sigmoid": ("sigmoid", torch.sigmoid),
    "sigmoid by hand": ("sigmoid", lambda z: 1 / (1 + torch.exp(-z))),
    "tanh": ("tanh", torch.tanh),
    "unit length": ("normalisation", lambda z: F.normalize(z, dim=-1)),
    "unit length by norm": ("normalisation", lambda z: z / (z.norm(dim=-1, keepdim=True) + 1e-8)),
    "unit length by root": (
        "normalisation", lambda z: z / z.pow(2).sum(-1, keepdim=True).sqrt()
    ),
    "unit length by rsqrt": (
        "normalisation", lambda z: z * torch.rsqrt((z * z).sum(-1, keepdim=True) + 1e-12)
    ),
}  # fmt: skip


APART = {"softmax by hand"}  # two separate exponentials: not seen as one softmax


def assert_same(found: Measurements, expected: Measurements) -> None:
    gains = lambda m: {s.id: s.output_gain for s in m.sites if s.role != "output"}  # noqa: E731
    assert gains(found) == near(gains(expected))
    one, two = found.heads[0].ledger, expected.heads[0].ledger
    assert [one.total, one.median, one.weight] == near([two.total, two.median, two.weight])
    for parameter, wanted in zip(found.parameters, expected.parameters, strict=True):
        assert parameter.gradient.norm == near(wanted.gradient.norm), wanted.name


@pytest.mark.parametrize("name", SAME)
def test_the_same_function_gives_the_same_numbers(name):
    expected = measured(built(plain), data(5))
    assert_same(measured(built(SAME[name]), data(5)), expected)


@pytest.mark.parametrize("name", sorted(SQUASHED.keys() - APART))
def test_outputs_that_are_squashed_already(name):
    squash, f = SQUASHED[name]
    found = measured(built(lambda m, x: f(plain(m, x))), data(5))
    assert found.heads[0].entered_before == squash
    assert_same(found, measured(built(plain), data(5)))


def test_what_is_squashed_on_the_way_is_no_output():
    found = measured(built(lambda m, x: m.c(torch.tanh(m.b(m.a(x).softmax(-1))))), data(5))
    assert found.heads[0].entered_before is None

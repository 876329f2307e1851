"""What a report costs, counted and not timed: operations a layer, and numbers that a device is
waited for."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from gradscope.probe import gradients, hosted, rounds
from gradscope.probe.calibrate import calibrate
from gradscope.probe.gradients import GradientTable, gradient_stats
from gradscope.probe.subject import Subject
from gradscope.probe.sweep import Sweep
from gradscope.probe.weights import Weight, stats_of_all, weight_stats
from gradscope.snapshot import Snapshot
from tests.support import measured, sample_of

READS = ("_local_scalar_dense", "nonzero", "bincount", "masked_select", "equal")
"""Operations that need a number on the host, or as many elements as the numbers say."""


class Counted(TorchDispatchMode):
    """Counts operations by name."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))

    @property
    def reads(self) -> int:
        return sum(self.seen[name] for name in READS)


def chain(layers: int, width: int = 8) -> nn.Module:
    torch.manual_seed(0)
    inner = [m for _ in range(layers) for m in (nn.Linear(width, width), nn.Tanh())]
    return nn.Sequential(*inner, nn.Linear(width, 3)).eval()


def batch_of(module: nn.Module, samples: int, width: int) -> Counted:
    """One further batch of a sweep with one draw."""
    sample = sample_of(torch.randn(samples, width))
    (batch,) = sample.batches()
    subject = Subject(module, torch.device("cpu"), Snapshot(module))
    axes, _ = calibrate(subject, batch, samples, whole=False)
    sweep = Sweep(subject, axes, draws=[0], seed=0)
    sweep.batch(batch)
    with Counted() as counted:
        sweep.batch(batch)
    return counted


@pytest.mark.parametrize(
    ("samples", "width", "limit"), [(16, 8, 38), (64, 600, 96)], ids=["small", "large"]
)
def test_operations_of_a_batch_grow_by_a_few_with_every_layer(samples, width, limit):
    few, many = (sum(batch_of(chain(n, width), samples, width).seen.values()) for n in (4, 12))
    assert 10 < (many - few) / 8 <= limit


def test_a_batch_asks_for_as_many_numbers_at_every_depth():
    assert batch_of(chain(12), 16, 8).reads == batch_of(chain(4), 16, 8).reads <= 8


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The CPU as if it were a device that has to be waited for; how many came in each transfer."""
    transfers: list[int] = []

    def counted(tensors):
        found = list(tensors)
        transfers.append(len(found))
        return found

    for module in (gradients, rounds, hosted):
        monkeypatch.setattr(module, "is_here", lambda _: False)
    for module in (gradients, rounds):
        monkeypatch.setattr(module, "to_host", counted)
    return transfers


def odd_gradients() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    found = {f"layer {i}": torch.randn(6, 5) for i in range(40)}
    found["large"] = torch.randn(1 << 19)
    found["double"] = torch.randn(7, dtype=torch.float64) * 1e200
    found["half"] = torch.randn(9).half()
    found["brain"] = torch.randn(9).bfloat16()
    found["complex"] = torch.randn(4, dtype=torch.complex64)
    found["zeros"] = torch.zeros(6, 5)
    found["tiny"] = torch.tensor([1e-41, 1e-44, 0.0, 1e-30, -1e-25])
    found["huge"] = torch.tensor([1e30, -2e30, 1e28])
    found["nan"] = torch.tensor([1.0, float("nan"), float("-inf"), -3.0, 0.0])
    found["all nan"] = torch.full((3,), float("nan"))
    return found


def same(one, two):
    for name in one.__dataclass_fields__:
        a, b = getattr(one, name), getattr(two, name)
        assert a == (pytest.approx(b, rel=1e-6) if isinstance(b, float) else b), name


def test_gradients_are_waited_for_once_and_have_the_numbers_of_the_cpu(elsewhere):
    every = odd_gradients()
    table = GradientTable()
    with Counted() as counted:
        for name, gradient in every.items():
            table.add(name, gradient.clone())
    assert counted.reads == counted.seen["bincount"] == 0
    found = table.stats()
    assert len(elsewhere) == 1
    for name, gradient in every.items():
        same(found[name], gradient_stats(gradient))


def test_gradients_together_are_those_of_each_alone():
    every = odd_gradients()
    table = GradientTable()
    for name, gradient in every.items():
        table.add(name, gradient.clone(), scale=0.5)
    found = table.stats()
    assert list(every.keys() - found.keys()) == []
    for name, gradient in every.items():
        same(found[name], gradient_stats(gradient * 0.5))


@pytest.mark.parametrize("width", [8, 80], ids=["Gram matrix", "Krylov space"])
def test_weights_are_waited_for_as_often_as_a_few_of_them(elsewhere, width):
    torch.manual_seed(0)
    weights = [Weight(torch.randn(width, width), width, 1.0) for _ in range(24)]
    with Counted():
        alone = [weight_stats(w.tensor, w.fan_in, w.gain) for w in weights]
    elsewhere.clear()
    with Counted() as counted:
        together = stats_of_all(weights)
    for one, other in zip(together, alone, strict=True):
        same(one, other)
    assert counted.reads == 0
    assert len(elsewhere) <= 5 + 80  # rounds, of which the Krylov space has one a step


def test_a_report_asks_for_few_numbers_a_layer():
    """What is on the CPU by then costs nothing to read, but no more is read than is reported."""

    def reads(layers: int) -> int:
        with Counted() as counted:
            measured(chain(layers), torch.randn(16, 8))
        return counted.seen["_local_scalar_dense"]

    assert (reads(12) - reads(4)) / 8 <= 12

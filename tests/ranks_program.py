"""One of several processes of ``test_ranks.py``: measures the cases, and writes down what it got.

python -m tests.ranks_program OUT        with RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from gradscope.config import ProbeSettings
from gradscope.errors import GradscopeError
from gradscope.group import Group
from gradscope.measurements import Measurements
from gradscope.model import Batch, LoadedModel, Sample
from gradscope.probe import measure
from gradscope.probe.shards import Shares
from gradscope.progress import Silent
from gradscope.ranks import ALONE, Ranks, place_of
from gradscope.repair.recipe import Penalty
from gradscope.repair.shared_step import SharedStep
from gradscope.repair.training import Trainee


@dataclass(frozen=True)
class Case:
    """A model and a sample.

    Attributes:
        module: made anew.
        samples, batch: how many, and how many at once.
        features: of a sample.
        labels: made from random numbers.
    """

    module: Callable[[], nn.Module]
    samples: int
    batch: int
    features: tuple[int, ...] = (6,)
    labels: Callable[[int], torch.Tensor] | None = None


class _Sequence(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(6, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0][:, -1])


class _Choosy(nn.Module):
    """Refuses samples above a limit, of which there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if bool((x > 100).any()):
            raise ValueError("a sample is out of range")
        return self.inner(x).tanh()


class _Killed(_Choosy):
    """Ends the last process in the middle of its pass."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if os.environ.get("RANK") == str(int(os.environ.get("WORLD_SIZE", "1")) - 1):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x)


def _chain(*inner: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), *inner, nn.Linear(8, 8), nn.Tanh(),
                         nn.Linear(8, 3))  # fmt: skip


def _classes(n: int) -> torch.Tensor:
    return torch.randint(0, 3, (n,))


def _half_then_real(n: int) -> torch.Tensor:
    """Labels that look binary to whoever sees the first half only."""
    return torch.cat((torch.ones(n // 2), torch.randn(n - n // 2)))


CASES: dict[str, Case] = {
    "labels, several batches": Case(_chain, 51, 20, labels=_classes),
    "labels that look like others": Case(
        lambda: nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 1), nn.Flatten(0)),
        40, 40, labels=_half_then_real,
    ),
    "one batch": Case(_chain, 64, 64),
    "fewer samples than processes": Case(_chain, 3, 512),
    "coupled samples": Case(lambda: _chain(nn.BatchNorm1d(8)), 48, 8, labels=_classes),
    "recurrent": Case(_Sequence, 21, 32, (7, 6)),
    "relu, channels": Case(
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(),
                              nn.Flatten(), nn.Linear(16, 3)),
        17, 8, (2, 6, 6), _classes,
    ),
}  # fmt: skip
STEPS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "a batch that does not divide": (_chain, 13),
    "a batch of one": (_chain, 1),
    "batch statistics": (lambda: _chain(nn.BatchNorm1d(8)), 12),
}
"""A model, and the samples of one batch, of a training."""
REFUSED = Case(_Choosy, 30, 30)
KILLED = Case(_Killed, 30, 30)


def measured(case: Case, ranks: Ranks = ALONE) -> Measurements:
    """The case on one or on several processes."""
    torch.manual_seed(1)
    module = case.module().eval()
    x = torch.randn(case.samples, *case.features)
    labels = None if case.labels is None else case.labels(case.samples)
    if case is REFUSED:
        x[-1] = 1000.0

    def batches() -> Iterator[Batch]:
        for start in range(0, case.samples, case.batch):
            piece = x[start : start + case.batch]
            mine = None if labels is None else labels[start : start + case.batch]
            yield Batch((piece,), {}, mine, len(piece), start)

    sample = Sample(
        None, case.samples, None, False, labels is not None, {"x": case.features}, batches
    )
    settings = ProbeSettings()
    loaded = LoadedModel("m", "module", module)
    return measure(loaded, sample, None, settings, 0, case.batch, Silent(), ranks)


def stepped(name: str, ranks: Ranks = ALONE) -> list[list[float]]:
    """The loss of a batch, and the gradient of every parameter of it and of a penalty."""
    make, n = STEPS[name]
    torch.manual_seed(1)
    module = make().train()
    x, labels = torch.randn(n, 6), torch.randint(0, 3, (n,))
    own = list(module.parameters())
    trainee = Trainee(
        module, own, lambda: None, module.train, "cross-entropy", None, (), torch.device("cpu"),
        shares=Shares(ranks),
    )  # fmt: skip
    step = SharedStep(trainee, 1)
    value, lost = step.loss(Batch((x,), {}, labels, n, 0))
    step.backward(value, lambda: Penalty("l2", 0.1).of(own))
    return [[lost], *(p.grad.flatten().tolist() for p in own)]


def main(out: Path) -> None:
    """Everything in one group: starting processes costs more than what they do."""
    place = place_of()
    assert place is not None
    group = Group(place)
    found: dict[str, object] = {}
    with group.joined():
        for name, case in CASES.items():
            with group.together():
                found[name] = asdict(measured(case, group))
        for name in STEPS:
            with group.together():
                found[name] = stepped(name, group)
        last = {"killed": KILLED} if group.size > 1 else {}
        for name, case in {"refused": REFUSED, **last}.items():
            try:
                with group.together():
                    measured(case, group)
            except GradscopeError as error:
                found[name] = f"{type(error).__name__}: {error}"
    (out / f"{place.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""The processes of ``test_ranks.py``: each measures the cases, and writes down what it got.

python -m tests.ranks_program OUT        of RANK among SIZE: OUT/SIZE/RANK.json; OUT/stopped/0.json
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn

from gradscope.config import ProbeSettings
from gradscope.errors import GradscopeError, ProbeError
from gradscope.group import Group
from gradscope.measurements import Measurements
from gradscope.model import Batch, LoadedModel, Sample
from gradscope.probe import measure
from gradscope.probe.shards import Shares
from gradscope.progress import Silent
from gradscope.ranks import ALONE, Place, Ranks
from gradscope.repair.checkpoints import Keeper
from gradscope.repair.loop import train
from gradscope.repair.minibatches import Minibatches
from gradscope.repair.recipe import Penalty, Recipe
from gradscope.repair.sharding import in_parts
from gradscope.repair.shared_step import SharedStep
from gradscope.repair.training import Trainee
from tests.forked import forked, wait


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


class _Signalled(_Choosy):
    """Ends or stops the last process in the middle of its pass."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__()
        self.number = number

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if os.environ.get("RANK") == str(int(os.environ.get("WORLD_SIZE", "1")) - 1):
            os.kill(os.getpid(), self.number)
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


class _Branches(nn.Module):
    """One branch for some samples, one for nobody; an answer that stands in a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.all, self.some, self.none = nn.Linear(6, 3), nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> dict[str, object]:
        answer = self.all(x).tanh()
        if bool((x[:, 0] > 1).any()):
            answer = answer + self.some(x) * (x[:, :1] > 1)
        return {"logits": answer, "note": "no tensor"}


class _Spoilt(nn.Module):
    """Has no number for the loss of some samples that it is trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bad = self.training & (x[:, :1] > 1.5)
        return self.inner(x) + torch.where(bad, torch.nan, 0.0)


class _SparseWords(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(9, 4, sparse=True), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.words(x.abs().long().clamp_max(8)).mean(1))


class _NoWayBack(torch.autograd.Function):
    @staticmethod
    def forward(context: object, x: torch.Tensor) -> torch.Tensor:
        context.bad = bool((x.abs() > 100).any())  # type: ignore[attr-defined]
        return x.clone()

    @staticmethod
    def backward(context: object, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        if context.bad:  # type: ignore[attr-defined]
            raise RuntimeError("a sample has no way back")
        return gradient


class _Sour(nn.Module):
    """A backward pass that one sample breaks."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(_NoWayBack.apply(self.inner(x).repeat(1, 2)))


def _scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(_chain())


SIZES = (1, 2, 4)
"""How many processes a group has."""
Fill = Callable[[dict[str, object], Group], None]
STEPS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "a batch that does not divide": (_chain, 13),
    "a batch of one": (_chain, 1),
    "batch statistics": (lambda: _chain(nn.BatchNorm1d(8)), 12),
    "running statistics of samples": (
        lambda: nn.Sequential(nn.Unflatten(1, (2, 3)),
                              nn.InstanceNorm1d(2, affine=True, track_running_stats=True),
                              nn.Flatten(), nn.Linear(6, 3)),
        12,
    ),
    "unused parameters": (_Branches, 10),
    "sparse gradients": (_SparseWords, 7),
    "TorchScript": (_scripted, 6),
}  # fmt: skip
"""A model, and the samples of one batch, of a training."""
TRAININGS: dict[str, tuple[Callable[[], nn.Module], Penalty, int]] = {
    "chain, l2": (_chain, Penalty("l2", 1e-2), 8),
    "batch statistics, max-norm": (lambda: _chain(nn.BatchNorm1d(8)), Penalty("max-norm", 1.0), 8),
    "another batch, max-norm": (_chain, Penalty("max-norm", 1.0), 7),
    "no number, l2": (_Spoilt, Penalty("l2", 1e-2), 2),
    "branches, l1": (_Branches, Penalty("l1", 1e-3), 7),
}
"""A model, what keeps its weights small, and the samples of a batch."""
REFUSED = Case(_Choosy, 30, 30)
KILLED = Case(lambda: _Signalled(signal.SIGKILL), 30, 30)
STOPPED = Case(lambda: _Signalled(signal.SIGSTOP), 30, 30)


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


def _in_training(module: nn.Module, ranks: Ranks, *, shard: bool = False) -> Trainee:
    return Trainee(
        module, list(module.parameters()), lambda: None, module.train, "cross-entropy", None, (),
        torch.device("cpu"), shares=Shares(ranks, shard=shard),
    )  # fmt: skip


def stepped(name: str, ranks: Ranks = ALONE) -> list[list[float] | None]:
    """The loss of a batch, the gradient of every parameter of it and of a penalty, and buffers."""
    make, n = STEPS[name]
    torch.manual_seed(1)
    module = make().train()
    x, labels = torch.randn(n, 6), torch.randint(0, 3, (n,))
    own = [p for n, p in module.named_parameters() if not n.startswith(("some", "none", "words"))]
    trainee = _in_training(module, ranks)
    step = SharedStep(trainee)
    value, lost = step.loss(Batch((x,), {}, labels, n, 0), 1, lambda: Penalty("l2", 0.1).of(own))
    step.backward(value)
    gradients = [p.grad for p in module.parameters()]
    dense = [None if g is None else g.to_dense().flatten().tolist() for g in gradients]
    return [[lost], *dense, *(b.double().flatten().tolist() for b in module.buffers())]


def trained(name: str, ranks: Ranks = ALONE, *, shard: bool = False) -> list[float]:
    """Parameters and running statistics after some epochs whose last batch is of another size, and
    then what was best on the way."""
    make, penalty, batch = TRAININGS[name]
    torch.manual_seed(1)
    module = make()
    x = torch.randn(47, 6)
    labels = (x[:, 0] > 0).long()
    sample = Sample(
        None, 47, None, False, True, {"x": (6,)},
        lambda: iter([Batch((x,), {}, labels, 47, 0)]),
    )  # fmt: skip
    recipe = Recipe(12, 1e-2, batch, 1.0, penalty=penalty)
    data = Minibatches(sample, None, size=batch, seed=0, exact=False)
    with tempfile.TemporaryDirectory() as folder:
        keeper = Keeper(Path(folder) / "kept.pt", "one") if ranks.rank == 0 else None
        half = replace(recipe, steps=5, every=5)
        train(_in_training(module, ranks, shard=shard), data, half, Silent(), keeper)
        # Another one goes on from the checkpoint.
        module = make()
        whole = replace(recipe, steps=12, every=6)
        if keeper is not None and (state := keeper.load()) is not None:
            keeper.save({**state, "done": False})
        best = train(_in_training(module, ranks, shard=shard), data, whole, Silent(), keeper).best
    tensors = (*module.parameters(), *module.buffers(), *best.values())
    return torch.cat([t.detach().flatten().double() for t in tensors]).tolist()


def soured(ranks: Ranks) -> None:
    """A step of which one process alone cannot go back."""
    torch.manual_seed(0)
    x = torch.ones(8, 6)
    x[-1] = 1000.0
    step = SharedStep(_in_training(_Sour(), ranks))
    value, _ = step.loss(Batch((x,), {}, torch.zeros(8).long(), 8, 0), 1, lambda: 0.0)
    try:
        step.backward(value)
    except RuntimeError as error:
        raise ProbeError(f"the model cannot be trained: {error}") from error


def parted(ranks: Ranks) -> None:
    """A step in which one process does not come to the layers that the others wait for."""
    x = torch.ones(8, 6)
    x[-1] = 1000.0
    with in_parts(_in_training(_Choosy(), ranks, shard=True)) as parts:
        SharedStep(parts).loss(Batch((x,), {}, torch.zeros(8).long(), 8, 0), 1, lambda: 0.0)


def main(out: Path) -> None:
    """Groups that are to fail, and meanwhile one of each size."""

    def into(folder: Path, fill: Fill) -> Callable[[Place], None]:
        folder.mkdir()
        return lambda place: _written(folder, place, fill)

    with (
        forked(2, 12, into(out / "stopped", _stopped)) as stopped,
        forked(2, 12, into(out / "parted", _parted)),
    ):
        for size in SIZES:
            with forked(size, 60, into(out / str(size), _everything)) as group:
                wait(group)
        wait(stopped[:1])  # the other one never ends


def _written(folder: Path, place: Place, fill: Fill) -> None:
    group = Group(place)
    found: dict[str, object] = {"size": group.size}
    with group.joined():
        fill(found, group)
    (folder / f"{place.rank}.json").write_text(json.dumps(found))


def _parted(found: dict[str, object], group: Group) -> None:
    found["parted"] = _said_of(parted, group)


def _said_of(work: Callable[[Ranks], None], group: Group) -> str:
    try:
        with group.together():
            work(group)
    except GradscopeError as error:
        return str(error)
    return ""


def _stopped(found: dict[str, object], group: Group) -> None:
    found["soured"] = _said_of(soured, group)
    _refused(found, {"stopped": STOPPED}, group)


def _everything(found: dict[str, object], group: Group) -> None:
    for name, case in CASES.items():
        with group.together():
            found[name] = asdict(measured(case, group))
    for name in STEPS:
        with group.together():
            found[name] = stepped(name, group)
    for name in TRAININGS if group.size == 2 else ():  # with more it takes long on few cores
        with group.together():
            found[f"trained: {name}"] = trained(name, group)
        with group.together():
            found[f"sharded: {name}"] = trained(name, group, shard=True)
    last = {"killed": KILLED} if group.size > 1 else {}
    _refused(found, {"refused": REFUSED, **last}, group)


def _refused(found: dict[str, object], cases: dict[str, Case], group: Group) -> None:
    for name, case in cases.items():
        try:
            with group.together():
                measured(case, group)
        except GradscopeError as error:
            found[name] = f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    main(Path(sys.argv[1]))

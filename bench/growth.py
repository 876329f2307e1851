"""How time and memory of an examination grow: with samples, parameters, depth and steps.

    python bench/growth.py [--only samples]

Every row is one ``measure`` (calibration, passes, statistics of weights and gradients) in a process
of its own: seconds of processor time of it, and the process's peak resident memory, in which torch
itself is some 350 MB. The slope is that of log time over log size between the last two rows, both
over the row before them: what a start costs is then no part of it.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date

import torch
from speed_cases import Last, mlp
from torch import nn

from gradscope.config import ProbeSettings
from gradscope.model import Batch, LoadedModel, Sample
from gradscope.probe import measure
from gradscope.progress import Silent


@dataclass(frozen=True)
class Size:
    """One row.

    Attributes:
        model: made in the row's process.
        shape: of a sample.
        samples: how many.
        batch: at once.
        grows: what the slope is taken over; 0 if it is a row by itself.
    """

    model: Callable[[], nn.Module]
    shape: tuple[int, ...]
    samples: int
    batch: int = 512
    grows: float = 0


def _lstm() -> nn.Module:
    return Last(nn.LSTM(32, 64, batch_first=True))


SIZES: dict[str, dict[str, Size]] = {
    "samples": {
        f"MLP 4 x 256, {n:,} samples": Size(lambda: mlp(4, 256), (256,), n, grows=n)
        for n in (1_000, 10_000, 100_000)
    },
    "parameters": {
        f"MLP 4 x {w}, {4 * w * w / 1e6:.1f} M parameters, 64 samples": Size(
            lambda w=w: mlp(4, w), (w,), 64, grows=4 * w * w
        )
        for w in (128, 512, 2048, 4096)
    },
    "depth": {
        f"MLP {n} x 128, 64 samples": Size(lambda n=n: mlp(n, 128), (128,), 64, grows=n)
        for n in (30, 100, 300)
    },
    "large": {
        "MLP 6 x 4096, 100.7 M parameters, 64 samples": Size(lambda: mlp(6, 4096), (4096,), 64)
    },
    "steps": {
        f"LSTM 64, {n} steps, 16 samples": Size(_lstm, (n, 32), 16, grows=n)
        for n in (100, 300, 1000)
    },
}


def one(size: Size) -> dict[str, float]:
    """Seconds and peak megabytes."""
    torch.manual_seed(0)
    model = size.model().eval()
    pool = torch.randn(min(size.samples, size.batch), *size.shape)

    def batches() -> Iterator[Batch]:
        for start in range(0, size.samples, size.batch):
            n = min(size.batch, size.samples - start)
            yield Batch((pool[:n],), {}, None, n, start)

    sample = Sample("x", size.samples, None, False, False, {"x": size.shape}, batches)
    loaded = LoadedModel("m", "module", model)
    gc.freeze()  # as the command does: torch's own objects need not be looked through again
    began = time.process_time()
    measure(loaded, sample, None, ProbeSettings(), 0, size.batch, Silent())
    seconds = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "peak": peak}


Point = tuple[float, float]


def slope(first: Point, middle: Point, last: Point) -> float:
    """Of log time over log size, of what the two larger ones have over the first."""
    (x, s), (y, t), (z, u) = first, middle, last
    return math.log((u - s) / (t - s)) / math.log((z - x) / (y - x))


def main() -> None:
    """Print one table a series."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=list(SIZES))
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.one:
        series, name = options.one
        print(json.dumps(one(SIZES[series][name])))
        return
    machine = f"{platform.machine()}, 1 thread, torch {torch.__version__}"
    print(f"{date.today()}, {machine}, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")
    print("| what | processor s | peak MB |\n|---|---|---|", flush=True)
    slopes = []
    for series, sizes in SIZES.items():
        if options.only not in (None, series):
            continue
        points = []
        for name, size in sizes.items():
            command = [sys.executable, __file__, "--one", series, name]
            found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
            print(f"| {name} | {found['seconds']:.2f} | {found['peak']:.0f} |", flush=True)
            points.append((size.grows, found["seconds"]))
        if len(points) > 2:
            slopes.append(f"{series} {slope(*points[-3:]):.2f}")
    print(f"\nSlopes: {', '.join(slopes)}.")


if __name__ == "__main__":
    main()

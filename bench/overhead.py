"""What the probe costs: time and peak memory against bare passes, paired in one process.

    python bench/overhead.py [--pairs 15] [--only NAME]

Bare: one forward pass and the same number of backward passes to the parameters. Probe: one forward
pass and all default statistics of as many draws, from the forward pass to the merged sums and the
statistics of every parameter's gradient. Times are medians of the ratios of neighbouring runs, with
the middle half of the ratios beside them, and of the ratios of processor time, which others on the
machine move less. Statistics of weights, once per report, are timed apart. Peak memory is read in a
fresh process for either side, in the second run (the first also loads code), with every block
mapped by itself, so that it shows what is held and not what the allocator keeps.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch
from speed_cases import CASES, Case, sample_of
from torch import nn

from gradscope.fusion import switched_off_fusion
from gradscope.probe import assemble
from gradscope.probe.arriving import Take
from gradscope.probe.calibrate import Axes, calibrate
from gradscope.probe.forward import ForwardPass
from gradscope.probe.gradients import GradientTable
from gradscope.probe.subject import Subject
from gradscope.probe.sums import Sums
from gradscope.probe.sweep import Sweep
from gradscope.progress import Silent
from gradscope.snapshot import Snapshot

DRAWS = 4


def bare(model: nn.Module, x: torch.Tensor, *, fused: bool = True) -> None:
    """One forward pass, DRAWS backward passes."""
    with contextlib.nullcontext() if fused else switched_off_fusion():
        y = model(x)
    for draw in range(DRAWS):
        torch.autograd.backward([y], [torch.randn_like(y)], retain_graph=draw < DRAWS - 1)
    model.zero_grad(set_to_none=True)


class Probe:
    """The probe with its calibration done, as it runs batch after batch."""

    def __init__(self, model: nn.Module, x: torch.Tensor, draws: int = DRAWS) -> None:
        self.model, self.sample, self.draws = model, sample_of(x), draws
        self.subject = Subject(model, x.device, Snapshot(model))
        self.names = self.subject.names
        self.axes, self.first = self.calibrate()

    def calibrate(self) -> tuple[Axes, ForwardPass]:
        """Axes, from a small pass: once per report."""
        first = next(iter(self.sample.batches()))
        return calibrate(self.subject, first, self.sample.samples, whole=False)

    def sweep(self, take: Take | None = None) -> Sums:
        """The passes, and what they show of activations."""
        sweep = Sweep(self.subject, self.axes, draws=range(self.draws), seed=0, take=take)
        return sweep.over(self.sample, Silent())

    def __call__(self) -> None:
        """As the tool runs on a sample of one batch: gradients are looked at as they arrive."""
        table = GradientTable()
        sums = self.sweep(table.add)
        for name, p in self.names.tensors.items():
            if name not in table:
                table.add(name, p.grad)
        table.stats()
        assemble.sites(sums)
        assemble.heads(self.first, sums, [0])
        self.model.zero_grad(set_to_none=True)


def worked(run: Callable[[], object]) -> float:
    """Seconds of this process's processors: what others do on the machine matters little."""
    start = time.process_time()
    run()
    return time.process_time() - start


def timed(run: Callable[[], object], device: str = "cpu") -> float:
    """Seconds."""
    if device != "cpu":
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def ratio(case: Case, pairs: int, device: str = "cpu") -> dict[str, float]:
    """Median ratio over pairs of neighbouring runs, after a warm-up."""
    torch.manual_seed(0)
    model, x = case.model().eval().to(device), case.x().to(device)
    if device != "cpu" and any(isinstance(m, nn.RNNBase) for m in model.modules()):
        model.train()  # without it the fused kernels have no backward pass; there is no dropout
    probe = Probe(model, x)

    def plain() -> None:
        bare(model, x, fused=case.fused)

    plain(), probe()
    gc.freeze()  # as the command does: torch's own objects need not be looked through again
    rows = [(timed(plain, device), timed(probe, device)) for _ in range(pairs)]
    work = [(worked(plain), worked(probe)) for _ in range(pairs if device == "cpu" else 0)]
    calibration = timed(probe.calibrate, device)
    owners = dict(model.named_modules())
    weights = timed(
        lambda: assemble.parameters(probe.names, owners, (), {}, None, None, {}), device
    )
    middle = statistics.median(a for a, _ in rows)
    ratios = sorted(b / a for a, b in rows)
    return {
        "ratio": statistics.median(ratios),
        "low": ratios[len(ratios) // 4],
        "high": ratios[-1 - len(ratios) // 4],
        "work": statistics.median(b / a for a, b in work) if work else math.nan,
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
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peak", default="")
    parser.add_argument("--probing", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.peak:
        print(peak(CASES[options.peak], probing=options.probing))
        return
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    print(f"{date.today()}, {machine}, {DRAWS} draws, {options.pairs} pairs, {load}\n")
    print("| model | time ratio | middle half | processor ratio | limit | bare ms | calibration | "
          "weights once ms | memory ratio |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|")
    averaged = []
    for name, case in CASES.items():
        if options.only not in name:
            continue
        r = ratio(case, options.pairs)
        averaged += [r["work"]] if case.averaged else []
        m = memory(name, probing=True) / memory(name, probing=False)
        print(
            f"| {name} | {r['ratio']:.2f} | {r['low']:.2f} to {r['high']:.2f} | {r['work']:.3f} | "
            f"{case.limit} | "
            f"{r['bare_ms']:.0f} | {r['calibration_share']:.2f} | {r['weights_once_ms']:.0f} | "
            f"{m:.3f} |",
            flush=True,
        )
    if averaged:
        mean = math.exp(sum(map(math.log, averaged)) / len(averaged))
        said = "Geometric mean of the processor ratios, without those against fused cells"
        print(f"\n{said}: {mean:.3f} (limit 1.08)")


if __name__ == "__main__":
    main()

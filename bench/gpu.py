"""What a GPU changes: nothing in the numbers, and what it costs there.

    python bench/gpu.py [--device cuda] [--out DIR/gpu.md] [--seconds 100]

Four sections, each by itself, so that one that fails does not take the others with it:

1. Measurements on the GPU against the CPU's, float32, TF32 off.
2. Time of the probe against bare forward and backward passes, paired, synchronised.
3. How often the host waits for the device in a pass, by the depth of the model: from the profiler,
   and from torch's own warnings of synchronising calls.
4. Recurrent models in eval mode, whose fused backward pass does not exist there.

``--device cpu`` runs what can be run without a GPU, to try the script. The report is written again
after every section.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from gpu_equality import SAMPLES, equality, measured
from torch import nn


class Clock:
    """What is left of the time."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds."""
        return self._end - time.monotonic()


# 2. Time


def speed(device: str, clock: Clock) -> list[str]:
    """One row a model, of the CPU's sizes and of sizes that fill a GPU."""
    import overhead
    from speed_cases import CASES, Case, mlp, transformer

    cases = dict(CASES)
    if device != "cpu":
        cases["MLP 12 x 4096, batch 4096"] = Case(
            lambda: mlp(12, 4096), lambda: torch.randn(4096, 4096), 1.15
        )
        cases["TransformerEncoder 12 x 1024, 512 tokens, batch 16"] = Case(
            lambda: transformer(12, 1024), lambda: torch.randn(16, 512, 1024), 1.15
        )
    lines = [
        "| model | time ratio | middle half | bare ms | calibration | weights once ms |",
        "|---|---|---|---|---|---|",
    ]
    for name, case in cases.items():
        if clock.left() < 5:
            lines.append(f"| {name} | not run: out of time | | | | |")
            continue
        try:
            r = overhead.ratio(case, 9 if device != "cpu" else 1, device)
            lines.append(
                f"| {name} | {r['ratio']:.2f} | {r['low']:.2f} to {r['high']:.2f} | "
                f"{r['bare_ms']:.1f} | {r['calibration_share']:.2f} | {r['weights_once_ms']:.0f} |"
            )
        except Exception as error:
            what = f"FAILED {type(error).__name__}: {str(error)[:200]}"
            lines.append(f"| {name} | {what} | | | | |")
        if device != "cpu":
            torch.cuda.empty_cache()
    return lines


# 3. Waiting


WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")


def _waits(run: Callable[[], object], device: str) -> Counter[str]:
    """Calls that make the host wait, and copies, as the profiler sees them."""
    from torch.profiler import ProfilerActivity, profile

    kinds = [ProfilerActivity.CPU]
    if device != "cpu":
        kinds.append(ProfilerActivity.CUDA)
        torch.cuda.synchronize()
    with profile(activities=kinds) as seen:
        run()
    found: Counter[str] = Counter()
    for event in seen.events():
        name = event.name
        if name in WAITS or name.startswith("Memcpy DtoH") or name.startswith("Memcpy HtoD"):
            found[name.split(" (")[0]] += 1
        elif name in ("aten::item", "aten::_local_scalar_dense"):
            found[name] += 1
        elif name == "cudaLaunchKernel":
            found["kernels"] += 1
    return found


def _warned(run: Callable[[], object], device: str) -> int | None:
    """Synchronising calls that torch warns of."""
    if device == "cpu":
        return None
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(w.message) for w in said)


def _bare(probe: Any, x: torch.Tensor) -> Callable[[], object]:
    import overhead

    return lambda: overhead.bare(probe.model, x)


def waiting(device: str, clock: Clock) -> list[str]:
    """One row a depth: the passes of one batch, and the same passes bare."""
    import overhead
    from speed_cases import Block, _seen, mlp, transformer

    def blocks(depth: int) -> nn.Module:
        inner = [Block(16) for _ in range(depth)]
        return _seen(nn.Sequential(nn.Conv2d(3, 16, 3), *inner, nn.Flatten(), nn.LazyLinear(10)))

    families: dict[str, tuple[Callable[[int], nn.Module], tuple[int, ...]]] = {
        "MLP, tanh": (lambda n: mlp(n, 256), (128, 256)),
        "residual blocks, batch norm": (blocks, (16, 3, 16, 16)),
        "Transformer": (lambda n: transformer(n, 64), (8, 16, 64)),
    }
    names = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "Memcpy DtoH", "Memcpy HtoD")
    lines = [
        f"| model | depth | passes | {' | '.join(names)} | aten::item | kernels | torch warns |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    counts: dict[str, list[int]] = {}
    for family, (make, shape) in families.items():
        for depth in (2, 4, 8, 16) if clock.left() > 45 else (2, 8):
            try:
                torch.manual_seed(0)
                x = torch.randn(shape)
                model = make(depth)
                model(x)
                model, x = model.eval().to(device), x.to(device)
                probe = overhead.Probe(model, x)
                for what, run in (("probed", probe.sweep), ("bare", _bare(probe, x))):
                    run()
                    seen, warned = _waits(run, device), _warned(run, device)
                    cells = " | ".join(str(seen[n]) for n in names)
                    items = seen["aten::item"]
                    lines.append(
                        f"| {family} | {depth} | {what} | {cells} | {items} | {seen['kernels']} | "
                        f"{warned} |"
                    )
                    if what == "probed":
                        waits = sum(seen[n] for n in WAITS)
                        counts.setdefault(family, []).append(waits)
            except Exception as error:
                lines.append(f"| {family} | {depth} | FAILED {type(error).__name__}: {error} |")
    for family, found in counts.items():
        alike = "the same at every depth" if len(set(found)) == 1 else "NOT the same"
        lines += ["", f"{family}: {found} waits in the passes of a batch: {alike}."]
    lines += ["", *_whole_report(device)]
    return lines


def _whole_report(device: str) -> list[str]:
    """What is done once a report: calibration, weights, statistics of gradients."""
    from speed_cases import mlp

    torch.manual_seed(0)
    model, x = mlp(12, 256).eval(), torch.randn(128, 256)
    measured(model, x, None, device)
    seen = _waits(lambda: measured(model, x, None, device), device)
    told = ", ".join(f"{n} {c}" for n, c in sorted(seen.items()))
    return [f"A whole report of an MLP 12 x 256, two batches, once: {told or 'nothing'}."]


# 4. Recurrent models


def recurrent(device: str, clock: Clock) -> list[str]:
    """Bare in eval mode, then measured."""
    from speed_cases import Last

    lines = ["| model | bare backward in eval mode | measured | gates | warnings |",
             "|---|---|---|---|---|"]  # fmt: skip
    for kind in (nn.LSTM, nn.GRU, nn.RNN):
        torch.manual_seed(0)
        model = Last(kind(16, 24, 2, batch_first=True)).eval().to(device)
        x = torch.randn(32, 20, 16)
        try:
            model(x.to(device)).sum().backward()
            plain = "works"
        except RuntimeError as error:
            plain = f"RuntimeError: {str(error).splitlines()[0][:80]}"
        model.zero_grad(set_to_none=True)
        try:
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                found = measured(model, x, None, device)
            whole = all(p.gradient and p.gradient.state.value == "value" for p in found.parameters)
            state = "every parameter has a gradient" if whole else "GRADIENTS ARE MISSING"
            gates = sum(1 for s in found.sites if s.gate)
            told = "; ".join({str(w.message).splitlines()[0][:80] for w in said}) or "none"
        except Exception as error:
            state, gates, told = f"FAILED {type(error).__name__}: {str(error)[:200]}", 0, ""
        lines.append(f"| {kind.__name__} | {plain} | {state} | {gates} | {told} |")
    return lines


# 5. As a user


def command(device: str, clock: Clock) -> list[str]:
    """The whole way from a file to the verdict, where everything for it is installed."""
    from gradscope import pipeline
    from gradscope.config import DataSettings, ProbeSettings, Settings
    from gradscope.errors import GradscopeError

    data = DataSettings(data=str(SAMPLES / "digits.npz"))
    settings = Settings(str(SAMPLES / "deep_tanh.pt"), data=data)
    lines = []
    for where in ("cpu", device):
        begun = time.perf_counter()
        probe = ProbeSettings(device=where)
        found = pipeline.inspect(replace(settings, probe=probe))
        ledger = found.measurements.heads[0].ledger
        lines.append(
            f"- {where}: {found.diagnosis.verdict.value}, total {ledger.total:.4f}, "
            f"median {ledger.median:.4f}, {time.perf_counter() - begun:.2f} s"
        )
    for absent in ("cuda:7", "nonsense"):
        try:
            pipeline.inspect(replace(settings, probe=ProbeSettings(device=absent)))
            lines.append(f"- {absent}: NOT REFUSED")
        except GradscopeError as error:
            lines.append(f"- {absent}: {error}")
    return lines


SECTIONS: dict[str, Callable[[str, Clock], list[str]]] = {
    "Measurements on the GPU against the CPU's": lambda device, clock: equality(device),
    "Waiting for the device": waiting,
    "Recurrent models in eval mode": recurrent,
    "From a file to a verdict": command,
    "Time against bare passes": speed,
}


def _machine(device: str) -> str:
    name = torch.cuda.get_device_name() if device != "cpu" else "no GPU"
    python = platform.python_version()
    return (
        f"{date.today()}, {name}, torch {torch.__version__}, Python {python}, "
        f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}"
    )


def main() -> int:
    """Write the report; 1 if a section broke off."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", default="")
    parser.add_argument("--seconds", type=float, default=100.0)
    parser.add_argument("--only", default="", help="sections whose title holds this")
    options = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    clock, broken = Clock(options.seconds), 0
    lines = ["# On a GPU", "", f"`python bench/gpu.py --device {options.device}`", "",
             _machine(options.device), ""]  # fmt: skip
    for title, section in SECTIONS.items():
        if options.only not in title:
            continue
        begun = time.monotonic()
        lines += [f"## {title}", ""]
        try:
            lines += section(options.device, clock)
        except Exception:  # whatever breaks in a section stands in the report; the others go on
            broken += 1
            lines += ["```", traceback.format_exc().strip(), "```"]
        lines += ["", f"({time.monotonic() - begun:.0f} s)", ""]
        if options.out:
            Path(options.out).write_text("\n".join(lines))
    print("\n".join(lines))
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())

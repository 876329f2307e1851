"""Many examinations in one process, many processes on one file, and signals at random moments.

    PYTHONPATH=. python bench/endurance.py [--count N] [--signals N] [--processes N] [--out FILE.md]

Counted after each tenth of the examinations: resident memory, open files, threads, child
processes, torch's global hooks, and modules and tensors that are alive.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import astuple, dataclass, fields
from datetime import date
from pathlib import Path

import torch
from torch.nn.modules import module as torch_module

from gradscope.cli.main import main as gradscope

SAMPLES = Path(__file__).parents[1] / "sample_models"
MODELS = ("healthy_tanh.pt", "relu.pt", "deep_tanh.onnx")


@dataclass(frozen=True)
class Held:
    """What a process holds on to.

    Attributes:
        megabytes: resident.
        files: open descriptors.
        threads: of the process.
        hooks: global ones of torch's modules.
        modules: ``nn.Module`` that are alive.
        tensors: alive.
    """

    megabytes: float
    files: int
    threads: int
    hooks: int
    modules: int
    tensors: int


def held() -> Held:
    """Now, after a collection of garbage, and what the allocator keeps for later given back."""
    gc.collect()
    with suppress(OSError, AttributeError):  # glibc alone
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    status = Path("/proc/self/status").read_text()
    tables = [v for k, v in vars(torch_module).items() if k.startswith("_global_") and "hook" in k]
    alive = [type(o) for o in gc.get_objects()]
    return Held(
        round(int(status.partition("VmRSS:")[2].split()[0]) / 1024, 1),
        len(os.listdir("/proc/self/fd")),
        int(status.partition("Threads:")[2].split()[0]),
        sum(len(t) for t in tables if isinstance(t, dict)),
        sum(issubclass(t, torch.nn.Module) for t in alive),
        sum(issubclass(t, torch.Tensor) for t in alive),
    )


def examine(model: str) -> int:
    """One whole ``inspect``; the status."""
    arguments = ["inspect", str(SAMPLES / model), "--data", str(SAMPLES / "digits_val.npz")]
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        return gradscope([*arguments, "--samples", "32", "--format", "json"])


def repeated(count: int, every: int) -> list[tuple[int, Held]]:
    """So many examinations, and what is held after each ``every``; the first ones warm up."""
    found = []
    for done in range(1, count + 1):
        assert examine(MODELS[done % len(MODELS)]) == 0
        if done % every == 0:
            found.append((done, held()))
    return found


def command(out: Path) -> list[str]:
    """An examination as a process of its own."""
    model, data = str(SAMPLES / "healthy_tanh.pt"), str(SAMPLES / "digits_val.npz")
    words = [sys.executable, "-m", "gradscope", "inspect", model, "--data", data]
    return [*words, "--format", "json", "--out", str(out)]


def at_once(count: int, folder: Path) -> str:
    """So many processes on one model file: their reports are the same bytes."""
    outs = [folder / f"{i}.json" for i in range(count)]
    started = [subprocess.Popen(command(out), stderr=subprocess.PIPE) for out in outs]
    statuses = [process.wait() for process in started if process.communicate()]
    reports = {out.read_bytes() for out in outs if out.exists()}
    return f"{statuses.count(0)} of {count} ended with 0, {len(reports)} different reports"


def interrupted(number: int, after: float, folder: Path) -> str:
    """What a signal after so many seconds leads to; begins with "wrong" if it should not."""
    out = folder / "signalled.json"
    out.unlink(missing_ok=True)
    process = subprocess.Popen(command(out), stderr=subprocess.PIPE, text=True)
    time.sleep(after)
    process.send_signal(number)
    try:
        said = process.communicate(timeout=60)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        return "wrong: no end within 60 s"
    whole = out.exists() and out.read_text().rstrip().endswith("}")
    left = [p.name for p in folder.iterdir() if p != out]
    if left or (out.exists() and not whole) or said.count("\n") > 1 or "Traceback" in said:
        return f"wrong: {process.returncode}, {left}, {said[-200:]!r}"
    if process.returncode == 0 and whole:
        return "finished first"
    if process.returncode == 128 + number and said and not out.exists():
        return "one line, no output"
    if process.returncode == -number and not out.exists():
        return "ended before Python ran"
    return f"wrong: status {process.returncode}, {said[-200:]!r}"


def duration() -> float:
    """Seconds that an examination takes as a process of its own, undisturbed."""
    with tempfile.TemporaryDirectory() as name:
        began = time.perf_counter()
        subprocess.run(command(Path(name) / "out.json"), check=True, stderr=subprocess.DEVNULL)
        return time.perf_counter() - began


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--signals", type=int, default=20)
    parser.add_argument("--processes", type=int, default=10)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        "# Endurance",
        "",
        f"`python bench/endurance.py`, {date.today()}, Python {platform.python_version()}, torch "
        f"{torch.__version__}, {os.cpu_count()} cores, busy.",
        "",
        f"{options.count} examinations in one process ({', '.join(MODELS)} in turn):",
        "",
        "| after | " + " | ".join(f.name for f in fields(Held)) + " |",
        "| --- |" + " ---: |" * len(fields(Held)),
    ]
    for done, now in repeated(options.count, max(1, options.count // 10)):
        lines.append(f"| {done} | " + " | ".join(map(str, astuple(now))) + " |")
    lines.append("")
    with tempfile.TemporaryDirectory() as name:
        told = at_once(options.processes, Path(name))
        lines += [f"{options.processes} processes at once on one model file: {told}.", ""]
    rng, whole = random.Random(0), duration()
    lines += ["| signal | after, s | what came of it |", "| --- | ---: | --- |"]
    for i in range(options.signals):
        number = (signal.SIGINT, signal.SIGTERM)[i % 2]
        after = rng.uniform(0, whole)
        with tempfile.TemporaryDirectory() as name:
            told = interrupted(number, after, Path(name))
        lines.append(f"| {number.name} | {after:.2f} | {told} |")
    text = "\n".join(lines) + "\n"
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()

"""What it costs to start: CPU time of whole processes, against the imports that it cannot avoid.

    python bench/startup.py [--runs N] [--out bench/results/startup.md]

Every run of a command is paired with one of its base, the two in turns; the ratio is the median of
the pairs' ratios. CPU time (user + system) of the child, so that a busy machine changes little.
Bytecode is cached, as it is where a package is installed: in a folder that the first pair fills.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "sample_models"


@dataclass(frozen=True)
class Case:
    """``limit``: of the ratio to ``base``, a program; None: none was set."""

    arguments: tuple[str, ...]
    base: str
    limit: float | None


CLI, TORCH = "import typer, rich", "import torch"
MODEL = ("sample_models/deep_tanh.pt", "--data", "sample_models/digits.npz")
CASES = (
    Case(("--help",), CLI, 1.5),
    Case(("--version",), CLI, 1.5),
    Case(("rule", "GS101"), CLI, None),
    Case(("inspect", "--help"), CLI, None),
    Case(("inspect", *MODEL), TORCH, 1.25),
    Case(("inspect", *MODEL, "--no-gradients"), TORCH, 1.25),
)


def cpu_seconds(command: list[str], bytecode: str) -> float:
    """User and system time of one process, from its start to its end."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPYCACHEPREFIX"] = bytecode
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, check=False, timeout=300
    )
    if done.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(command)}: status {done.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measured(case: Case, runs: int, bytecode: str) -> str:
    """One row of the table."""
    command = [sys.executable, "-m", "gradscope", *case.arguments]
    base = [sys.executable, "-c", case.base]
    every = [(cpu_seconds(command, bytecode), cpu_seconds(base, bytecode)) for _ in range(runs + 1)]
    pairs = every[1:]
    ratio = statistics.median(mine / other for mine, other in pairs)
    mine, other = (statistics.median(times) for times in zip(*pairs, strict=True))
    limit = "-" if case.limit is None else f"{case.limit:g}"
    shown = "gradscope " + " ".join(case.arguments)
    return f"| `{shown}` | {mine:.3f} | `{case.base}` | {other:.3f} | {ratio:.2f} | {limit} |"


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as bytecode:
        rows = [measured(case, chosen.runs, bytecode) for case in CASES]
    lines = [
        "# What it costs to start",
        "",
        f"`python bench/startup.py --runs {chosen.runs}`, {datetime.now(UTC):%Y-%m-%d}; CPU "
        f"seconds, medians of {chosen.runs} pairs, one thread, {os.cpu_count()} cores. The ratio "
        "of `inspect` includes its passes, which its limit does not.",
        "",
        "| command | s | base | s | ratio | limit |",
        "|---|---|---|---|---|---|",
        *rows,
    ]
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if chosen.out is not None:
        chosen.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

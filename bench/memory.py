"""Peak memory of ``gradscope inspect`` on a large sample against the same on a small one.

    python bench/memory.py [--megabytes 4 4096] [--only deflated]
    python bench/memory.py --checkpoint 512 3072

Writes ``.npz`` files of both sizes, 4 KiB a sample, into a temporary folder that is removed at the
end, runs the tool on each in a process of its own, and reads the process's peak resident memory
from the system. Of 512 samples a large file takes as much as a small one if only they are read; of
all samples, if none is kept.

``--checkpoint``: a state_dict of so many megabytes, with its architecture, examined on 16 samples;
peak memory over the size of the file, and beyond what the tool takes with a model of a few KB.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import torch
from torch import nn

FEATURES = 1024  # float32: 4 KiB a sample
CLASSES = 10
LIMIT = 100  # megabytes
_BLOCK = 4096  # samples that are written at a time


@dataclass(frozen=True)
class Run:
    """One run of the tool."""

    megabytes: int
    peak: float
    seconds: float


def write(path: Path, megabytes: int, compression: int) -> None:
    """``x`` (n, 1024) float32 and ``y`` (n,) int64, written as it is made."""
    samples = megabytes * (1 << 20) // (4 * FEATURES)
    random = np.random.default_rng(0)
    # 16 levels: deflate finds something to do, as in real data, and is soon done
    levels = random.normal(size=16).astype(np.float32)
    with zipfile.ZipFile(path, "w", compression, compresslevel=1) as archive:
        _member(archive, "x", "<f4", (samples, FEATURES),
                lambda n: levels[random.integers(0, 16, (n, FEATURES), np.uint8)])  # fmt: skip
        _member(archive, "y", "<i8", (samples,), lambda n: random.integers(0, CLASSES, n))


def _member(
    archive: zipfile.ZipFile,
    name: str,
    dtype: str,
    shape: tuple[int, ...],
    make: Callable[[int], np.ndarray],
) -> None:
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for start in range(0, shape[0], _BLOCK):
            stream.write(make(min(_BLOCK, shape[0] - start)).astype(dtype).tobytes())


def run(model: Path, data: Path, megabytes: int, samples: str) -> Run:
    """Peak resident memory (megabytes) and time of one inspection."""
    return Run(
        megabytes, *peak([str(model), "--data", str(data), "--samples", samples, "--draws", "1"])
    )


def compare(folder: Path, kind: str, megabytes: list[int]) -> list[str]:
    """Rows of the table for files of one kind."""
    model = folder / "model.pt"
    torch.manual_seed(0)
    torch.save(nn.Sequential(nn.Linear(FEATURES, 32), nn.Tanh(), nn.Linear(32, CLASSES)), model)
    compression = zipfile.ZIP_DEFLATED if kind == "deflated" else zipfile.ZIP_STORED
    found: dict[str, list[Run]] = {"512": [], "all": []}
    for size in megabytes:
        path = folder / f"{size}.npz"
        write(path, size, compression)
        for samples, runs in found.items():
            runs.append(run(model, path, size, samples))
            print(f"{kind}, {size} MB, --samples {samples}: {runs[-1]}", file=sys.stderr)
        path.unlink()
    rows = []
    for samples, runs in found.items():
        small, large = runs[0], runs[-1]
        more = large.peak - small.peak
        ok = "yes" if more <= LIMIT else "NO"
        rows.append(f"| {kind} | {samples} | {small.peak:.0f} | {large.peak:.0f} | {more:+.0f} | "
                    f"{ok} | {small.seconds:.0f} | {large.seconds:.0f} |")  # fmt: skip
    return rows


_ARCHITECTURE = """
import torch
from torch import nn


def make(layers):
    inner = [m for _ in range(layers) for m in (nn.Linear(4096, 4096, bias=False), nn.Tanh())]
    return nn.Sequential(*inner, nn.Linear(4096, 10))
"""


def start() -> float:
    """Peak memory (megabytes) of an inspection of next to nothing: torch and other imports."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "small.pt"
        torch.save(nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)), model)
        return peak([str(model), "--samples", "16"])[0]


def peak(arguments: list[str]) -> tuple[float, float]:
    """Peak memory (megabytes) and time of one inspection."""
    command = [sys.executable, "-m", "gradscope", "inspect", *arguments, "--format", "json"]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"failed with {os.waitstatus_to_exitcode(status)}: {' '.join(command)}")
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return usage.ru_maxrss / unit, time.perf_counter() - began


def checkpoint(folder: Path, megabytes: int, rest: float) -> str:
    """A row: size of the file, peak memory of one inspection of it, and their ratio."""
    layers = megabytes // 64  # of 4096 x 4096 float32
    (folder / "architecture.py").write_text(_ARCHITECTURE)
    make: dict[str, Callable[[int], nn.Module]] = {}
    exec(_ARCHITECTURE, make)
    torch.manual_seed(0)
    torch.save(make["make"](layers).state_dict(), folder / "state.pt")
    size = (folder / "state.pt").stat().st_size / (1 << 20)
    words = [str(folder / "state.pt"), "--arch", f"{folder / 'architecture.py'}:make"]
    words += ["--arch-args", f'{{"layers": {layers}}}', "--input-shape", "4096", "--samples", "16"]
    most, seconds = peak(words)
    beyond = most - rest
    cells = (f"{size:.0f}", f"{most:.0f}", f"{most / size:.2f}", f"{beyond / size:.2f}")
    return f"| {' | '.join(cells)} | {beyond - size:+.0f} | {seconds:.0f} |"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, nargs=2, default=[4, 4096], metavar="N")
    parser.add_argument("--only", choices=["stored", "deflated"])
    parser.add_argument("--checkpoint", type=int, nargs="+", metavar="MB")
    options = parser.parse_args()
    if options.checkpoint:
        rest, rows = start(), []
        for megabytes in options.checkpoint:
            with tempfile.TemporaryDirectory() as folder:
                rows.append(checkpoint(Path(folder), megabytes, rest))
        threads = torch.get_num_threads()
        machine = f"{platform.machine()}, {threads} threads, torch {torch.__version__}"
        print(f"{date.today()}, {machine}\n")
        print("| checkpoint MB | peak MB | peak over checkpoint (limit 1.3) | "
              "less the start, over checkpoint | beyond both, MB | s |")  # fmt: skip
        print("|---|---|---|---|---|---|", *rows, sep="\n")
        print(f"\nThe start, an inspection of 107 parameters: {rest:.0f} MB.")
        return
    small, large = options.megabytes
    with tempfile.TemporaryDirectory() as folder:
        if shutil.disk_usage(folder).free < (large + small + 512) << 20:
            raise SystemExit(f"{folder} has no room for {large} MB")
        kinds = [options.only] if options.only else ["stored", "deflated"]
        rows = [row for kind in kinds for row in compare(Path(folder), kind, options.megabytes)]
    threads = torch.get_num_threads()
    print(f"{date.today()}, {platform.machine()}, {threads} threads, torch {torch.__version__}\n")
    print(f"| .npz | --samples | peak MB at {small} MB | at {large} MB | more | within {LIMIT} | "
          f"s at {small} MB | at {large} MB |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()

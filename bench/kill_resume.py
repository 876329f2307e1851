"""Kill -9 at random moments of a repair, resume, and compare bytes with an unbroken run.

    python bench/kill_resume.py [--moments 20] [--seed 0]

Each moment is drawn uniformly from the time that the unbroken run took, its imports included. After
the kill, `--out` must be absent or whole, every file of the run's folder must be readable, and
nothing half-written may remain once it is resumed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "sample_models"
RESULTS = Path(__file__).parent / "results" / "kill_resume.md"


def command(out: str, epochs: int) -> list[str]:
    """The repair of a sample model: a race of two remedies, then fine-tuning."""
    return [
        sys.executable, "-m", "gradscope", "fix", str(SAMPLES / "saturated_tanh.pt"),
        "--data", str(SAMPLES / "digits.npz"), "--val", str(SAMPLES / "digits_val.npz"),
        "--out", out, "--epochs", str(epochs), "--patience", "0",
    ]  # fmt: skip


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def killed(folder: Path, seconds: float, epochs: int, whole: str) -> dict[str, object]:
    """One run, killed and resumed."""
    process = subprocess.Popen(command("f.pt", epochs), cwd=folder, stdout=subprocess.DEVNULL)
    time.sleep(seconds)
    process.kill()
    ended = process.wait() == 0  # before the kill
    out, run = folder / "f.pt", folder / "f.pt.run"
    state = "no run yet"
    if run.exists():
        tomllib.loads((run / "run.toml").read_text())
        json.loads((run / "before.json").read_text())
        kept = sorted(p.name for p in run.glob("checkpoints/*.pt"))
        for name in kept:
            torch.load(run / "checkpoints" / name, weights_only=True)
        state = kept[-1] if kept else "no checkpoint yet"
    intact = not out.exists() or digest(out) == whole
    again = ["fix", "--run", "f.pt.run"] if run.exists() else command("f.pt", epochs)[3:]
    resumed = subprocess.run([sys.executable, "-m", "gradscope", *again], cwd=folder,
                             stdout=subprocess.DEVNULL, check=False).returncode  # fmt: skip
    left = [p.name for p in (*folder.glob(".*"), *folder.rglob("*/.*"))]
    return {
        "after_s": round(seconds, 2),
        "ended_before": ended,
        "found": state,
        "out_absent_or_whole": intact,
        "status": resumed,
        "same_bytes": out.exists() and digest(out) == whole,
        "left_behind": left,
    }


def report(rows: list[dict[str, object]], good: int, took: float, seed: int) -> str:
    """Results, with their date and machine."""
    lines = [
        "# Kill -9 at random moments, and resume",
        "",
        f"{datetime.now(UTC).date().isoformat()}, {platform.machine()}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} thread(s); seed {seed}. `python bench/kill_resume.py`",
        "",
        f"An unbroken `gradscope fix` of `saturated_tanh.pt` took {took:.1f} s. Killed at moments "
        f"drawn from that time and resumed, {good} of {len(rows)} runs left `--out` absent or "
        "whole and ended with the same bytes as the unbroken one.",
        "",
        "| killed after, s | found then | --out absent or whole | resumed: status | same bytes | "
        "left behind |",
        "|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda r: float(str(r["after_s"]))):
        left = row["left_behind"] or "nothing"
        found = "ended before" if row["ended_before"] else row["found"]
        words = ("yes" if row[k] else "NO" for k in ("out_absent_or_whole", "same_bytes"))
        whole, same = words
        lines.append(
            f"| {row['after_s']} | {found} | {whole} | {row['status']} | {same} | {left} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        begun = time.monotonic()
        subprocess.run(command("whole.pt", options.epochs), cwd=folder, check=True,
                       stdout=subprocess.DEVNULL)  # fmt: skip
        took = time.monotonic() - begun
        whole = digest(folder / "whole.pt")
        rows = []
        for i in range(options.moments):
            place = folder / str(i)
            place.mkdir()
            rows.append(killed(place, draw.uniform(0, took), options.epochs, whole))
            print(rows[-1], flush=True)
            shutil.rmtree(place)
    good = sum(bool(r["same_bytes"] and r["out_absent_or_whole"]) for r in rows)
    RESULTS.write_text(report(rows, good, took, options.seed))
    print(f"{good} of {len(rows)}: whole or absent, and the same bytes after resuming")
    sys.exit(good != len(rows))


if __name__ == "__main__":
    main()

"""Kill -9 at random moments of a repair, resume, and compare bytes with an unbroken run.

    python bench/kill_resume.py [--phase whole|training] [--moments 20] [--seed 0]

Each moment is drawn uniformly from the time that the unbroken run took: all of it, its imports
included, or that since its folder appeared, in which it trains and writes. After the kill, `--out`
must be absent or whole, every file of the run's folder must be readable, and nothing half-written
may remain once it is resumed.
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
PHASES = {"whole": "from the start of the process", "training": "since the run's folder appeared"}
RESULTS = Path(__file__).parent / "results"


def command(out: str, epochs: int) -> list[str]:
    """The repair of a sample model: a race of two remedies, then fine-tuning."""
    return [
        sys.executable, "-m", "gradscope", "fix", str(SAMPLES / "saturated_tanh.pt"),
        "--data", str(SAMPLES / "digits.npz"), "--val", str(SAMPLES / "digits_val.npz"),
        "--out", out, "--epochs", str(epochs), "--patience", "0",
    ]  # fmt: skip


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def wait_for(run: Path, process: subprocess.Popen[bytes]) -> None:
    """Until the folder of the run is there, or the process has ended."""
    while process.poll() is None and not run.exists():
        time.sleep(0.01)


def unbroken(folder: Path, epochs: int) -> tuple[float, float]:
    """Seconds of a whole run, and of those until its folder appeared."""
    begun = time.monotonic()
    process = subprocess.Popen(command("whole.pt", epochs), cwd=folder, stdout=subprocess.DEVNULL)
    wait_for(folder / "whole.pt.run", process)
    appeared = time.monotonic() - begun
    assert process.wait() == 0
    return time.monotonic() - begun, appeared


def killed(folder: Path, seconds: float, epochs: int, whole: str, phase: str) -> dict[str, object]:
    """One run, killed and resumed."""
    process = subprocess.Popen(command("f.pt", epochs), cwd=folder, stdout=subprocess.DEVNULL)
    if phase == "training":
        wait_for(folder / "f.pt.run", process)
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


def report(rows: list[dict[str, object]], good: int, took: float, seed: int, phase: str) -> str:
    """Results, with their date and machine."""
    lines = [
        f"# Kill -9 at random moments ({PHASES[phase]}), and resume",
        "",
        f"{datetime.now(UTC).date().isoformat()}, {platform.machine()}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} thread(s); seed {seed}. "
        f"`python bench/kill_resume.py --phase {phase}`",
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
    parser.add_argument("--phase", choices=["whole", "training"], default="whole")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        took, appeared = unbroken(folder, options.epochs)
        longest = took - appeared if options.phase == "training" else took
        whole = digest(folder / "whole.pt")
        rows = []
        for i in range(options.moments):
            place = folder / str(i)
            place.mkdir()
            rows.append(
                killed(place, draw.uniform(0, longest), options.epochs, whole, options.phase)
            )
            print(rows[-1], flush=True)
            shutil.rmtree(place)
    good = sum(bool(r["same_bytes"] and r["out_absent_or_whole"]) for r in rows)
    file = RESULTS / f"kill_resume-{options.phase}.md"
    file.write_text(report(rows, good, took, options.seed, options.phase))
    print(f"{good} of {len(rows)}: whole or absent, and the same bytes after resuming")
    sys.exit(good != len(rows))


if __name__ == "__main__":
    main()

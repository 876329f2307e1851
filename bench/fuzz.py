"""Damaged files by the thousand: each opens, or is refused in one line.

    PYTHONPATH=. python bench/fuzz.py [--count N] [--first SEED] [--only WORDS] [--out FILE.json]
    PYTHONPATH=. python bench/fuzz.py --page bench/results/fuzz.md FILE.json ...

N inputs of seeds from SEED on, the same number of each format. Runs of other seeds add up on one
page. What is watched and bounded: ``tests/fuzzing/jail.py``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

import onnxruntime  # noqa: F401  imported before the forks, so that none of them has to
import torch

from tests.fuzzing import jail
from tests.fuzzing.corpus import FORMATS


def warmed(kinds: Iterable[str]) -> None:
    """All that opening imports, and the good files themselves, before the first fork."""
    torch.set_num_threads(1)
    for kind in kinds:
        FORMATS[kind].good()


def ran(kind: str, first: int, count: int) -> dict[str, Any]:
    """The outcomes of one format, counted."""
    cases = [FORMATS[kind].case(kind, seed) for seed in range(first, first + count)]
    begin = time.monotonic()
    counts, wrong = Counter[str](), []
    slowest, largest = 0.0, 0.0
    for outcome in jail.run(cases):
        slowest, largest = max(slowest, outcome.seconds), max(largest, outcome.megabytes)
        if outcome.wrong:
            wrong.append([outcome.seed, outcome.wrong, outcome.text])
            print(kind, outcome.seed, outcome.wrong, outcome.text[-700:], file=sys.stderr)
        counts["wrong" if outcome.wrong else "refused" if outcome.status else "opened"] += 1
    print(
        f"{kind}: {dict(counts)} in {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True
    )
    told = {
        "first": first,
        "count": count,
        **{k: counts[k] for k in ("opened", "refused", "wrong")},
    }
    return {**told, "slowest": slowest, "largest": largest, "failures": wrong}


def page(runs: list[dict[str, dict[str, Any]]]) -> str:
    """What several runs found, as Markdown."""
    rows = []
    for kind in FORMATS:
        parts = [r[kind] for r in runs if kind in r]
        total = {k: sum(p[k] for p in parts) for k in ("count", "opened", "refused", "wrong")}
        worst = [max((p[k] for p in parts), default=0.0) for k in ("slowest", "largest")]
        rows.append((kind, total, *worst))
    every = {k: sum(t[k] for _, t, *_ in rows) for k in ("count", "opened", "refused", "wrong")}
    lines = [
        "# Damaged files",
        "",
        f"`python bench/fuzz.py`, {date.today()}, Python {platform.python_version()}, torch "
        f"{torch.__version__}, {os.cpu_count()} cores, busy.",
        "",
        f"{every['count']:,} inputs: {every['opened']:,} opened, {every['refused']:,} refused in "
        f"one line, {every['wrong']} anything else. A model that opened was also run on four "
        "made-up samples.",
        "",
        f"Bounds: {jail.SECONDS} s of processor time and {jail.WALL} s by the clock for a file, "
        f"{jail.MEGABYTES} MB of memory more than before, {jail.ROOM >> 30} GB of address space "
        "more than an idle process. No file may be written, no process started, no connection made "
        "(Python's audit events, children of the process, and the folder before and after).",
        "",
        "| format | inputs | opened | refused | wrong | slowest, s | most memory, MB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for kind, total, slowest, largest in rows:
        cells = [f"{total[k]:,}" for k in ("count", "opened", "refused", "wrong")]
        lines.append(f"| {' | '.join([kind, *cells, f'{slowest:.2f}', f'{largest:.0f}'])} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--page", type=Path)
    parser.add_argument("runs", nargs="*", type=Path)
    options = parser.parse_args()
    if options.page:
        found = page([json.loads(run.read_text()) for run in options.runs])
        kept = (
            options.page.read_text().partition("\n## ") if options.page.exists() else ("", "", "")
        )
        options.page.write_text(found + "".join(kept[1:]))  # what was written by hand stays
        return
    kinds = [kind for kind in FORMATS if options.only in kind]
    warmed(kinds)
    found = {}
    for kind in kinds:
        found[kind] = ran(kind, options.first, -(-options.count // len(kinds)))
        if options.out:
            options.out.write_text(json.dumps(found))


if __name__ == "__main__":
    main()

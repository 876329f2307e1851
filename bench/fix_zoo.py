"""``gradscope fix`` with its defaults on the models of the zoo.

    python bench/calibration.py build --part dev --dir DIR
    python bench/fix_zoo.py --dir DIR --records FILE [--parts dev held fresh] [--minutes M]
                            [--workers N] [--plain] [--only TEXT] [--out FILE]

``bench/zoo/repairing.py`` says what is compared. Models are taken in turn from faulty ones, partly
trained ones, harmlessly planted ones and healthy ones of all families: a run that is cut short by
``--minutes`` is a sample of all. Each measured model is a line of ``--records``, from which the
next run goes on and the tables are made.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

RESULT = Path(__file__).parent / "results" / "fix_zoo.md"
REACHED = 0.95
"""Of the twin's held-out score."""

Record = dict[str, Any]


def run(options: argparse.Namespace, folder: Path, known: set[str]) -> None:
    """Judges what is not ``known`` and appends it to the records, until the time is over."""
    from bench.zoo.repairing import Task, judge, sample

    deadline = time.time() + 60 * options.minutes
    folders = [options.dir / part for part in options.parts]
    drawn = sample(folders, options.seed, options.strata)
    wanted = (Task(record, folder, deadline, options.plain) for record in drawn)
    waiting = (t for t in wanted if t.name not in known and options.only in t.name)
    pool = ProcessPoolExecutor(options.workers, mp_context=get_context("spawn"))
    running: dict[Future[Record], Task] = {}
    with pool, options.records.open("a") as kept:
        while True:
            while len(running) < options.workers and time.time() < deadline:
                task = next(waiting, None)
                if task is None:
                    break
                running[pool.submit(judge, task)] = task
            if not running:
                break
            done, _ = wait(running, None, FIRST_COMPLETED)
            for future in done:
                found = _record(future, running.pop(future))
                print(_line(found), file=sys.stderr, flush=True)
                if found.get("error") != "out of time":
                    kept.write(json.dumps(found) + "\n")
                    kept.flush()


def _record(future: Future[Record], task: Any) -> Record:
    error = future.exception()
    if error is None:
        return future.result()
    print("".join(traceback.format_exception(error)), file=sys.stderr)
    return {**{k: task.record[k] for k in ("id", "part", "family")}, "error": repr(error)}


def _name(r: Record) -> str:
    return f"{r['part']}/{r['id']}"


def _line(r: Record) -> str:
    if "fixed" not in r:
        return f"{_name(r)}: {r.get('error')}"
    scores = " ".join(
        f"{k} {r[k]:.2f}"
        for k in ("saved", "fixed", "plain", "untreated", "restart", "twin")
        if k in r
    )
    return (f"{_name(r)}: {r['stratum']}, {r['outcome']} by {r.get('chosen')}, {scores}, "
            f"{r['seconds']:.0f} s")  # fmt: skip


def tables(found: list[Record], said: str) -> str:
    """Markdown."""
    judged = [r for r in found if "fixed" in r]
    lines = ["# fix on the zoo", "", said, ""]
    left = [r for r in found if "fixed" not in r]
    lines += [f"{len(judged)} models judged; {len(left)} failed.", ""]
    lines += ["## Summary", "", *_summary(judged), "## By family", "", *_groups(judged, "family")]
    lines += ["## By part", "", *_groups(judged, "part")]
    lines += ["## By condition", "", *_groups(judged, "condition")]
    lines += ["## By remedy", "", *_groups(judged, "chosen")]
    lines += ["## Right after, and early", "", *_early(judged), *_cases(judged)]
    if left:
        lines += ["## Failed", "", *(f"- {_name(r)}: {r['error']}" for r in left)]
    return "\n".join(lines).rstrip() + "\n"


def _reached(r: Record, arm: str = "fixed") -> bool:
    return bool(r[arm] >= REACHED * r["twin"])


def _changed(r: Record) -> bool:
    return bool(r["outcome"] == "improved")


def _faulty(rows: list[Record]) -> list[Record]:
    return [r for r in rows if r["truth"] == "faulty" and "restart" in r]


def _summary(judged: list[Record]) -> Iterator[str]:
    from bench.zoo.rates import shared, table

    faulty = _faulty(judged)
    healthy = [r for r in judged if r["stratum"] == "healthy"]
    harmless = [r for r in judged if r["stratum"] == "harmless"]
    partly = [r for r in faulty if r["stratum"] == "partly"]

    def of(rows: list[Record], hit: Callable[[Record], bool]) -> str:
        return shared([(r["family"], hit(r)) for r in rows])

    reach = f"reach {REACHED:.0%} of the twin's held-out score"
    yield from table(
        ("", "share (n; 95 % intervals)"),
        [
            (f"faulty: {reach}, fix", of(faulty, _reached)),
            ("- trained on by its own optimiser and budget",
             of(faulty, lambda r: _reached(r, "untreated"))),
            ("- sane restart, same steps", of(faulty, lambda r: _reached(r, "restart"))),
            ("- untouched", of(faulty, lambda r: _reached(r, "saved"))),
            (f"partly trained: {reach}, fix", of(partly, _reached)),
            ("faulty: at least as good as the restart, less 2 points",
             of(faulty, lambda r: r["fixed"] >= r["restart"] - 0.02)),
            ("partly trained: the same",
             of(partly, lambda r: r["fixed"] >= r["restart"] - 0.02)),
            ("all: worse than untouched by more than 2 standard errors",
             of(judged, lambda r: r["loss se"] > 2)),
            ("all: worse than untouched by anything", of(judged, lambda r: r["loss se"] > 0)),
            ("healthy: unchanged", of(healthy, lambda r: not _changed(r))),
            ("- and returned bit for bit", of(healthy, lambda r: r.get("same bytes", False))),
            ("planted, harmless: unchanged", of(harmless, lambda r: not _changed(r))),
            ("- or better than untouched", of(harmless, lambda r: r["loss se"] <= 0)),
        ],
    )  # fmt: skip


def _groups(judged: list[Record], key: str) -> Iterator[str]:
    from bench.zoo.rates import table

    body = []
    for name in sorted({str(r.get(key)) for r in judged}):
        rows = [r for r in judged if str(r.get(key)) == name]
        faulty = _faulty(rows)
        healthy = [r for r in rows if r["stratum"] == "healthy"]
        n = len(faulty)
        arms = [
            f"{sum(_reached(r, arm) for r in faulty)}/{n}" if n else "-"
            for arm in ("fixed", "untreated", "restart")
        ]
        means = [_mean(faulty, k) for k in ("saved", "right after", "fixed", "restart", "twin")]
        same = sum(not _changed(r) for r in healthy)
        worse = sum(r["loss se"] > 2 for r in rows)
        body.append((name, *arms, *means, f"{same}/{len(healthy)}" if healthy else "-", worse))
    head = ("", "fix", "trained on", "restart", "saved", "right after", "fixed", "restart", "twin",
            "healthy kept", "worse")  # fmt: skip
    yield "Faulty models that reach 95 % of their twin; mean scores of the faulty; all beside."
    yield ""
    yield from table(head, body)


def _mean(rows: list[Record], key: str) -> str:
    values = [max(0.0, r[key]) for r in rows if r.get(key) is not None]  # R^2 has no lower end
    return f"{sum(values) / len(values):.2f}" if values else "-"


def _early(judged: list[Record]) -> Iterator[str]:
    """Models that know something: a reinitialisation in disguise would show here."""
    from bench.zoo.rates import share, table

    faulty = [r for r in _faulty(judged) if r.get("fixed early") is not None]
    partly = [r for r in faulty if r["stratum"] == "partly"]
    body = []
    for name, rows in (("all faulty that were repaired", faulty), ("partly trained", partly)):
        ahead = sum(r["fixed early"] >= r["restart early"] for r in rows)
        keys = ("saved", "right after", "fixed early", "restart early")
        body.append((name, len(rows), *(_mean(rows, k) for k in keys), share(ahead, len(rows))))
    yield "The moment of the repair nearest to 100 steps, and the restart after as many."
    yield ""
    head = ("", "models", "saved", "right after", "repair", "restart", "repair not behind")
    yield from table(head, body)


def _cases(judged: list[Record]) -> Iterator[str]:
    from bench.zoo.rates import table

    groups = {
        "Not reached": [r for r in _faulty(judged) if not _reached(r)],
        "Worse than untouched": [r for r in judged if r["loss se"] > 2],
        "Healthy, changed": [r for r in judged if r["stratum"] == "healthy" and _changed(r)],
        "Planted, harmless, changed": [
            r for r in judged if r["stratum"] == "harmless" and _changed(r)
        ],
    }  # fmt: skip
    for title, rows in groups.items():
        yield from (f"## {title}", "")
        body = [
            (_name(r), r.get("verdict", "-"), ", ".join(r.get("causes", ())), r["outcome"],
             r.get("chosen"), *(f"{r[k]:.2f}" if k in r else "-" for k in
             ("saved", "fixed", "untreated", "restart", "twin")))
            for r in sorted(rows, key=_name)
        ]  # fmt: skip
        head = ("model", "verdict", "causes", "outcome", "remedy", "saved", "fixed", "trained on",
                "restart", "twin")  # fmt: skip
        yield from table(head, body) if body else ("None.", "")


def main() -> None:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dir", type=Path, required=True, help="what calibration.py built")
    parser.add_argument("--parts", nargs="+", default=["dev"], help="dev, held, fresh")
    parser.add_argument("--records", type=Path, required=True, help="a line a model, kept")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=60, help="0: tables of what is kept")
    parser.add_argument("--seed", type=int, default=0, help="of the order")
    strata = ("faulty", "partly", "harmless", "healthy")
    parser.add_argument("--strata", nargs="+", choices=strata, default=strata)
    parser.add_argument("--plain", action="store_true", help="train each faulty model on, too")
    parser.add_argument("--only", default="", help="part of a model's name")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # of the workers
    kept = [json.loads(line) for line in _lines(options.records)]
    if options.minutes:
        with tempfile.TemporaryDirectory() as folder:
            run(options, Path(folder), {_name(r) for r in kept})
        kept = [json.loads(line) for line in _lines(options.records)]
    import torch

    said = (
        f"`python bench/fix_zoo.py --dir DIR --records FILE --parts {' '.join(options.parts)}`, "
        f"{date.today()}, torch {torch.__version__}, "
        f"{sum(r.get('seconds', 0) for r in kept) / 60:.0f} minutes of one core."
    )
    options.out.write_text(tables([r for r in kept if options.only in _name(r)], said))


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []


if __name__ == "__main__":
    main()

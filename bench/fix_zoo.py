"""``gradscope fix`` with its defaults on the development families of the zoo.

    python bench/fix_zoo.py [--workers N] [--minutes M] [--seeds 0 1] [--only TEXT] [--out FILE]

Builds a reference for each family and seed, plants what its conditions say (``bench/zoo``), decides
by experiment which models are faulty, and lets ``fix`` repair each of them;
``bench/zoo/repairing.py`` says what is compared. Models are taken in turn from all families: a run
that is cut short by ``--minutes`` is a sample of all. ``--records FILE`` keeps what was
measured, and ``--from FILE`` writes the tables from it again.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from datetime import date
from importlib.machinery import ModuleSpec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

RESULT = Path(__file__).parent / "results" / "fix_zoo.md"
REACHED = 0.95
"""Of the twin's held-out score."""

Record = dict[str, Any]


def without_formats() -> None:
    """Lets the tool be imported where packages are missing that state_dicts do not need."""
    os.environ["OMP_NUM_THREADS"] = "1"
    wanted = {
        "safetensors": ("SafetensorError", "safe_open"),
        "safetensors.torch": ("save", "save_file", "load_file"),
    }
    for name, parts in wanted.items():
        try:
            importlib.import_module(name)
        except ImportError:
            sys.modules[name] = types.ModuleType(name)
            sys.modules[name].__spec__ = ModuleSpec(name, None)  # torch looks packages up
            for part in parts:
                setattr(sys.modules[name], part, type(part, (Exception,), {}))


def run(options: argparse.Namespace, folder: Path) -> list[Record]:
    """Records of all models that were judged within the time."""
    from bench.zoo.families import DEVELOPMENT
    from bench.zoo.repairing import Task, conditions, judge, prepare

    deadline = time.time() + 60 * options.minutes
    found: list[Record] = []
    units = [
        (f, seed) for seed in options.seeds for f in DEVELOPMENT if options.only in f.name
    ]  # fmt: skip
    # The longest first, since nothing waits for them but what is made from them.
    units.sort(key=lambda u: (u[1], u[0].kind == "mlp"))
    pool = ProcessPoolExecutor(
        options.workers, mp_context=get_context("spawn"), initializer=without_formats
    )
    with pool:
        waiting: dict[Future[Any], tuple[str, list[Task]]] = {}
        ready: list[tuple[int, int, Task]] = []
        for at, (family, seed) in enumerate(units):
            tasks = [Task(family.name, seed, c, folder, deadline) for c in conditions(family)]
            waiting[pool.submit(prepare, tasks[0])] = (f"{family.name} {seed}", tasks)
            ready += [(i, at, t) for i, t in enumerate(tasks)]
        open_tasks: dict[Future[Any], Task] = {}
        prepared: set[tuple[str, int]] = set()
        while True:
            for _, _, task in sorted(ready, key=lambda r: r[:2]):
                # A few more than there are workers: the order is decided as late as possible.
                if len(open_tasks) >= options.workers + 2 - min(len(waiting), 2):
                    break
                if (task.family, task.seed) in prepared and time.time() < deadline:
                    open_tasks[pool.submit(judge, task)] = task
                    ready = [r for r in ready if r[2] is not task]
            if not waiting and not open_tasks:
                break
            done, _ = wait([*waiting, *open_tasks], 5, FIRST_COMPLETED)
            for future in done:
                if future in waiting:
                    name, tasks = waiting.pop(future)
                    prepared |= _prepared(future, name, tasks)
                else:
                    found.append(_record(future, open_tasks.pop(future)))
                    print(_line(found[-1]), file=sys.stderr, flush=True)
    return found


def _prepared(future: Future[Any], name: str, tasks: list[Any]) -> set[tuple[str, int]]:
    """A family without its data is left out by name, and the others go on."""
    error = future.exception()
    print(f"{name}: {error!r}" if error else future.result(), file=sys.stderr, flush=True)
    return set() if error else {(tasks[0].family, tasks[0].seed)}


def _record(future: Future[Any], task: Any) -> Record:
    error = future.exception()
    if error is None:
        return dict(future.result())
    name = f"{task.family}/{task.condition}-{task.seed}"
    return {"id": name, "family": task.family, "condition": task.condition, "error": repr(error)}


def _line(r: Record) -> str:
    if "fixed" not in r:
        return f"{r['id']}: {r.get('error')}"
    scores = " ".join(
        f"{k} {r[k]:.2f}" for k in ("saved", "fixed", "plain", "restart", "twin") if k in r
    )
    return f"{r['id']}: {r['truth']}, {r['outcome']} by {r.get('chosen')}, {scores}"


def tables(found: list[Record], said: str) -> str:
    """Markdown."""
    judged = [r for r in found if "fixed" in r]
    lines = ["# fix on the zoo", "", said, ""]
    left = [r for r in found if "fixed" not in r]
    lines += [f"{len(judged)} models judged; {len(left)} not ended in time or failed.", ""]
    lines += [*_summary(judged), "## By family", "", *_groups(judged, "family")]
    lines += ["## By condition", "", *_groups(judged, "condition")]
    lines += ["## By remedy", "", *_groups(judged, "chosen")]
    lines += ["## Right after, and early", "", *_early(judged), *_cases(judged)]
    failed = [r for r in left if r.get("error") != "out of time"]
    if failed:
        lines += ["## Failed", "", *(f"- {r['id']}: {r['error']}" for r in failed)]
    return "\n".join(lines).rstrip() + "\n"


def _reached(r: Record, arm: str = "fixed") -> bool:
    return bool(r[arm] >= REACHED * r["twin"])


def _faulty(rows: list[Record]) -> list[Record]:
    return [r for r in rows if r["truth"] == "faulty" and "restart" in r]


def _summary(judged: list[Record]) -> Iterator[str]:
    from bench.zoo.rates import shared, table

    faulty = _faulty(judged)
    healthy = [r for r in judged if not r["planted"] and r["truth"] == "healthy"]
    harmless = [r for r in judged if r["planted"] and r["truth"] == "healthy"]

    def of(rows: list[Record], hit: Callable[[Record], bool]) -> str:
        return shared([(r["family"], hit(r)) for r in rows])

    reach = f"reach {REACHED:.0%} of the twin's held-out score"
    yield from table(
        ("", "share (n; 95 % intervals)"),
        [
            (f"faulty: {reach}, fix", of(faulty, _reached)),
            ("- plain training, same steps", of(faulty, lambda r: _reached(r, "plain"))),
            ("- sane restart, same steps", of(faulty, lambda r: _reached(r, "restart"))),
            ("- untouched", of(faulty, lambda r: _reached(r, "saved"))),
            ("faulty: at least as good as the restart, less 2 points",
             of(faulty, lambda r: r["fixed"] >= r["restart"] - 0.02)),
            ("all: worse than untouched by more than 2 standard errors",
             of(judged, lambda r: r["loss se"] > 2)),
            ("all: worse than untouched by anything", of(judged, lambda r: r["loss se"] > 0)),
            ("healthy: unchanged", of(healthy, lambda r: r["outcome"] != "improved")),
            ("- and returned bit for bit", of(healthy, lambda r: r.get("same bytes", False))),
            ("planted, harmless: unchanged", of(harmless, lambda r: r["outcome"] != "improved")),
        ],
    )  # fmt: skip


def _groups(judged: list[Record], key: str) -> Iterator[str]:
    from bench.zoo.rates import table

    body = []
    for name in sorted({str(r.get(key)) for r in judged}):
        rows = [r for r in judged if str(r.get(key)) == name]
        faulty = _faulty(rows)
        healthy = [r for r in rows if r["truth"] == "healthy" and not r["planted"]]
        n = len(faulty)
        arms = [
            f"{sum(_reached(r, arm) for r in faulty)}/{n}" if n else "-"
            for arm in ("fixed", "plain", "restart")
        ]
        means = [_mean(faulty, k) for k in ("saved", "right after", "fixed", "restart", "twin")]
        same = sum(r["outcome"] != "improved" for r in healthy)
        worse = sum(r["loss se"] > 2 for r in rows)
        body.append((name, *arms, *means, f"{same}/{len(healthy)}" if healthy else "-", worse))
    head = ("", "fix", "plain", "restart", "saved", "right after", "fixed", "restart", "twin",
            "healthy kept", "worse")  # fmt: skip
    yield "Faulty models that reach 95 % of their twin; mean scores of the faulty; all beside."
    yield ""
    yield from table(head, body)


def _mean(rows: list[Record], key: str) -> str:
    values = [r[key] for r in rows if r.get(key) is not None]
    return f"{sum(values) / len(values):.2f}" if values else "-"


def _early(judged: list[Record]) -> Iterator[str]:
    """Models that know something: a reinitialisation in disguise would show here."""
    from bench.zoo.rates import share, table

    faulty = [r for r in _faulty(judged) if r.get("fixed early") is not None]
    partly = [r for r in faulty if r["saved"] > r["chance"] + 0.1]
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
        "Healthy, changed": [
            r for r in judged
            if r["outcome"] == "improved" and not r["planted"] and r["truth"] == "healthy"
        ],
    }  # fmt: skip
    for title, rows in groups.items():
        yield from (f"## {title}", "")
        body = [
            (r["id"], r.get("verdict", "-"), ", ".join(r.get("causes", ())), r["outcome"],
             r.get("chosen"), *(f"{r[k]:.2f}" if k in r else "-" for k in
             ("saved", "fixed", "plain", "restart", "twin")))
            for r in sorted(rows, key=lambda r: r["id"])
        ]  # fmt: skip
        head = ("model", "verdict", "causes", "outcome", "remedy", "saved", "fixed", "plain",
                "restart", "twin")  # fmt: skip
        yield from table(head, body) if body else ("None.", "")


def main() -> None:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1))
    parser.add_argument("--only", default="", help="part of a family's name")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--records", type=Path, help="keep what was measured, a line a model")
    parser.add_argument("--from", dest="kept", type=Path, help="tables from kept records")
    options = parser.parse_args()
    if options.kept:
        found = [json.loads(line) for line in options.kept.read_text().splitlines()]
        said = found.pop(0)["said"]
    else:
        without_formats()
        import torch

        started = time.time()
        with tempfile.TemporaryDirectory() as folder:
            found = run(options, Path(folder))
        took = (time.time() - started) / 60
        seeds = " ".join(map(str, options.seeds))
        said = (
            f"`python bench/fix_zoo.py --workers {options.workers} --minutes {options.minutes:g}"
            f" --seeds {seeds}`, {date.today()}, torch {torch.__version__}: {took:.1f} minutes."
        )
    if options.records:
        lines = [{"said": said}, *found]
        options.records.write_text("".join(json.dumps(r) + "\n" for r in lines))
    options.out.write_text(tables(found, said))


if __name__ == "__main__":
    main()

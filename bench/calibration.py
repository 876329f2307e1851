"""The calibration zoo: saved models whose truth was measured, and the verdicts on them.

    python bench/calibration.py build    --part PART [--dir DIR] [--workers N] [--only TEXT]
    python bench/calibration.py measure  --part PART [--dir DIR] [--workers N] [--trial STEPS] ...
    python bench/calibration.py run      --part PART [--dir DIR] [--workers N] [--minutes M] ...
    python bench/calibration.py evaluate --part PART [--dir DIR] [--only TEXT] [--out FILE]
    python bench/calibration.py trials   --zoo FOLDER ... [--models N] [--minutes M] ...
    python bench/calibration.py document

``build`` trains and plants (``bench/zoo``), about half an hour of one core a part; ``measure`` runs
the tool's own loading and probe on every file and keeps the measurements beside it; ``evaluate``
judges them by the rules as they are now, in seconds; of an untouched part it measures first, and
judges once. ``run`` builds and measures together, stops after ``--minutes`` with what is finished,
and with ``--pack`` puts it into archives. All do only what is missing, but ``measure`` starts over
when the probe has changed. PART is dev, held, fresh or fourth.
``trials`` runs trials on a stratified sample, with each family's own optimiser, beside the verdicts
without one. ``document`` renews ``docs/evidence.md``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.zoo.parts import PARTS, SEEDS

DEFAULT_DIR = Path(tempfile.gettempdir()) / "zoo"
UNTOUCHED = {
    part: Path(__file__).parent / "results" / f"calibration-{part}.md"
    for part in ("held", "fresh", "fourth")
}
"""Parts that are evaluated once, and where their result is."""


TITLES = {
    "dev": "development families",
    "held": "families of the second part",
    "fresh": "families of the third part, untouched",
    "fourth": "families of the fourth part, untouched",
}


def build(options: argparse.Namespace) -> None:
    """Units in processes of one thread each; a line for each that is done."""
    from bench.zoo.build import build_unit

    _each(build_unit, [u for u in _units(options) if not u.done()], options.workers)


def _units(options: argparse.Namespace) -> list[Any]:
    from bench.zoo.build import Unit

    return [
        Unit(options.part, family, seed, options.dir / options.part / family.name)
        for seed in options.seeds
        for family in PARTS[options.part]
        if options.only in family.name
    ]


def run(options: argparse.Namespace) -> None:
    """Build and measure until the time is over; pack what is finished."""
    from bench.zoo import running

    running.run(
        _units(options), workers=options.workers, seconds=60 * options.minutes,
        trial=options.trial, tried=options.trial_seeds or options.seeds, bare=not options.no_bare,
    )  # fmt: skip
    if options.pack:
        what = (options.dir / options.part, options.pack, f"zoo-{options.part}")
        for path in running.pack(*what, lean=options.lean):
            print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB", file=sys.stderr)


def measure(options: argparse.Namespace) -> None:
    """What the probe as it is now has not measured; says what could not be."""
    from bench.zoo.measuring import measure_one

    tasks = _outdated(options)
    print(f"{len(tasks)} to measure", file=sys.stderr, flush=True)
    _each(measure_one, tasks, options.workers)


def _outdated(options: argparse.Namespace) -> list[tuple[dict[str, Any], str, int]]:
    from bench.zoo.measuring import current, version
    from bench.zoo.records import records

    now, steps = version(options.trial), options.trial
    return [
        (record, now, steps)
        for record in records(options.dir / options.part)
        if options.only in record["id"]
        and record["seed"] in options.seeds
        and not current(record, now, steps)
    ]


def evaluate(options: argparse.Namespace) -> None:
    """Judge what is measured; markdown to stdout, or to ``--out``.

    An untouched part is measured first, judged once, and written to its ``UNTOUCHED``.
    """
    from bench.zoo.judging import MODES, judge, report
    from bench.zoo.records import records

    once = UNTOUCHED.get(options.part)
    if once is not None and options.out in (None, once):
        if once.exists():
            raise SystemExit(f"these families have been evaluated: {once}; for another look --out")
        options.out = once
        measure(options)
    elif old := _outdated(options):
        print(f"{len(old)} measured by another probe, or not yet: measure", file=sys.stderr)
    found = [r for r in records(options.dir / options.part) if options.only in r["id"]]
    if not found:
        raise SystemExit(f"nothing in {options.dir / options.part}: build and measure first")
    judged = {}
    for mode, suffix in MODES.items():
        rows = [j for r in found if (j := judge(r, suffix)) is not None]
        if rows:
            judged[mode] = rows
    families = len({r["family"] for r in found})
    counts = ", ".join(f"{len(rows)} {mode}" for mode, rows in judged.items())
    said = ["DIR" if a == str(options.dir) else a for a in sys.argv[1:]]
    command = " ".join(["python bench/calibration.py", *said])
    lines = [
        f"# Calibration: {TITLES[options.part]}",
        "",
        f"`{command}`, {date.today()}, {commit()}: {len(found)} models, {families} families;"
        f" measured: {counts}.",
        "",
        *report(judged, names=True),
    ]
    text = "\n".join(lines).rstrip() + "\n"
    if options.out:
        options.out.write_text(text)
    else:
        print(text)


def trials(options: argparse.Namespace) -> None:
    """A sample with a trial each, until the time is over; markdown to ``--out``."""
    import time

    from bench.zoo import trials as of

    picked = of.pick(options.zoo, options.models, options.seed, slow=options.slow)
    started, rows = time.monotonic(), []
    for chosen, stratum, record in picked:
        if time.monotonic() - started > 60 * options.minutes:
            break
        row = of.run_one(chosen, stratum, record, options.trial, own=not options.unknown)
        rows.append(row)
        print(f"{record['id']} ({stratum}): {row.plain} -> {row.tried}, {row.what}, {row.scores},"
              f" {row.seconds:.0f} s", file=sys.stderr, flush=True)  # fmt: skip
        # Every time, so that a run that is broken off leaves what it has.
        text = _trials_report(options, picked, rows)
        if options.out:
            options.out.write_text(text)
    if not options.out:
        print(text)


def _trials_report(options: argparse.Namespace, picked: list[Any], rows: list[Any]) -> str:
    from bench.zoo import trials as of

    wanted = sum(chosen == "sample" for chosen, *_ in picked)
    done = sum(row.chosen == "sample" for row in rows)
    how = "no optimiser known" if options.unknown else "each family's own optimiser"
    lines = [
        f"# Calibration: trials, {how}",
        "",
        f"`python bench/calibration.py {' '.join(_plain(a) for a in sys.argv[1:])}`,"
        f" {date.today()}, {commit()}: {done} of the {wanted} models drawn, and {len(rows) - done}"
        f" of {len(picked) - wanted} others that the numbers alone judge wrongly;"
        f" {sum(r.seconds for r in rows) / 60:.0f} minutes of one core.",
        "",
        *of.report(rows),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _plain(argument: str) -> str:
    """Without folders of this machine."""
    return f"ZOO/{Path(argument).name}" if argument.startswith("/") else argument


def document(options: argparse.Namespace) -> None:
    """Renew the tables of ``docs/evidence.md``."""
    from bench.zoo.document import renew

    renew()


def commit() -> str:
    """Of the code that judges."""
    command = ("git", "describe", "--always", "--dirty")
    folder = Path(__file__).parent
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    return done.stdout.strip() or "unknown commit"


def _each(work: Callable[[Any], str], items: list[Any], jobs: int) -> None:
    if jobs == 1:
        for item in items:
            print(work(item), file=sys.stderr, flush=True)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(work, item) for item in items]):
            print(future.result(), file=sys.stderr, flush=True)


def main() -> None:
    """Parse and run."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=tuple(COMMANDS))
    parser.add_argument("--part", choices=tuple(PARTS), default="dev")
    parser.add_argument("--dir", type=Path, default=DEFAULT_DIR)
    parser.add_argument("--workers", "--jobs", type=int, default=1, help="processes")
    parser.add_argument("--minutes", type=float, default=1e6, help="stop run after so long")
    parser.add_argument("--pack", type=Path, help="folder for archives of what run has finished")
    parser.add_argument("--trial-seeds", type=int, nargs="+", help="run: trials of these (all)")
    parser.add_argument("--lean", action="store_true", help="pack no models and no data")
    parser.add_argument("--no-bare", action="store_true", help="run: only with labels")
    parser.add_argument("--only", default="", help="part of a family's or a model's name")
    parser.add_argument("--trial", type=int, default=0, help="measure with a trial of STEPS steps")
    parser.add_argument("--seeds", type=int, nargs="+", help="build, measure these (all)")
    parser.add_argument("--zoo", type=Path, nargs="+", help="trials: folders of parts")
    parser.add_argument("--models", type=int, default=40, help="trials: of the sample")
    parser.add_argument("--seed", type=int, default=0, help="trials: of the draw")
    parser.add_argument("--slow", action="store_true", help="trials: slow kinds of nets, too")
    parser.add_argument("--unknown", action="store_true", help="trials: as if none were known")
    parser.add_argument("--out", type=Path, help="file for the report of evaluate or trials")
    options = parser.parse_args()
    options.seeds = options.seeds or SEEDS[options.part]
    COMMANDS[options.command](options)


COMMANDS = {
    "build": build, "measure": measure, "run": run, "evaluate": evaluate, "trials": trials,
    "document": document,
}  # fmt: skip

if __name__ == "__main__":
    main()

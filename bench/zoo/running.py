"""Builds and measures in processes until a time is over, and packs what is finished.

Every file is written whole or not at all, so that workers can be ended anywhere; a later run goes
on where this one stopped.
"""

from __future__ import annotations

import sys
import tarfile
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from bench.zoo.build import Unit, build_unit
from bench.zoo.measuring import current, measure_one, version
from bench.zoo.records import records

PACKED = (".pt", ".npz", ".json", ".measured", ".tried", ".failed")


def run(
    units: list[Unit],
    *,
    workers: int,
    seconds: float,
    trial: int,
    tried: Sequence[int],
    bare: bool = True,
) -> None:
    """Build, measure with labels and without, then with trials; the longest units first.

    Args:
        units: what is to be built; those that are there are only measured.
        seconds: after which nothing more is started and what runs is ended.
        trial: steps of the trials; 0 for none.
        tried: seeds of the units that get one.
        bare: whether to measure without labels too.
    """
    started = time.monotonic()
    units = sorted(units, key=_work, reverse=True)
    with_trial = [(u, trial) for u in units if trial and u.seed in tried]
    queue: list[tuple[Callable[..., str], tuple[Any, ...]]] = [
        *((_build_and_measure, (u, bare)) for u in units),
        *((_try, pair) for pair in sorted(with_trial, key=lambda p: p[0].seed)),
    ]
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    futures: set[Future[str]] = {pool.submit(_told, work, *given) for work, given in queue}
    total = len(futures)
    while futures:
        left = seconds - (time.monotonic() - started)
        done, futures = wait(futures, max(left, 0.0), FIRST_COMPLETED)
        for future in done:
            print(future.result(), file=sys.stderr, flush=True)
        if left <= 0:
            break
    passed = time.monotonic() - started
    print(f"{total - len(futures)} of {total} done in {passed:.0f} s", file=sys.stderr, flush=True)
    processes = list((pool._processes or {}).values()) if futures else []
    pool.shutdown(wait=not futures, cancel_futures=True)
    for process in processes:
        process.kill()


def _work(unit: Unit) -> float:
    """About how long a unit takes, to begin with the longest."""
    steps = unit.family.steps * len(unit.conditions)
    slow = {"transformer": 4, "postln": 4, "mixer": 3, "resmlp": 3, "rnn": 2, "lstm": 4, "gru": 3,
            "gruseq": 3, "unet1d": 3, "cnn": 3}  # fmt: skip
    return steps * slow.get(unit.family.kind, 1) * (1 + unit.family.depth / 6)


def _told(work: Callable[..., str], *given: Any) -> str:
    """What came of it; a failure of one is told and stops no other."""
    try:
        return work(*given)
    except Exception:  # bench only: a data set that cannot be fetched, another version of torch
        return f"FAILED {given[0]}\n{traceback.format_exc()}"


def _build_and_measure(unit: Unit, bare: bool) -> str:
    text = build_unit(unit)
    return f"{text}; {_measured(unit, 0, bare)}"


def _try(unit: Unit, steps: int) -> str:
    return f"{unit.family.name} {unit.seed}: trials; {_measured(unit, steps, True)}"


def _measured(unit: Unit, steps: int, bare: bool) -> str:
    now, started, failed = version(steps), time.perf_counter(), []
    mine = [r for r in records(unit.folder.parent) if _of(r, unit)]
    for record in mine:
        if current(record, now, steps):
            continue
        try:
            measure_one((record, now, steps), bare=bare)
        except Exception:  # hours of others' work are not lost to one model; it is told and counted
            failed.append(f"\n{record['id']}: {traceback.format_exc(limit=-3)}")
    took = time.perf_counter() - started
    return f"{len(mine) - len(failed)} measured in {took:.0f} s{''.join(failed)}"


def _of(record: dict[str, Any], unit: Unit) -> bool:
    return record["family"] == unit.family.name and record["seed"] == unit.seed


def pack(
    folder: Path, out: Path, name: str, *, lean: bool = False, limit: int = 14 << 20
) -> list[Path]:
    """``out/NAME-K.tar.gz`` with every file of the zoo under ``folder``, each below ``limit``
    bytes or little more; what was left half-written stays behind, and models and data if ``lean``.
    """
    files = [
        p for p in sorted(folder.rglob("*"))
        if p.suffix in PACKED[2 * lean :] and "-bare.npz" not in p.name and p.is_file()
    ]  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    parts: list[Path] = []
    for chunk in _chunks(files, limit):
        target = out / f"{name}-{len(parts)}.tar.gz"
        parts.append(target)
        with tarfile.open(target, "w:gz", compresslevel=6) as archive:
            for path in chunk:
                archive.add(path, str(path.relative_to(folder.parent)))
    return parts


def _chunks(files: Iterable[Path], limit: int) -> Iterable[list[Path]]:
    """By a guess of what compresses: measurements to a tenth, weights not at all."""
    chunk: list[Path] = []
    size = 0.0
    for path in files:
        guess = path.stat().st_size * (0.15 if path.suffix == ".json" else 0.93)
        if chunk and size + guess > limit:
            yield chunk
            chunk, size = [], 0.0
        chunk.append(path)
        size += guess
    if chunk:
        yield chunk

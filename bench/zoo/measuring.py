"""Runs the tool's own loading and probe on the files of the zoo, with labels and without."""

from __future__ import annotations

import hashlib
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from bench.zoo.record import write
from gradscope.config import DataSettings, LoadSettings, ProbeSettings, Settings
from gradscope.errors import GradscopeError
from gradscope.measurements import Measurements

NETS = Path(__file__).parent / "nets.py"
MEASURING = ("loading", "probe", "measurements.py", "model.py", "snapshot.py")
"""What measurements depend on."""
LABELLED, BARE, TRIED = (f".{how}.measured.json" for how in ("labelled", "bare", "tried"))
"""With labels and held-out data; with inputs alone; with labels and a trial."""

FAILED = ".failed"
"""Ends the name of a file that holds why there are no measurements."""


def version(steps: int) -> str:
    """Changes when loading or probing does; with a trial, when anything does."""
    package = NETS.parent.parent.parent / "gradscope"
    digest = hashlib.sha256()
    for path in sorted([*package.rglob("*.py")]):
        if steps or path.relative_to(package).parts[0] in MEASURING:
            digest.update(path.read_bytes())
    return f"{digest.hexdigest()[:16]} {steps}"


def stamp(record: dict[str, Any], steps: int) -> Path:
    """The file that says by which version of the probe a record was measured."""
    return Path(record["path"] + (".tried" if steps else ".measured"))


def current(record: dict[str, Any], now: str, steps: int) -> bool:
    """Whether the record was measured by the probe as it is now."""
    path = stamp(record, steps)
    return path.is_file() and path.read_text() == now


def measure_one(task: tuple[dict[str, Any], str, int], *, bare: bool = True) -> str:
    """Measure one model; a line about it.

    Args:
        task: the record, the version of the probe, and the steps of a trial; with 0 of them it is
            measured with labels and without, else with the trial only.
        bare: whether to measure without labels too.
    """
    import torch

    torch.set_num_threads(1)
    record, now, steps = task
    started = time.perf_counter()
    failed = []
    for suffix in (TRIED,) if steps else (LABELLED, BARE)[: 1 + bare]:
        target, why = Path(record["path"] + suffix), Path(record["path"] + suffix + FAILED)
        try:
            write(measure_file(record, suffix, steps), target)
            why.unlink(missing_ok=True)
        except GradscopeError as error:
            target.unlink(missing_ok=True)
            why.write_text(str(error))
            failed.append(f"{suffix}: {error}")
    stamp(record, steps).write_text(now)
    return f"{record['id']}: {time.perf_counter() - started:.2f} s {' '.join(failed)}"


def measure_file(record: dict[str, Any], suffix: str, steps: int) -> Measurements:
    """The pipeline as a user runs it; its verdict is made anew by ``judging``."""
    from gradscope.pipeline import inspect

    data = Path(record["path"]).parent / record["data"]
    load = LoadSettings()
    if not record["whole"]:
        load = LoadSettings(arch=f"{NETS}:build", arch_args=record["config"])
    samples = DataSettings(data=f"{data}.npz", val=f"{data}-val.npz")
    if suffix == BARE:
        samples = DataSettings(data=str(_without_labels(data)))
    probe = ProbeSettings(trial=steps if suffix == TRIED else 0)
    return inspect(Settings(f"{record['path']}.pt", load, samples, probe)).measurements


def _without_labels(data: Path) -> Path:
    """The same inputs in a file of their own."""
    bare = data.with_name(data.name + "-bare.npz")
    try:
        with np.load(bare) as there:
            assert "x" in there
    except (FileNotFoundError, zipfile.BadZipFile, EOFError, ValueError):
        with np.load(f"{data}.npz") as full:
            np.savez(bare, x=full["x"])
    return bare

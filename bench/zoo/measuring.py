"""Runs the tool's own loading and probe on the files of the zoo, with labels and without."""

from __future__ import annotations

import hashlib
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from bench.zoo.record import write

NETS = Path(__file__).parent / "nets.py"
LABELLED, BARE = ".labelled.measured.json", ".bare.measured.json"
"""With labels and held-out data; with inputs alone."""


def version() -> str:
    """Changes when loading or probing does."""
    package = NETS.parent.parent.parent / "gradscope"
    digest = hashlib.sha256()
    for path in sorted([*package.rglob("*.py")]):
        if path.relative_to(package).parts[0] not in ("rules", "report", "cli", "repair"):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def current(record: dict[str, Any], now: str) -> bool:
    """Whether the record was measured by the probe as it is now."""
    stamp = Path(record["path"] + ".measured")
    return stamp.is_file() and stamp.read_text() == now


def measure_one(task: tuple[dict[str, Any], str]) -> str:
    """Measure one model; a line about it."""
    import torch

    from gradscope.errors import GradscopeError

    torch.set_num_threads(1)
    record, now = task
    started = time.perf_counter()
    failed = []
    for suffix in (LABELLED, BARE):
        target = Path(record["path"] + suffix)
        try:
            write(measure_file(record, labels=suffix == LABELLED), target)
        except GradscopeError as error:
            target.unlink(missing_ok=True)
            failed.append(f"{suffix}: {error}")
    if not failed:
        Path(record["path"] + ".measured").write_text(now)
    return f"{record['id']}: {time.perf_counter() - started:.2f} s {' '.join(failed)}"


def measure_file(record: dict[str, Any], *, labels: bool) -> Any:
    """The pipeline as a user runs it, up to the measurements."""
    from gradscope.config import DataSettings, LoadSettings, ProbeSettings
    from gradscope.loading import load_model, load_sample, load_validation
    from gradscope.probe import measure
    from gradscope.progress import Silent

    stem, data = Path(record["path"]), Path(record["path"]).parent / record["data"]
    load = LoadSettings()
    if not record["whole"]:
        load = LoadSettings(arch=f"{NETS}:build", arch_args=record["config"])
    settings = DataSettings(data=f"{data}.npz", val=f"{data}-val.npz")
    if not labels:
        settings = DataSettings(data=str(_without_labels(data)))
    model = load_model(f"{stem}.pt", load)
    sample, validation = load_sample(model, settings), load_validation(model, settings)
    probe, batch = ProbeSettings(), settings.batch_size
    return measure(model, sample, validation, probe, settings.seed, batch, Silent())


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

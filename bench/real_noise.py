"""What ``inspect`` says of other people's trained models on noise, and by a trial.

    python bench/real_noise.py [--out FILE]

The models of bench/real_models.py work. Here each is fed noise made of its own inputs' values, each
number shuffled over the samples (or over the one sample), without labels and with the labels that
it no longer can know; and two of them on their own data are trained on, by a trial. None may be
called unhealthy. Writes bench/results/real_noise.md. About five minutes of one core.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.real_models import MODELS, ONNX, _run
from bench.working_models import Row, verdict_of
from bench.zoo.rates import table
from gradscope.config import DataSettings, LoadSettings, Settings
from tests import real_models as real

RESULTS = Path(__file__).parent / "results" / "real_noise.md"
FACTORIES = Path(real.__file__)
TRIALS = (("mnist", 200), ("usps", 100))
LABELS = ("y", "label", "labels", "target", "targets")


def noise(arrays: dict[str, np.ndarray], *, labels: bool) -> dict[str, np.ndarray]:
    """The same values in no order."""
    random, found = np.random.default_rng(0), {}
    for name, value in arrays.items():
        if name in LABELS:
            if labels:
                found[name] = value
        elif value.ndim and len(value) > 1:
            found[name] = random.permuted(value, axis=0)
        else:
            found[name] = random.permuted(value.ravel()).reshape(value.shape)
    return found


def of_torch(folder: Path) -> Iterator[Row]:
    """Those with data of their own; the others are fed what is made up, which is noise."""
    for model in MODELS:
        file = model.file(folder / f"{model.name}.pt")
        load = LoadSettings(arch=f"{FACTORIES}:{model.factory}")
        if model.data is None:
            size = tuple(int(n) for n in model.options[-1].split("x"))
            data = DataSettings(input_shape={"": size})
            yield Row(model.name, "", "made up", *verdict_of(Settings(str(file), load, data)))
            continue
        own = folder / f"{model.name}.npz"
        model.data(own)
        arrays = dict(np.load(own))
        kinds = {"its own": arrays, "noise": noise(arrays, labels=False)}
        if set(arrays) & set(LABELS):
            kinds["noise, labels"] = noise(arrays, labels=True)
        for kind, values in kinds.items():
            path = folder / f"{model.name}-{kind.replace(', ', '-').replace(' ', '-')}.npz"
            np.savez(path, **values)
            settings = Settings(str(file), load, DataSettings(data=str(path)))
            yield Row(model.name, "", kind, *verdict_of(settings))


def of_onnx(folder: Path) -> Iterator[Row]:
    """The ONNX files, on their data in no order."""
    from tests.test_real_onnx import CASES

    for name in ONNX:
        case, stem = CASES[name], name.replace(" ", "-")
        file = folder / f"{stem}.onnx"
        shutil.copy(real.fetch(case.package) / case.package.files[case.file], file)
        path = folder / f"{stem}-noise.npz"
        np.savez(path, **noise({k: np.asarray(v) for k, v in case.data().items()}, labels=False))
        settings = Settings(str(file), LoadSettings(), DataSettings(data=str(path)))
        yield Row(name, "ONNX", "noise", *verdict_of(settings))


def main() -> None:
    """Run all of them."""
    parser = argparse.ArgumentParser(description="Other people's models on noise, and trials.")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        rows = [*of_torch(folder), *of_onnx(folder)]
        shutil.copy(FACTORIES, folder / "real_models.py")
        trials = [_trial(folder, *trial) for trial in TRIALS]
    body = [(r.net, r.data, r.verdict, "<br>".join(r.found)) for r in rows]
    alarms = sum(r.verdict == "unhealthy" for r in rows)
    lines = [
        "# Trained models of other people, on noise",
        "",
        f"`python bench/real_noise.py`, {date.today()}, torch {torch.__version__}:"
        f" {len(rows)} inspections, {alarms} of them unhealthy.",
        "",
        *table(("model", "data", "verdict", "findings above information"), body),
        "## Trials",
    ]
    for command, printed, _ in trials:
        lines += ["", "```", f"$ {command}", printed, "```"]
    options.out.write_text("\n".join(lines).rstrip() + "\n")


def _trial(folder: Path, name: str, steps: int) -> tuple[str, str, int]:
    model = next(m for m in MODELS if m.name == name)
    words = ["inspect", f"{name}.pt", "--arch", f"real_models.py:{model.factory}"]
    return _run([*words, "--data", f"{name}.npz", "--trial", str(steps)], folder)


if __name__ == "__main__":
    main()

"""What ``inspect`` says of networks that work and are unlike those of the calibration zoo.

    python bench/working_models.py [--only TEXT] [--out FILE]

Trains each net of bench/working on real or simple generated data until it works (about three
minutes of one core in all), saves it in every form that torch can write of it, and inspects each
file with labels, without, and on noise that has each input's own values. All of them work: none may
be called unhealthy, and errors are false alarms. Writes bench/results/working_models.md.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.working.tasks import TASKS, Arrays, Made, adversaries, make
from gradscope import pipeline
from gradscope.config import DataSettings, LoadSettings, ProbeSettings, Settings
from gradscope.diagnosis import Verdict
from gradscope.errors import GradscopeError
from gradscope.findings import Severity

RESULTS = Path(__file__).parent / "results" / "working_models.md"
NETS = Path(__file__).parent / "working" / "nets.py"
FAILED = "could not be written"


@dataclass(frozen=True)
class Row:
    """One inspection.

    Attributes:
        net, form, data: what was inspected.
        verdict: healthy, ...; or what went wrong.
        found: every finding above information.
        alarm: whether a working net was accused, refused or could not be read.
    """

    net: str
    form: str
    data: str
    verdict: str
    found: tuple[str, ...]
    alarm: bool


def _state(made: Made, path: Path, inputs: tuple[torch.Tensor, ...]) -> None:
    torch.save(made.net.state_dict(), path)


def _pickle(made: Made, path: Path, inputs: tuple[torch.Tensor, ...]) -> None:
    torch.save(made.net, path)


def _script(made: Made, path: Path, inputs: tuple[torch.Tensor, ...]) -> None:
    made.net.eval()
    torch.jit.save(torch.jit.trace(made.net, inputs, check_trace=False, strict=False), path)


def _onnx(made: Made, path: Path, inputs: tuple[torch.Tensor, ...]) -> None:
    names = [k for k in made.arrays if k != "y"]
    torch.onnx.export(
        made.net.eval(), inputs, str(path), input_names=names, verbose=False, dynamo=True,
        dynamic_shapes=tuple({0: torch.export.Dim("n")} for _ in inputs),
    )  # fmt: skip


def _program(made: Made, path: Path, inputs: tuple[torch.Tensor, ...]) -> None:
    shapes = tuple({0: torch.export.Dim("n")} for _ in inputs)
    torch.export.save(torch.export.export(made.net.eval(), inputs, dynamic_shapes=shapes), path)


FORMS: dict[str, tuple[str, Callable[[Made, Path, tuple[torch.Tensor, ...]], None]]] = {
    "state_dict": (".pt", _state),
    "pickle": (".pth", _pickle),
    "TorchScript": (".ts", _script),
    "ONNX": (".onnx", _onnx),
    "pt2": (".pt2", _program),
}


def inspected(path: Path, form: str, kind: str, data: Path) -> tuple[str, tuple[str, ...], bool]:
    """The verdict on one file with one kind of data."""
    load = LoadSettings()
    if form == "state_dict":
        load = LoadSettings(arch=f"{NETS}:{kind}")
    if form == "pickle":
        load = LoadSettings(allow=("bench.working.nets",))
    return verdict_of(Settings(str(path), load, DataSettings(data=str(data)), ProbeSettings()))


def verdict_of(settings: Settings) -> tuple[str, tuple[str, ...], bool]:
    """Verdict, findings above information, and whether that is an alarm."""
    try:
        found = pipeline.inspect(settings)
    except GradscopeError as error:
        return f"refused: {error}", (), True
    except Exception as error:  # a traceback is what this looks for
        traceback.print_exc()
        return f"crash: {type(error).__name__}: {error}", (), True
    grave = tuple(
        f"{f.severity.value} {f.code} {f.name} at {f.where}: {f.message}"
        for f in found.findings
        if f.severity is not Severity.INFORMATION
    )
    verdict = found.diagnosis.verdict
    errors = any(f.severity is Severity.ERROR for f in found.findings)
    return verdict.value, grave, verdict is Verdict.UNHEALTHY or errors


def noise(arrays: Arrays) -> Arrays:
    """Each number of an input shuffled over the samples: its own values, and no sense."""
    random = np.random.default_rng(0)
    return {k: random.permuted(v, axis=0) for k, v in arrays.items() if k != "y"}


def rows_of(name: str, made: Made, folder: Path, *, labels: bool) -> Iterator[Row]:
    """Every form of one net, with every kind of data."""
    kept = {k: v[:512] for k, v in made.arrays.items()}
    kinds = {
        "without labels": {k: v for k, v in kept.items() if k != "y"},
        "noise": noise(kept),
    }
    if labels:
        kinds = {"with labels": kept, **kinds}
    files = {kind: folder / f"{name}-{kind.replace(' ', '-')}.npz" for kind in kinds}
    for kind, arrays in kinds.items():
        np.savez(files[kind], **arrays)
    inputs = tuple(torch.from_numpy(v[:4].copy()) for k, v in kept.items() if k != "y")
    for form, (suffix, write) in FORMS.items():
        path = folder / f"{name}{suffix}"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                write(made, path, inputs)
        except Exception as error:  # torch's own writers refuse some nets
            first = re.sub(r"\x1b\[\d+m", "", str(error)).strip().split("\n")[0][:90]
            yield Row(name, form, "-", f"{FAILED}: {type(error).__name__}: {first}", (), False)
            continue
        for kind, data in files.items():
            if kind == "noise" and form != "state_dict":
                continue  # the numbers do not depend on the form
            yield Row(name, form, kind, *inspected(path, form, type(made.net).__name__, data))


def every(only: str, folder: Path) -> Iterator[tuple[str, str, float, bool, list[Row]]]:
    """(name, about, score, whether it works, rows) of each net."""
    for task in TASKS:
        if only in task.name:
            made = make(task)
            rows = list(rows_of(task.name, made, folder, labels=task.labels))
            yield task.name, task.about, made.score, made.score >= task.works, rows
    if any(only in name for name in ("generator", "discriminator")):
        made_g, made_d = adversaries()
        about = "of a GAN on digits; score: generated images that lie near a real one"
        for name, made in (("generator", made_g), ("discriminator", made_d)):
            rows = list(rows_of(name, made, folder, labels="y" in made.arrays))
            yield name, about, made.score, made.score >= 0.5, rows


def report(nets: list[tuple[str, str, float, bool, list[Row]]], took: float) -> list[str]:
    """Markdown lines."""
    rows = [r for *_, of_net in nets for r in of_net]
    done = [r for r in rows if not r.verdict.startswith(FAILED)]
    alarms = [r for r in done if r.alarm]
    lines = [
        "# Networks that work, unlike the zoo's",
        "",
        f"`python bench/working_models.py`, {date.today()}, torch {torch.__version__}, {took:.0f} s"
        f" of one core: {len(nets)} nets, {sum(n[3] for n in nets)} of which work by their score on"
        f" held-out data; {len(done)} inspections, {len(alarms)} alarms (unhealthy, an error, or"
        " not read).",
        "",
        "| net | what it is | score | verdicts |",
        "|---|---|---|---|",
    ]
    for name, about, score, works, of_net in nets:
        said = ", ".join(f"{n} x {v}" if n > 1 else v for v, n in _counted(of_net))
        fails = "" if works else " (does not work)"
        lines.append(f"| {name} | {about} | {score:.3f}{fails} | {said} |")
    lines += ["", "## Alarms", ""]
    lines += [f"- {r.net}, {r.form}, {r.data}: {r.verdict}; {'; '.join(r.found)}" for r in alarms]
    lines += ["", "## Findings above information", ""]
    told: dict[tuple[str, str, str], list[str]] = {}
    for r in done:
        for text in r.found:
            told.setdefault((r.net, r.data, text), []).append(r.form)
    lines += [f"- {net}, {data} ({', '.join(f)}): {t}" for (net, data, t), f in told.items()]
    lines += ["", "## Forms that torch could not write", ""]
    lines += [f"- {r.net}, {r.form}: {r.verdict.partition(': ')[2]}"
              for r in rows if r.verdict.startswith(FAILED)]  # fmt: skip
    return lines


def _counted(rows: list[Row]) -> list[tuple[str, int]]:
    counts: dict[str, int] = {}
    for r in rows:
        if not r.verdict.startswith(FAILED):
            said = f"{r.verdict.split(':')[0]} {r.data}"
            counts[said] = counts.get(said, 0) + 1
    return list(counts.items())


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description="Working networks, inspected.")
    parser.add_argument("--only", default="", help="nets whose name has this in it")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    started, nets = time.process_time(), []
    with tempfile.TemporaryDirectory() as folder:
        for net in every(options.only, Path(folder)):
            nets.append(net)
            name, _, score, works, rows = net
            bad = [f"{r.form}/{r.data}: {r.verdict}" for r in rows if r.alarm]
            print(f"{name}: {score:.3f} {works} {bad or ''}", file=sys.stderr, flush=True)
            lines = report(nets, time.process_time() - started)
            options.out.write_text("\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()

"""The corpus of hostile files: what happens here, and what three scanners say of each.

    PYTHONPATH=. python bench/hostile.py [--scanners VENV] [--only WORDS] [--out FILE.md]

Every file is built into a folder of its own and opened in a process of its own, with 3 GB of
address space beyond what an idle one has; time and memory are measured there. Whatever changes in
the folder, or appears in it, is told. VENV is a virtual environment with modelscan, picklescan and
fickling; each is run as a process on the file, with a limit of 60 s and 8 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import onnx
import torch
from torch import nn

from gradscope.checking.baseline import read_baseline
from gradscope.config import DataSettings, LoadSettings
from gradscope.errors import GradscopeError
from gradscope.loading import load_model, load_sample
from gradscope.model import LoadedModel
from gradscope.settings_file import find_settings
from tests import hostile, hostile_data, hostile_exports, hostile_scripts, hostile_weights
from tests.loading.onnx import hostile_models

Builder = Callable[[Path], Path]
ROOM = 3 << 30
SECONDS, MEMORY = 60, 8 << 30
GOOD = "good file"
SCANNERS = ("modelscan", "picklescan", "fickling")
FICKLING = """
import sys, zipfile
from fickling.loader import scan_file, scan_zip_archive
path = sys.argv[1]
if zipfile.is_zipfile(path):
    found = list(scan_zip_archive(path, graceful=True).values())
else:
    found = [scan_file(path, graceful=True)]
print(max(r.severity for r in found).name if found else "nothing to scan")
print(next((e for r in found for e in r.errors), ""))
"""
_QUIET = (
    "no issue", "not scanned", "likely safe", "nothing to scan", "failed", "error", "no answer",
)  # fmt: skip


@dataclass(frozen=True)
class Attack:
    """One file.

    Attributes:
        kind: what it is.
        name: what it tries.
        build: writes it into a folder.
        refused: whether it is to be refused, or to be opened without harm.
        given: where it goes: as the model, to ``--data``, to ``--baseline``, or as settings.
    """

    kind: str
    name: str
    build: Builder
    refused: bool = True
    given: str = "model"


@dataclass
class Row:
    """What came out.

    Attributes:
        attack: the file.
        here: status and the one line.
        right: refused or opened as it should be, and nothing happened.
        seconds: to open it.
        megabytes: of memory that opening it took.
        others: what each scanner said.
    """

    attack: Attack
    here: str
    right: bool
    seconds: float
    megabytes: float
    others: dict[str, str] = field(default_factory=dict)


def attacks() -> Iterator[Attack]:
    """All of them."""
    tables: list[tuple[str, dict[str, Builder], bool]] = [
        ("pickle", hostile.OBJECTS, True),
        ("pickle, by hand", {n: hostile.streamed(m) for n, m in hostile.STREAMS.items()}, True),
        ("module, by hand", {n: hostile.streamed(m) for n, m in hostile.MODULES.items()}, True),
        ("archive", hostile.ARCHIVES, True),
        ("weights", hostile.WEIGHTS, True),
        ("TorchScript", hostile_scripts.HOSTILE_SCRIPTS, True),
        ("export", hostile_exports.HOSTILE_EXPORTS, True),
        ("harmless here", hostile.HARMLESS, False),
        ("harmless here", hostile_exports.HARMLESS_EXPORTS, False),
    ]
    for kind, table, refused in tables:
        for name, build in table.items():
            yield Attack(kind, name, build, refused)
    good = hostile.saved(lambda p: nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2)))
    weights = hostile.saved(lambda p: nn.Linear(3, 3).state_dict())
    yield Attack(GOOD, "a whole module of torch's", good, refused=False)
    yield Attack(GOOD, "a state_dict", weights, refused=False)
    for name, build in hostile_weights.SAMPLES.items():
        yield Attack("sample", name, build, given="data")
    for name, (onnx_build, _) in hostile_models.EXTERNAL.items():
        yield Attack("ONNX, files beside it", name, onnx_build)
    graphs = {n: p for n, (p, _) in hostile_models.GRAPHS.items()} | hostile_models.BOMBS
    for name, proto in graphs.items():
        yield Attack("ONNX", name, _onnx(proto))
    for name, build in hostile_data.SAMPLES.items():
        yield Attack("data", name, build, given="data")
    for name, build in hostile_data.SETTINGS.items():
        yield Attack("settings", name, build, given="settings")
    for name, build in hostile_data.BASELINES.items():
        yield Attack("baseline", name, build, given="baseline")


def _onnx(proto: onnx.ModelProto) -> Builder:
    def build(folder: Path) -> Path:
        path = folder / "model.onnx"
        path.write_bytes(proto.SerializeToString())
        return path

    return build


def listing(folder: Path) -> dict[str, bytes]:
    """All that lies in a folder."""
    return {str(p): p.read_bytes() if p.is_file() else b"" for p in folder.rglob("*")}


def open_here(attack: Attack, path: Path) -> tuple[int, str]:
    """Status and message, as the command line would have them."""
    try:
        if attack.given == "data":
            model = LoadedModel("m", "PyTorch module", nn.Linear(5, 2))
            list(load_sample(model, DataSettings(data=str(path))).batches())
            return 0, "opened"
        if attack.given == "settings":
            find_settings(path.parent)
            return 0, "opened"
        if attack.given == "baseline":
            read_baseline(str(path))
            return 0, "opened"
        model = load_model(str(path), LoadSettings())
        if attack.kind == "ONNX":  # some of it only shows when it runs
            load_sample(model, DataSettings(samples=4))
        return 0, "opened" + "".join(f"; {note}" for note in model.notes)
    except GradscopeError as error:
        return error.exit_status, str(error)
    except BaseException as error:
        return 70, f"{type(error).__name__}: {error}"


def in_a_child(attack: Attack, path: Path) -> tuple[int, str, float, float]:
    """:func:`open_here` in a fork with little room: status, message, seconds, megabytes."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.chdir(path.parent)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + ROOM
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.perf_counter()
        status, message = open_here(attack, path)
        took = time.perf_counter() - start
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        os.write(writer, json.dumps([status, message[:2000], took, grown]).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        said = stream.read()
    os.waitpid(child, 0)
    if not said:
        return 70, "ended without a word", 0.0, 0.0
    status, message, took, grown = json.loads(said)
    return int(status), str(message), float(took), float(grown)


def examined(attack: Attack, scanners: Path | None) -> Row:
    """One file, here and there."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            path = attack.build(folder)
        before = listing(folder)
        status, message, took, grown = in_a_child(attack, path)
        same = listing(folder) == before
        message = message.replace(str(path), "FILE").replace(str(folder), "FOLDER")
        here = f"{status}: {message}" if same else f"RAN OR WROTE; {status}: {message}"
        row = Row(attack, here, same and (status == 2) == attack.refused, took, grown)
        if scanners is not None:
            for scanner in SCANNERS:
                row.others[scanner] = asked(scanner, scanners, path)
                if listing(folder) != before:
                    row.others[scanner] += " AND RAN IT"
        return row


def asked(scanner: str, venv: Path, path: Path) -> str:
    """What a scanner says of a file."""
    commands = {
        "modelscan": ["modelscan", "-p", str(path), "-r", "json"],
        "picklescan": ["picklescan", "-p", str(path)],
        "fickling": ["python", "-c", FICKLING, str(path)],
    }
    command = commands[scanner]
    limit = f'ulimit -v {MEMORY // 1024}; exec "$@"'
    words = ["bash", "-c", limit, "bash", str(venv / "bin" / command[0]), *command[1:]]
    try:
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            cwd=path.parent,
            check=False,
            env={**os.environ, "COLUMNS": "10000"},
        )
    except subprocess.TimeoutExpired:
        return f"no answer in {SECONDS} s"
    for stream in ("stdout", "stderr"):  # where the files lay is nobody's business
        text = getattr(done, stream).replace(str(path), "FILE").replace(str(path.parent), "FOLDER")
        setattr(done, stream, text)
    read = {"modelscan": _of_modelscan, "picklescan": _of_picklescan, "fickling": _of_fickling}
    return read[scanner](done)


def _of_modelscan(done: subprocess.CompletedProcess[str]) -> str:
    begin = done.stdout.find('{"summary"')
    if begin < 0:
        return f"failed: {_end(done)}"
    said = json.loads(done.stdout[begin:].replace("\n", " "))
    if said["issues"]:
        first = said["issues"][0]
        return f"{first['severity'].lower()}: {first['module']}.{first['operator']}"
    if said["errors"]:
        return "error: " + str(said["errors"][0].get("description", ""))[:80]
    return "no issue" if said["summary"]["total_issues"] == 0 and _scanned(said) else "not scanned"


def _scanned(said: dict[str, dict[str, dict[str, int]]]) -> bool:
    return bool(said["summary"]["scanned"]["total_scanned"])


def _of_picklescan(done: subprocess.CompletedProcess[str]) -> str:
    lines = done.stdout.splitlines() + done.stderr.splitlines()
    found = [line.partition(": ")[2] for line in lines if "FOUND" in line]
    if found:
        return found[0].replace(" FOUND", "")
    if "Scanned files: 0" in done.stdout and done.returncode == 0:
        return "not scanned"
    return "no issue" if done.returncode == 0 else f"failed: {_end(done)}"


def _of_fickling(done: subprocess.CompletedProcess[str]) -> str:
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        return f"failed: {_end(done)}"
    severity = lines[0].lower().replace("_", " ")
    return f"{severity} ({lines[1][:70]})" if len(lines) > 1 and lines[1] else severity


def _end(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stderr or done.stdout).strip().splitlines()
    return lines[-1][:80] if lines else f"status {done.returncode}"


def answer(said: str) -> str:
    """What was said, without its reason."""
    return said.partition(" (")[0]


def alarmed(said: str) -> bool:
    """Whether a scanner has warned of a file, not merely failed on it."""
    quiet = (
        "no issue",
        "not scanned",
        "likely safe",
        "nothing to scan",
        "failed",
        "error",
        "no answer",
    )
    return not said.startswith(quiet)


def versions(venv: Path) -> str:
    """Which scanners these are."""
    done = subprocess.run(
        [str(venv / "bin" / "python"), "-m", "pip", "list", "--format", "json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    there = {p["name"]: p["version"] for p in json.loads(done.stdout)}
    return ", ".join(f"{name} {there.get(name, 'not installed')}" for name in SCANNERS)


def _cell(text: str, most: int) -> str:
    flat = " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
    plain = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in flat)
    return plain if len(plain) <= most else plain[: most - 3] + "..."


def page(rows: list[Row], venv: Path | None) -> str:
    """The results, as Markdown."""
    hostile_rows = [r for r in rows if r.attack.refused]
    harmless = [r for r in rows if not r.attack.refused]
    wrong = [f"{r.attack.kind}: {r.attack.name}" for r in rows if not r.right]
    slowest = max(rows, key=lambda r: r.seconds)
    largest = max(rows, key=lambda r: r.megabytes)
    lines = [
        "# Hostile files",
        "",
        f"`python bench/hostile.py`, {date.today()}, Python {platform.python_version()}, "
        f"torch {torch.__version__}, {os.cpu_count()} cores, busy.",
        "",
        f"{sum(r.right for r in hostile_rows)} of {len(hostile_rows)} hostile files refused in one "
        f"line with status 2; {sum(r.right for r in harmless)} of {len(harmless)} good files, and "
        "files whose attack has no effect here, opened. Nothing ran and nothing was written"
        + (f", except: {', '.join(wrong)}." if wrong else "."),
        f"Slowest: {slowest.seconds:.1f} s ({slowest.attack.name}). Most memory: "
        f"{largest.megabytes:.0f} MB ({largest.attack.name}).",
        "",
    ]
    if venv is not None:
        usual = {answer(said) for r in rows if r.attack.kind == GOOD for said in r.others.values()}
        counts = Counter(
            s
            for r in hostile_rows
            for s, said in r.others.items()
            if alarmed(said) and answer(said) not in usual
        )
        of = ", ".join(f"{s} of {counts[s]}" for s in SCANNERS)
        lines += [
            f"Of these {len(hostile_rows)}, the scanners ({versions(venv)}) warned of: {of}; "
            "an answer that a scanner gives to a good file, too, is no warning. They "
            "look for calls of known functions in pickles. Files that are broken, too large, or "
            "hostile only to torch's own readers are outside of what they promise: this table says "
            "what each tool answers and is no ranking.",
            "",
        ]
    head = ["kind", "what it tries", "here", "s", "MB", *(SCANNERS if venv is not None else ())]
    lines += [_line(head), _line(["---"] * len(head))]
    for row in rows:
        cells = [row.attack.kind, _cell(row.attack.name, 60), _cell(row.here, 160)]
        cells += [f"{row.seconds:.2f}", f"{row.megabytes:.0f}"]
        lines.append(_line([*cells, *(_cell(said, 60) for said in row.others.values())]))
    return "\n".join(lines) + "\n"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="what hostile files do, here and elsewhere")
    parser.add_argument("--scanners", type=Path, help="environment with the other scanners")
    parser.add_argument("--only", default="", help="files whose kind or name has this in it")
    parser.add_argument("--out", type=Path, help="file to write, instead of the screen")
    options = parser.parse_args()
    rows = []
    for attack in attacks():
        if options.only in f"{attack.kind}: {attack.name}":
            rows.append(examined(attack, options.scanners))
            if sys.stderr.isatty():
                print(f"\r{len(rows)} files", end="", file=sys.stderr)
    text = page(rows, options.scanners)
    if options.out is None:
        print(text)
    else:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

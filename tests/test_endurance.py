"""What holds when it is done often, when it is stopped, when disks are full, and when files change
under it. ``bench/endurance.py`` does the same for longer."""

from __future__ import annotations

import gc
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from bench.endurance import MODELS, SAMPLES, at_once, command, examine, held, interrupted
from gradscope.config import DataSettings, LoadSettings
from gradscope.errors import GradscopeError
from gradscope.loading import load_model, load_sample
from gradscope.model import LoadedModel


def test_examinations_leave_nothing_behind():
    def once() -> None:
        for model in MODELS:
            assert examine(model) == 0

    for _ in range(2):
        once()
    before, frozen = held(), gc.get_freeze_count()
    for _ in range(8):
        once()
    after = held()
    assert gc.get_freeze_count() == frozen, "what is frozen is never collected, garbage or not"
    same = ("files", "threads", "hooks", "modules", "tensors")
    assert [getattr(after, n) for n in same] == [getattr(before, n) for n in same]
    assert after.megabytes < before.megabytes + 5, "options that are built anew take 13"


@pytest.mark.parametrize("inside", ["{}", "exec({!r})"], ids=["code", "exec"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_one_line(number: signal.Signals, inside: str, tmp_path: Path):
    """Sent when the model's passes begin, and a temporary file of the report's would be there.
    Within ``exec``, as while modules are imported, Python would remember it and end by SIGINT."""
    call = inside.format(f"signal.raise_signal({int(number)})")
    (tmp_path / "stop.py").write_text(
        "import signal, torch\n"
        "def loss(output, labels):\n"
        f"    {call}\n"
        "    return torch.nn.functional.cross_entropy(output, labels)\n"
    )
    out = tmp_path / "out.json"
    loss = f"{tmp_path / 'stop.py'}:loss"
    words = [*command(out), "--loss", loss]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, env=environment,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # ignored under nohup
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (128 + number, "")
    assert done.stderr == "gradscope: interrupted.\n"
    assert [p.name for p in tmp_path.iterdir() if p.name != "__pycache__"] == ["stop.py"]


@pytest.mark.parametrize("seed", range(4))
def test_signals_at_random_moments(seed: int, tmp_path: Path):
    """From Python's start to the last byte of the report. SIGINT is the bench's: until the tool's
    own first line runs, Python answers it by a traceback."""
    after = random.Random(seed).uniform(0, 4)
    assert not interrupted(signal.SIGTERM, after, tmp_path).startswith("wrong")


def test_several_processes_on_one_model_file(tmp_path: Path):
    """``bench/endurance.py`` has ten."""
    assert at_once(3, tmp_path) == "3 of 3 ended with 0, 1 different reports"


LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
import gradscope.cli.main as cli, torch
status = 0
for arguments in {runs!r}:
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
    sys.stderr.write(str(cli.main(arguments)) + "\\n")
"""


def test_a_full_disk_leaves_no_part_of_a_file(tmp_path: Path):
    """As files of at most 2000 bytes: every writer but those of ``fix``, which have their own."""
    torch.manual_seed(0)
    torch.save(nn.Sequential(nn.Linear(64, 40), nn.Tanh(), nn.Linear(40, 10)), tmp_path / "m.pt")
    data = ["--data", str(SAMPLES / "digits_val.npz")]
    runs = [
        *(["inspect", "m.pt", *data, "--format", f, "--out", f"out.{f}"] for f in ("json", "html")),
        ["inspect", "m.pt", *data, "--save-gradients", "gradients.safetensors"],
        ["check", "m.pt", *data, "--format", "sarif", "--output", "sarif:out.sarif"],
    ]
    before = sorted(p.name for p in tmp_path.iterdir())
    done = subprocess.run(
        [sys.executable, "-c", LIMITED.format(runs=runs)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = done.stderr.splitlines()
    refusals = [line for line in lines if "cannot be written" in line]
    assert len(refusals) == len(runs), lines
    assert [line for line in lines if line.isdigit()] == ["2"] * len(runs), lines
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def _module(fill: float) -> nn.Module:
    module = nn.Linear(200, 200)
    for parameter in module.parameters():
        nn.init.constant_(parameter, fill)
    return module


def _graph(path: Path, fill: float) -> None:
    weights = np.full((300, 300), fill, np.float32)
    make = onnx.helper
    value = make.make_tensor_value_info
    graph = make.make_graph(
        [make.make_node("MatMul", ["x", "w"], ["y"])], "g",
        [value("x", 1, ["n", 300])], [value("y", 1, ["n", 300])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )  # fmt: skip
    onnx.save(
        make.make_model(graph, opset_imports=[make.make_opsetid("", 18)], ir_version=10), path
    )


def _samples(fill: float) -> dict[str, np.ndarray]:
    return {"x": np.full((3000, 4), fill, np.float32), "y": np.full(3000, int(fill))}


def _table(path: Path, fill: float) -> None:
    path.write_text("a,b,c,d,y\n" + f"{fill},{fill},{fill},{fill},{int(fill)}\n" * 3000)


def _parquet(path: Path, fill: float) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: np.full(3000, fill, np.float32) for name in "abcd"}
    table = pa.table({**columns, "y": np.full(3000, int(fill))})
    pq.write_table(table, path, row_group_size=300)


def _weights(path: Path) -> list[torch.Tensor]:
    model = load_model(str(path), LoadSettings())
    module = model.module
    return list(module.parameters()) if module is not None else list((model.state or {}).values())


def _batches(path: Path) -> list[torch.Tensor]:
    model = LoadedModel("m", "f", nn.Linear(4, 3))
    sample = load_sample(model, DataSettings(data=str(path), samples=None, batch_size=100))
    return [t for b in sample.batches() for t in (*b.args, b.labels) if t is not None]


Write = Callable[[Path, float], object]
READ: dict[str, tuple[Write, Callable[[Path], list[torch.Tensor]]]] = {
    "m.pt": (lambda p, f: torch.save(_module(f), p), _weights),
    "m.safetensors": (lambda p, f: save_file(_module(f).state_dict(), p), _weights),
    "m.onnx": (_graph, _weights),
    "d.npz": (lambda p, f: np.savez(p, **_samples(f)), _batches),
    "d.csv": (_table, _batches),
    "d.parquet": (_parquet, _batches),
}


@pytest.mark.parametrize("name", READ)
def test_a_file_replaced_while_it_is_read_is_never_mixed(name: str, tmp_path: Path):
    """Two versions, all ones and all twos, take turns; either is read whole, or neither."""
    write, read = READ[name]
    versions = [tmp_path / f"{i}.{name}" for i in (1, 2)]
    for fill, version in enumerate(versions, 1):
        write(version, float(fill))
    path, stop, seen = tmp_path / name, threading.Event(), set[float]()
    shutil.copy(versions[0], path)

    def swap() -> None:
        turn = 0
        while not stop.wait(0.0005):
            shutil.copy(versions[turn % 2], tmp_path / "next")
            os.replace(tmp_path / "next", path)
            turn += 1

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(25):
            try:
                values = {float(v.detach()) for t in read(path) for v in (t.min(), t.max())}
            except GradscopeError:
                continue
            assert len(values) == 1, values
            seen |= values
    finally:
        stop.set()
        thread.join()
    assert seen <= {1.0, 2.0}

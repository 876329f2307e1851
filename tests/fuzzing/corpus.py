"""Good files of every format, and what damages and opens each."""

from __future__ import annotations

import io
import json
import random
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import nn

from gradscope.config import DataSettings, LoadSettings
from gradscope.loading import load_model, load_sample
from gradscope.model import LoadedModel
from gradscope.settings_file import find_settings
from tests.architectures import mlp
from tests.fuzzing import binary, jail, pickles, raw, reports, trees, zips
from tests.hostile_exports import sound
from tests.loading.onnx.broken import GOOD as GRAPHS
from tests.loading.onnx.broken import beside

MODELS = Path(__file__).parents[2] / "sample_models"
_FEW = DataSettings(samples=4, batch_size=4)
Files = Mapping[str, bytes]  # name -> content; the first one is opened
Damage = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        good: files that open.
        damage: to the first file, or to whichever is drawn.
        open: opens a file.
    """

    good: Callable[[], list[Files]]
    damage: Damage
    open: jail.Open

    def case(self, kind: str, seed: int) -> jail.Case:
        """The case of a seed."""
        return jail.Case(kind, seed, lambda folder: self._write(seed, folder), self.open)

    def _write(self, seed: int, folder: Path) -> Path:
        rng = random.Random(seed)
        files = dict(rng.choice(self.good()))
        names = list(files)
        hit = names[0] if rng.random() < 0.9 else rng.choice(names)
        damage = self.damage if hit == names[0] else raw.damaged
        files[hit] = damage(files[hit], rng)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return folder / names[0]


def open_model(path: Path) -> None:
    """As ``inspect`` does: the file, and one run on a few made-up samples."""
    model = load_model(str(path), LoadSettings())
    if model.module is not None:
        sample = load_sample(model, _FEW)
        next(iter(sample.batches()))


def open_data(path: Path) -> None:
    """All samples of a file, for a model that takes four numbers."""
    model = LoadedModel("m", "f", nn.Linear(4, 3))
    list(load_sample(model, DataSettings(data=str(path))).batches())


def _saved(value: object, legacy: bool = False) -> bytes:
    out = io.BytesIO()
    torch.save(value, out, _use_new_zipfile_serialization=not legacy)
    return out.getvalue()


def _network() -> nn.Module:
    torch.manual_seed(0)
    spectral = nn.utils.spectral_norm(nn.Linear(3, 2))
    return nn.Sequential(nn.Linear(3, 3), nn.Tanh(), spectral)


def _checkpoint() -> object:
    module = _network()
    optimizer = torch.optim.Adam(module.parameters())
    return {"state_dict": module.state_dict(), "epoch": 3, "optimizer": optimizer.state_dict()}


def _picture() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten())


def _values() -> list[object]:
    attends = nn.TransformerEncoderLayer(4, 2, 4, batch_first=True)
    return [mlp(), _network(), nn.LSTM(3, 2), _checkpoint(), _picture().state_dict(), attends]


@cache
def _zipped() -> list[Files]:
    real = [(MODELS / name).read_bytes() for name in ("relu.pt", "residual_state.pt")]
    return [{"m.pt": data} for data in (*real, *map(_saved, _values()))]


@cache
def _legacy() -> list[Files]:
    return [{"m.pt": _saved(value, legacy=True)} for value in _values()]


@cache
def _scripts() -> list[Files]:
    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(3):
                x = torch.sigmoid(self.a(x)) * torch.tanh(x)
            return self.b(x)

    files = list[Files]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in (torch.jit.script(Gate()), torch.jit.trace(mlp(), torch.zeros(2, 6))):
            out = io.BytesIO()
            torch.jit.save(module, out)
            files.append({"m.pt": out.getvalue()})
    return files


@cache
def _programs() -> list[Files]:
    records = [(f"model/{name}", data, 0) for name, data in sound().items()]
    return [{"m.pt2": zips._write(records)}]


def _state() -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in _network().state_dict().items()}


@cache
def _index() -> list[Files]:
    weights = {
        "weight_map": dict.fromkeys(_state(), "a.safetensors"),
        "metadata": {"total_size": 9},
    }
    return [{"m.index.json": json.dumps(weights).encode(), "a.safetensors": save(_state())}]


def _graph(build: Callable[[Path], Path]) -> Files:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        path = build(Path(name))
        others = {p.name: p.read_bytes() for p in Path(name).iterdir() if p != path}
        return {path.name: path.read_bytes(), **others}


@cache
def _graphs() -> list[Files]:
    real = [(MODELS / name).read_bytes() for name in ("deep_tanh.onnx", "lstm.onnx")]
    return [{"m.onnx": data} for data in real] + [_graph(b) for b in (*GRAPHS.values(), beside)]


def _arrays() -> dict[str, np.ndarray]:
    x = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    return {"x": x, "y": np.arange(30) % 3}


@cache
def _npz() -> list[Files]:
    files = list[Files]()
    for write in (np.savez, np.savez_compressed):
        out = io.BytesIO()
        write(out, **_arrays())
        files.append({"d.npz": out.getvalue()})
    return files


@cache
def _npy() -> list[Files]:
    out = io.BytesIO()
    np.save(out, _arrays()["x"])
    return [{"d.npy": out.getvalue()}]


@cache
def _csv() -> list[Files]:
    arrays = _arrays()
    rows = ["a,b,c,d,y"]
    for x, y in zip(arrays["x"], arrays["y"], strict=True):
        rows.append(",".join([*(f"{v:.5g}" for v in x), "uvw"[y]]))
    bare = [row.rpartition(",")[0] for row in rows[1:]]  # no header, no labels
    return [{"d.csv": "\n".join(text).encode() + b"\n"} for text in (rows, bare)]


@cache
def _parquet() -> list[Files]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays = _arrays()
    flat = {name: arrays["x"][:, i] for i, name in enumerate("abcd")}
    lists = {"x": arrays["x"].tolist()}
    files = list[Files]()
    for columns, codec in ((flat, "snappy"), (lists, "none"), (flat, "zstd")):
        out = io.BytesIO()
        table = pa.table({**columns, "y": ["uvw"[y] for y in arrays["y"]]})
        pq.write_table(table, out, compression=codec, row_group_size=10)
        files.append({"d.parquet": out.getvalue()})
    return files


def _tensors() -> list[Files]:
    return [{"d.pt": _saved({k: torch.from_numpy(v) for k, v in _arrays().items()})}]


def _safe_tensors() -> list[Files]:
    return [{"d.safetensors": save({k: torch.from_numpy(v) for k, v in _arrays().items()})}]


SETTINGS = b"""data = "data/sample.npz"
val = "data/held_out.npz"
fail-on = "warning"
baseline = "gradscope-baseline.json"
ignore = ["GS106"]
format = ["terminal", "github"]
output = ["sarif:gradscope.sarif"]
samples = 100
seed = 3
input-shape = ["x=3x32x32"]
[rules]
GS101.total = -4
dead-relu.warning = 0.9
[[model]]
path = "models/*.pt"
arch = "net.py:Net"
arch-args = {width = 3, deep = true}
"""

FORMATS: dict[str, Format] = {
    "pt": Format(_zipped, zips.archive, open_model),
    "pt, legacy": Format(_legacy, pickles.legacy, open_model),
    "TorchScript": Format(_scripts, zips.archive, open_model),
    "pt2": Format(_programs, zips.archive, open_model),
    "safetensors": Format(
        lambda: [{"m.safetensors": save(_state())}], binary.safetensors, open_model
    ),
    "index of shards": Format(_index, trees.json_text, open_model),
    "ONNX": Format(_graphs, binary.onnx_file, open_model),
    "npz": Format(_npz, zips.archive, open_data),
    "npy": Format(_npy, zips.npy, open_data),
    "csv": Format(_csv, binary.csv_text, open_data),
    "Parquet": Format(_parquet, binary.parquet, open_data),
    "pt of samples": Format(_tensors, zips.archive, open_data),
    "safetensors of samples": Format(_safe_tensors, binary.safetensors, open_data),
    "settings": Format(
        lambda: [{"gradscope.toml": SETTINGS}],
        trees.toml_text,
        lambda path: find_settings(path.parent),
    ),
    "baseline": Format(reports.baselines, trees.json_text, reports.open_baseline),
    "report": Format(reports.good_reports, trees.json_text, reports.open_report),
}

"""Checkpoints as training frameworks write them, tensors of every kind, classes of the user's."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import enum
import json
import pathlib
import re
import shlex
import sys
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from gradscope.config import LoadSettings
from gradscope.errors import GradscopeError, UntrustedError
from gradscope.loading import load_model
from tests.loading.test_models import SOURCE


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    HIGH = 2


@dataclasses.dataclass
class Settings:
    rate: float = 0.1
    path: pathlib.Path = pathlib.Path("/tmp")


Point = type("Point", (tuple,), {"__module__": __name__})
STATE = OrderedDict({"layer.weight": torch.arange(6.0).reshape(2, 3), "layer.bias": torch.ones(2)})


def stepped() -> torch.optim.Optimizer:
    module = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(3)).sum().backward()
    optimizer.step()
    return optimizer


def prefixed(prefix: str) -> dict[str, torch.Tensor]:
    return {f"{prefix}{key}": value for key, value in STATE.items()}


BESIDE: dict[str, Callable[[], Any]] = {
    "namespace": lambda: argparse.Namespace(lr=0.1, layers=[1, 2]),
    "simple namespace": lambda: types.SimpleNamespace(lr=0.1),
    "enum": lambda: Colour.RED,
    "int enum": lambda: Level.HIGH,
    "enum as a key": lambda: {Colour.RED: 1, Level.HIGH: 2},
    "dataclass": Settings,
    "path": lambda: pathlib.Path("a/b"),
    "path as a key": lambda: {pathlib.Path("a/b"): 1},
    "time": lambda: datetime.datetime(2024, 1, 2, 3, 4),
    "time difference": lambda: datetime.timedelta(seconds=3),
    "numpy number": lambda: np.float64(0.5),
    "numpy truth": lambda: np.bool_(True),
    "numpy array": lambda: np.arange(6.0),
    "numpy random state": lambda: np.random.default_rng(0).bit_generator.state,
    "numpy generator": lambda: np.random.RandomState(0),
    "counter": lambda: Counter({10: 1}),
    "defaultdict": lambda: defaultdict(list, a=[1]),
    "deque": lambda: deque([1, 2], maxlen=5),
    "frozen set": lambda: frozenset({1, "a"}),
    "bytes": lambda: b"\x00\xff",
    "bytearray": lambda: bytearray(b"\x00\xff"),
    "complex": lambda: 1 + 2j,
    "range and slice": lambda: (range(3), slice(1, 2)),
    "type and layout": lambda: (torch.float16, torch.strided),
    "device and size": lambda: (torch.device("cuda:1"), torch.Size([1, 2])),
    "random state": torch.get_rng_state,
    "optimizer's state": lambda: stepped().state_dict(),
    "optimizer": stepped,
    "scheduler": lambda: torch.optim.lr_scheduler.StepLR(stepped(), 1),
    "scheduler's state": lambda: torch.optim.lr_scheduler.MultiStepLR(stepped(), [1]).state_dict(),
    "scaler": lambda: torch.amp.GradScaler("cpu").state_dict(),
    "pairs as keys": lambda: {("a", "b"): 0, ("c", "d"): 1},
    "sparse tensor": lambda: torch.eye(3).to_sparse(),
    "quantised tensor": lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
    "tensor on meta": lambda: torch.ones(3, device="meta"),
    "class": lambda: Settings,
    "big number": lambda: 2**64,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", BESIDE)
def test_what_stands_beside_the_weights_is_no_obstacle(name: str, legacy: bool, tmp_path: Path):
    path = tmp_path / "c.ckpt"
    whole = {"state_dict": STATE, "epoch": 3, "beside": BESIDE[name]()}
    torch.save(whole, path, _use_new_zipfile_serialization=not legacy)
    model = load_model(str(path), LoadSettings())
    assert all(torch.equal(model.state[key], value) for key, value in STATE.items())
    assert any("'state_dict'" in note for note in model.notes)


LAYOUTS: dict[str, tuple[Callable[[], Any], dict[str, Any], str]] = {
    # what is saved, settings, what a note says
    "Lightning": (
        lambda: {
            "state_dict": prefixed("net."),
            "hyper_parameters": {"lr": 0.1},
            "callbacks": {"ModelCheckpoint": {"best": torch.tensor(0.5), "dirpath": "a"}},
            "loops": {"fit_loop": {"state_dict": {}}},
            "optimizer_states": [stepped().state_dict()],
            "lr_schedulers": [],
            "pytorch-lightning_version": "2.0",
        },
        {}, "prefix 'net.'",
    ),
    "timm": (
        lambda: {"state_dict": STATE, "state_dict_ema": prefixed(""), "optimizer": {}, "arch": "x"},
        {}, "'state_dict'",
    ),
    "timm, its average": (
        lambda: {"state_dict": prefixed("x."), "state_dict_ema": STATE},
        {"key": "state_dict_ema"}, "'state_dict_ema'",
    ),
    "detectron": (lambda: {"model": STATE, "optimizer": stepped().state_dict()}, {}, "'model'"),
    "mmcv": (
        lambda: {"meta": {"CLASSES": ("a", "b")}, "state_dict": prefixed("backbone."), "ema": {}},
        {}, "prefix 'backbone.'",
    ),
    "fairseq": (
        lambda: {
            "args": argparse.Namespace(arch="x"), "model": prefixed("decoder."),
            "last_optimizer_state": stepped().state_dict(), "extra_state": {"epoch": 3},
        },
        {}, "prefix 'decoder.'",
    ),
    "DeepSpeed": (lambda: {"module": STATE, "ds_version": "0.9"}, {}, "'module'"),
    "Accelerate": (lambda: prefixed("_orig_mod.module."), {}, "_orig_mod."),
    "FSDP": (lambda: prefixed("_fsdp_wrapped_module."), {}, "_fsdp_wrapped_module."),
    "torch.compile of a part": (
        lambda: {k.replace("layer.", "layer._orig_mod."): v for k, v in STATE.items()},
        {}, "_orig_mod.",
    ),
    "Lightning Fabric": (lambda: {"model": prefixed("_forward_module.")}, {}, "_forward_module."),
    "averaged": (
        lambda: {"n_averaged": torch.tensor(3), **prefixed("module.")}, {}, "prefix 'module.'",
    ),
    "moving average beside": (
        lambda: {"model": STATE, "ema": {"decay": 0.9, "shadow_params": [torch.zeros(2, 3)]}},
        {}, "'model'",
    ),
    "two networks": (
        lambda: {"generator": STATE, "discriminator": {"other": torch.ones(1000)}},
        {}, "discriminator",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_of_frameworks(name: str, tmp_path: Path):
    make, settings, said = LAYOUTS[name]
    (tmp_path / "net.py").write_text(SOURCE)
    torch.save(make(), tmp_path / "c.ckpt")
    settings = LoadSettings(arch=f"{tmp_path / 'net.py'}:Net", **settings)
    model = load_model(str(tmp_path / "c.ckpt"), settings)
    assert torch.equal(model.module.layer.weight, STATE["layer.weight"])
    assert any(said in note for note in model.notes), model.notes


@pytest.mark.parametrize("kind", ["bin", "bin, legacy", "safetensors"])
def test_shards_as_a_model_hub_has_them(kind: str, tmp_path: Path):
    (tmp_path / "net.py").write_text(SOURCE)
    names = {key: f"part-{i}.{kind[:3]}" for i, key in enumerate(STATE)}
    for key, name in names.items():
        if kind == "safetensors":
            save_file({key: STATE[key]}, tmp_path / name)
        else:
            legacy = kind.endswith("legacy")
            torch.save(
                {key: STATE[key]}, tmp_path / name, _use_new_zipfile_serialization=not legacy
            )
    index = tmp_path / "model.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 32}, "weight_map": names}))
    model = load_model(str(index), LoadSettings(arch=f"{tmp_path / 'net.py'}:Net"))
    assert torch.equal(model.module.layer.weight, STATE["layer.weight"])
    (tmp_path / names["layer.bias"]).unlink()
    with pytest.raises(GradscopeError, match=r"part-1.* is missing"):
        load_model(str(index), LoadSettings())


def test_what_stands_as_a_key_is_named_alike_in_every_run(tmp_path: Path):
    torch.save({"state_dict": STATE, Colour.RED: 1}, tmp_path / "c.pt")
    notes = " ".join(load_model(str(tmp_path / "c.pt"), LoadSettings()).notes)
    assert "(unbuilt)" in notes
    assert "0x" not in notes


def tied() -> Any:
    weight = torch.rand(3, 3)
    return {"a": weight, "b": weight, "c": weight.t(), "d": weight[1], "e": weight.expand(4, 3, 3)}


def marked() -> Any:
    tensor, parameter = torch.ones(2), nn.Parameter(torch.ones(2))
    tensor.tag = parameter.model_parallel = 3  # type: ignore[attr-defined]
    return {"a": tensor, "b": parameter}


TENSORS: dict[str, Callable[[], Any]] = {
    **{
        str(t).removeprefix("torch."): (lambda t=t: {"a": torch.ones(3).to(t)})
        for t in (
            torch.float64, torch.float16, torch.bfloat16, torch.complex64, torch.complex128,
            torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.uint8, torch.bool,
            torch.uint16, torch.int64,
        )
    },
    "0-d": lambda: {"a": torch.tensor(3.0)},
    "empty": lambda: {"a": torch.empty(0), "b": torch.empty(3, 0, 2)},
    "tied and strided": tied,
    "flipped": lambda: {"a": torch.arange(4.0).flip(0), "b": torch.rand(4, 4)[::2, 1::2]},
    "channels last": lambda: {"a": torch.rand(1, 3, 4, 4).to(memory_format=torch.channels_last)},
    "conjugated": lambda: {"a": torch.rand(3, dtype=torch.complex64).conj()},
    "negated": lambda: {"a": torch.rand(3, dtype=torch.complex64).conj().imag},
    "parameters": lambda: {"a": nn.Parameter(torch.ones(2)), "b": nn.Buffer(torch.ones(2))},
    "with attributes": marked,
    "not a leaf": lambda: {"a": torch.ones(2, requires_grad=True) * 2},
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", TENSORS)
def test_tensors_of_every_kind(name: str, legacy: bool, protocol: int, tmp_path: Path):
    torch.manual_seed(0)
    state, path = TENSORS[name](), tmp_path / "s.pt"
    torch.save(state, path, _use_new_zipfile_serialization=not legacy, pickle_protocol=protocol)
    loaded = load_model(str(path), LoadSettings()).state
    for key, value in state.items():
        assert loaded[key].dtype == value.dtype
        assert loaded[key].shape == value.shape
        assert loaded[key].detach().resolve_conj().tolist() == value.detach().tolist()


@pytest.mark.parametrize("device", ["cuda:0", "cuda:7", "mps", "xpu:0", "meta"])
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_tensors_of_another_device_open_on_the_cpu(device, legacy, tmp_path, monkeypatch):
    """Saved as if from there: the place is a text in the pickle."""
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: device)
    torch.save(STATE, tmp_path / "s.pt", _use_new_zipfile_serialization=not legacy)
    monkeypatch.undo()
    loaded = load_model(str(tmp_path / "s.pt"), LoadSettings()).state
    assert all(str(tensor.device) == "cpu" for tensor in loaded.values())
    assert torch.equal(loaded["layer.weight"], STATE["layer.weight"])


PARAMETRIZED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "weight norm": nn.utils.parametrizations.weight_norm,
    "spectral norm": nn.utils.parametrizations.spectral_norm,
    "orthogonal": nn.utils.parametrizations.orthogonal,
    "weight norm, old": nn.utils.weight_norm,
    "spectral norm, old": nn.utils.spectral_norm,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PARAMETRIZED)
def test_parametrized_weights_fit_their_architecture(name: str, tmp_path: Path, monkeypatch):
    wrapped = PARAMETRIZED[name]
    monkeypatch.setitem(
        sys.modules, "made", types.SimpleNamespace(net=lambda: wrapped(nn.Linear(3, 3)))
    )
    torch.manual_seed(0)
    module = wrapped(nn.Linear(3, 3)).eval()
    torch.save({"state_dict": module.state_dict()}, tmp_path / "s.pt")
    loaded = load_model(str(tmp_path / "s.pt"), LoadSettings(arch="made:net")).module.eval()
    x = torch.rand(2, 3)
    assert torch.equal(loaded(x), module(x))


OWN = """
from torch import nn

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.act = nn.Tanh()

    def forward(self, x):
        return self.act(x)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.blocks = nn.ModuleList([Block(), Block()])

    def forward(self, x):
        return self.blocks[0](self.layer(x))
"""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", ["__main__", "someones_network"])
def test_the_options_that_a_refusal_prints_work(name, legacy, tmp_path, monkeypatch):
    (tmp_path / "net.py").write_text(OWN)
    (tmp_path / "someones_network.py").write_text(OWN)
    space: dict[str, Any] = {"__name__": name}
    exec(OWN, space)
    fake = types.ModuleType(name)
    vars(fake).update(space)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, name, fake)
        torch.save(
            {"model": space["Net"](), "args": argparse.Namespace(a=1)},
            tmp_path / "m.pt",
            _use_new_zipfile_serialization=not legacy,
        )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UntrustedError) as error:
        load_model(str(tmp_path / "m.pt"), LoadSettings())
    options = re.search(r"add (--allow .*)", str(error.value))
    assert options is not None, error.value
    words = shlex.split(options[1])
    allow = [words[i + 1] for i, word in enumerate(words) if word == "--allow"]
    allow = [a.replace("FILE.py", str(tmp_path / "net.py")) for a in allow]
    model = load_model(str(tmp_path / "m.pt"), LoadSettings(allow=tuple(allow)))
    assert type(model.module).__name__ == "Net"
    assert model.module(torch.ones(1, 3)).shape == (1, 2)
    sys.modules.pop("someones_network", None)


@pytest.mark.parametrize("chosen", ["model", "ema"])
def test_key_chooses_among_whole_modules(chosen: str, tmp_path: Path):
    torch.save({"ema": nn.Linear(2, 2), "model": nn.Linear(3, 3)}, tmp_path / "m.pt")
    settings = LoadSettings(key=None if chosen == "model" else chosen)
    model = load_model(str(tmp_path / "m.pt"), settings)
    assert model.module.in_features == (3 if chosen == "model" else 2)
    other = "ema" if chosen == "model" else "model"
    assert any(chosen in note and other in note for note in model.notes), model.notes


def test_a_key_that_names_nothing(tmp_path: Path):
    torch.save({"ema": nn.Linear(2, 2), "epoch": 3}, tmp_path / "m.pt")
    with pytest.raises(GradscopeError, match="ema"):
        load_model(str(tmp_path / "m.pt"), LoadSettings(key="no such key"))

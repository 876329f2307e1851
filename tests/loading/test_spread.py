"""``--device-map``: the numbers are those of a model in memory, and nothing is left behind."""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import dispatch_model
from torch import nn

from gradscope.config import DataSettings, LoadSettings, ProbeSettings, Settings
from gradscope.errors import LoadError, OptionError
from gradscope.loading import load_model, on_disk, spread
from gradscope.loading.on_disk import _Mapped
from gradscope.pipeline import inspect
from gradscope.ranks import Alone

SAMPLES = Path(__file__).parents[2] / "sample_models"
DATA = str(SAMPLES / "digits_val.npz")


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    return tmp_path / "scratch"


def _settings(model: str, data: str | None = DATA, **probe: object) -> Settings:
    chosen = replace(ProbeSettings(), **probe)
    return Settings(model, data=DataSettings(data=data, samples=64), probe=chosen)


def _map(folder: Path, places: object) -> str:
    (folder / "map.json").write_text(json.dumps(places))
    return str(folder / "map.json")


def _model() -> nn.Module:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    return nn.Sequential(nn.Linear(4, 8), layer, nn.Linear(8, 3))


PLACES: dict[str, object] = {
    "auto": "auto",
    "disk": "disk",
    "cpu and disk": {"0": "disk", "": "cpu"},
    "all named": {"0": "cpu", "1": "cpu", "2": "disk"},
}


@pytest.mark.parametrize("name", PLACES)
def test_the_numbers_are_those_of_a_model_in_memory(
    name: str, tmp_path: Path, scratch: Path
) -> None:
    torch.save(_model(), tmp_path / "m.pt")
    torch.save({"x": torch.randn(20, 5, 4)}, tmp_path / "d.pt")
    plain = _settings(str(tmp_path / "m.pt"), str(tmp_path / "d.pt"))
    places = PLACES[name]
    text = places if isinstance(places, str) else _map(tmp_path, places)
    spread_out = replace(plain, probe=replace(plain.probe, device_map=text))
    before, after = inspect(plain).measurements, inspect(spread_out).measurements
    assert "--device-map" in after.model.notes[-1]
    assert replace(after, model=before.model) == before
    assert list(scratch.iterdir()) == []


def test_parameters_on_disk_are_mapped_and_take_gradients(tmp_path: Path, scratch: Path) -> None:
    model = load_model(str(SAMPLES / "relu.pt"), LoadSettings())
    assert model.module is not None
    values = {n: p.clone() for n, p in model.module.named_parameters()}
    places = _map(tmp_path, {"0": "disk", "": "cpu"})
    with spread(model, places) as (found, device):
        assert (device, found.placed) == ("cpu", True)
        mapped = _Mapped()
        parameters = dict(model.module.named_parameters())
        assert {n for n, p in parameters.items() if mapped.holds(p)} == {"0.weight", "0.bias"}
        assert all(torch.equal(p, values[n]) for n, p in parameters.items())
        model.module(torch.randn(2, 64)).sum().backward()
        assert all(p.grad is not None for p in parameters.values())
        assert len(list(scratch.rglob("*.bin"))) == 2
    assert list(scratch.iterdir()) == []


def test_what_is_mapped_already_is_not_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scratch: Path
) -> None:
    monkeypatch.setattr("gradscope.loading.pytorch.MAPPED", 0)
    torch.save(nn.Sequential(nn.Linear(64, 64), nn.Tanh()), tmp_path / "m.pt")
    with spread(load_model(str(tmp_path / "m.pt"), LoadSettings()), "disk") as (found, _):
        assert list(scratch.rglob("*.bin")) == []
        assert found.notes[-1] == "modules by --device-map: all of it on disk"


def test_an_error_leaves_no_folder(tmp_path: Path, scratch: Path) -> None:
    model = load_model(str(SAMPLES / "relu.pt"), LoadSettings())

    def stopped() -> None:
        with spread(model, "disk"):
            assert list(scratch.iterdir())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert list(scratch.iterdir()) == []


def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch, scratch: Path) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(on_disk, "_write", full)
    model = load_model(str(SAMPLES / "relu.pt"), LoadSettings())
    with pytest.raises(LoadError, match="no room for parameters"), spread(model, "disk"):
        pass
    assert list(scratch.iterdir()) == []


REFUSED: dict[str, tuple[object, str]] = {
    "no file": ("nowhere.json", "there is no file 'nowhere.json'"),
    "no map": ([1, 2], "is no map"),
    "an empty map": ({}, "is no map"),
    "a device in a list": ({"": ["cpu"]}, "is no map"),
    "no such module": ({"7": "cpu", "": "cpu"}, "the model has no module '7'"),
    "a module left out": ({"0": "cpu"}, r"says nothing of 2\.bias, 2\.weight"),
    "no such device": ({"": "tpu9"}, "there is no device 'tpu9'"),
    "no such GPU": ({"": 93}, "there is no device '93'"),
    "a device without numbers": ({"": "meta"}, "there is no device 'meta'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_no_sense_is_refused(name: str, tmp_path: Path) -> None:
    places, words = REFUSED[name]
    text = places if isinstance(places, str) else _map(tmp_path, places)
    with pytest.raises(OptionError, match=words):
        inspect(_settings(str(SAMPLES / "relu.pt"), device_map=text))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("deep_tanh.onnx", "is a graph, which runs on one device"),
        ("residual_state.pt", "nothing to run without --arch"),
    ],
)
def test_models_without_modules_are_refused(model: str, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        inspect(_settings(str(SAMPLES / model), device_map="disk"))


def test_beside_another_device_or_process_it_is_refused() -> None:
    settings = _settings(str(SAMPLES / "relu.pt"), device_map="disk")
    both = replace(settings, probe=replace(settings.probe, device="meta"))
    with pytest.raises(OptionError, match="says itself where the model runs"):
        inspect(both)
    with pytest.raises(OptionError, match="for a single process"):
        inspect(settings, ranks=Alone(size=2))


def test_without_accelerate_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(OptionError, match=r"pip install 'gradscope-cli\[accelerate\]'"):
        inspect(_settings(str(SAMPLES / "relu.pt"), device_map="disk"))


def test_accelerate_s_own_offloading_would_lose_gradients(tmp_path: Path) -> None:
    """Why it is not used: if this fails, it has become an alternative."""
    module = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    dispatch_model(module, {"0": "cpu", "1": "cpu", "2": "disk"}, offload_dir=str(tmp_path))
    module(torch.randn(3, 4)).sum().backward()
    found = {n: (p.device.type, p.grad is not None) for n, p in module.named_parameters()}
    assert found["0.weight"] == ("cpu", True)
    assert found["2.weight"] == ("meta", False)

"""Weights as people save them without a framework's help, and parts of what frameworks save."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from gradscope.config import LoadSettings
from gradscope.errors import GradscopeError
from gradscope.loading import load_model
from gradscope.measurements import State
from gradscope.probe.weights import weight_stats

ARCH = """
from torch import nn


def net():
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.BatchNorm1d(5), nn.Linear(5, 2))
"""


def net() -> nn.Module:
    torch.manual_seed(3)
    module = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.BatchNorm1d(5), nn.Linear(5, 2))
    with torch.no_grad():
        for p in module.parameters():
            p.uniform_(-1, 1)
    return module


NET = net()
STATE = NET.state_dict()
ROW = [p.detach().clone() for p in NET.parameters()]


def optimizer() -> dict[str, Any]:
    stepper = torch.optim.Adam(net().parameters())
    sum(p.sum() for p in stepper.param_groups[0]["params"]).backward()
    stepper.step()
    return stepper.state_dict()


WORK: dict[str, tuple[Callable[[], Any], str]] = {
    "moving averages, alone": (
        lambda: {"decay": 0.99, "num_updates": 3, "shadow_params": ROW, "collected_params": None},
        "6 tensors without names: taken in the order of the parameters; buffers are those",
    ),
    "a list of tensors": (lambda: ROW, "6 tensors without names"),
    "a tuple of weights and more": (lambda: (STATE, {"epoch": 3}), "taken from '0'"),
    "a list with an unknown object": (
        lambda: [argparse.Namespace(lr=1), STATE], "taken from '1'"
    ),
    "numbers as keys": (lambda: {0: STATE, 1: STATE}, "taken from '0'"),
    "several in a list": (lambda: {"model": [STATE, STATE], "epoch": 1}, "taken from 'model.0'"),
    "an optimizer under another name": (
        lambda: {"last_optimizer_state": optimizer(), "best": STATE}, "taken from 'best'"
    ),
    "an optimizer in a list": (
        lambda: {"opts": [optimizer(), optimizer()], "best": STATE}, "taken from 'best'"
    ),
    "two levels down": (lambda: {"checkpoint": {"weights": STATE}}, "'checkpoint.weights'"),
    "averages beside weights": (
        lambda: {"state_dict": STATE, "ema": {"shadow_params": ROW}}, "ema.shadow_params ignored"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WORK)
def test_what_works(name: str, tmp_path: Path) -> None:
    make, note = WORK[name]
    torch.save(make(), tmp_path / "m.pt")
    (tmp_path / "arch.py").write_text(ARCH)
    settings = LoadSettings(arch=f"{tmp_path}/arch.py:net")
    model = load_model(str(tmp_path / "m.pt"), settings)
    assert any(note in n for n in model.notes), model.notes
    assert model.module is not None
    for (key, got), wanted in zip(model.module.named_parameters(), ROW, strict=True):
        assert torch.equal(got, wanted), key
    assert not any("left out: model" in n for n in model.notes)


def _empty() -> dict[str, Tensor]:
    return {k: torch.empty(0) for k in STATE}


def _quantised() -> nn.Module:
    # torch announces the end of this; files of it are there all the same.
    return torch.ao.quantization.quantize_dynamic(net(), {nn.Linear}, dtype=torch.qint8)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "too few in a row": (lambda: ROW[:-1], "5 tensors without names do not fit the 6 parameters"),
    "others in a row": (
        lambda: [*ROW[:2], torch.ones(7), *ROW[3:]], r"number 2 is \(7,\), 2.weight is \(5,\)"
    ),
    "one tensor": (lambda: ROW[0], "holds a Tensor, not a model"),
    "an optimizer alone": (optimizer, "It is an optimizer's: the weights are in another file"),
    "a part of a sharded optimizer": (
        lambda: {"optimizer_state_dict": {"zero_stage": 2}, "ds_version": "0.12"}, "zero_to_fp32.py"
    ),
    "weights that lie in parts elsewhere": (
        lambda: {"module": _empty(), "param_shapes": [{}], "ds_version": "0.12"},
        "its weights are empty: .* zero_to_fp32.py",
    ),
    "quantised weights": (
        lambda: _quantised().state_dict(), "holds quantised weights, and no gradient flows"
    ),
    "a quantised tensor among others": (
        lambda: {**STATE, "0.weight": torch.quantize_per_tensor(ROW[0], 0.1, 0, torch.qint8)},
        "holds quantised weights",
    ),
    "sparse weights": (
        lambda: {**STATE, "0.weight": ROW[0].to_sparse()}, r"holds sparse weights.*to_dense\(\)"
    ),
    "settings": (lambda: {"lr": 0.1}, r"holds no state_dict \(it has: lr\)"),
    "nothing": (list, "holds no state_dict"),
    "torch's own average": (
        lambda: torch.optim.swa_utils.AveragedModel(net()),
        "--allow torch.optim.swa_utils.AveragedModel",
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_says_what_to_do(name: str, tmp_path: Path) -> None:
    make, words = REFUSED[name]
    torch.save(make(), tmp_path / "m.pt")
    (tmp_path / "arch.py").write_text(ARCH)
    with pytest.raises(GradscopeError) as caught:
        load_model(str(tmp_path / "m.pt"), LoadSettings(arch=f"{tmp_path}/arch.py:net"))
    assert re.search(words, str(caught.value)), str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("make", [nn.ModuleList, nn.ModuleDict])
def test_modules_without_forward_show_their_weights(make: Any, tmp_path: Path) -> None:
    parts = [nn.Linear(3, 3), nn.Linear(3, 3)]
    torch.save(make(parts if make is nn.ModuleList else {"a": parts[0]}), tmp_path / "m.pt")
    model = load_model(str(tmp_path / "m.pt"), LoadSettings())
    assert model.module is None
    assert len(model.state) == (4 if make is nn.ModuleList else 2)
    assert f"a {make.__name__} has no forward" in model.missing[0][1]


def test_folders_say_which_file(tmp_path: Path) -> None:
    folder = tmp_path / "hub"
    folder.mkdir()
    save_file({k: v.clone() for k, v in STATE.items()}, folder / "model.safetensors")
    with pytest.raises(GradscopeError, match=r"Name the model file in it: .*model\.safetensors"):
        load_model(str(folder), LoadSettings())
    (folder / ".metadata").write_bytes(b"")
    with pytest.raises(GradscopeError, match="dcp_to_torch"):
        load_model(str(folder), LoadSettings())


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_weights_of_eight_bits(dtype: torch.dtype) -> None:
    weight = torch.tensor([[0.5, -2.0], [0.0, 1.0]])
    small, wide = weight_stats(weight.to(dtype), 2, 1.0), weight_stats(weight, 2, 1.0)
    assert small == wide
    assert small.state is State.VALUE

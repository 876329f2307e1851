"""Good files of every kind, damaged by seeds: each opens, or is refused in one line."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from gradscope.config import LoadSettings
from gradscope.errors import GradscopeError
from gradscope.loading import load_model
from tests.loading.mutations import mutated

SEEDS = 80


def network() -> nn.Module:
    torch.manual_seed(0)
    spectral = nn.utils.spectral_norm(nn.Linear(2, 2))
    return nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.LSTM(3, 2), spectral)


def _index(folder: Path) -> Path:
    state = {k: v.clone() for k, v in network().state_dict().items()}
    save_file(state, folder / "a.safetensors")
    path = folder / "model.index.json"
    path.write_text(json.dumps({"weight_map": dict.fromkeys(state, "a.safetensors")}))
    return path


def _safetensors(folder: Path) -> Path:
    _index(folder)
    return folder / "a.safetensors"


def _saved(make: Callable[[], object], **settings: object) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        torch.save(make(), folder / "m.pt", **settings)  # type: ignore[arg-type]
        return folder / "m.pt"

    return build


def _checkpoint() -> object:
    module = network()
    optimizer = torch.optim.Adam(module.parameters())
    return {"state_dict": module.state_dict(), "epoch": 3, "optimizer": optimizer.state_dict()}


GOOD: dict[str, Callable[[Path], Path]] = {
    "zip": _saved(network),
    "legacy": _saved(network, _use_new_zipfile_serialization=False),
    "checkpoint": _saved(_checkpoint),
    "protocol 4": _saved(_checkpoint, pickle_protocol=4),
    "safetensors": _safetensors,
    "index": _index,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", GOOD)
def test_damaged_files_open_or_are_refused(kind: str, tmp_path: Path):
    path = GOOD[kind](tmp_path)
    whole = path.read_bytes()
    assert load_model(str(path), LoadSettings()) is not None
    head = min(len(whole), 6000)  # numbers are most of a file, and damage to them is no news
    outcomes: Counter[str] = Counter()
    for seed in range(SEEDS):
        damaged = mutated(whole[:head], seed) + whole[head:]
        path.write_bytes(damaged)
        try:
            load_model(str(path), LoadSettings())
            outcomes["opened"] += 1
        except GradscopeError as error:  # anything else is a bug
            outcomes["refused in one line" if "\n" not in str(error) else "several lines"] += 1
    assert outcomes["refused in one line"] > SEEDS // 3
    assert not outcomes["several lines"]

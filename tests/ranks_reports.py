"""The processes of ``test_ranks_reports.py``: whole reports, as ``inspect`` writes them.

python -m tests.ranks_reports OUT        of each process: OUT/RANK.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gradscope import pipeline
from gradscope.config import DataSettings, ProbeSettings, Settings
from gradscope.group import Group
from gradscope.model import Given
from gradscope.ranks import ALONE, Place, Ranks
from gradscope.report.json_ import as_dict
from tests.forked import forked, wait

SIZE = 3
CLASSES = 3


class _Words(nn.Module):
    """Attention over tokens, a mask in it."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, bias=False)
        self.inner = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.inner(self.words(x) * 6).mean(1))


class _Sequence(nn.Module):
    """Gates that are often shut, and a state that is carried on."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.gru = nn.LSTM(5, 6, batch_first=True), nn.GRU(6, 4, batch_first=True)
        self.head = nn.Linear(4, CLASSES)
        with torch.no_grad():
            self.lstm.weight_ih_l0.mul_(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.gru(self.lstm(x)[0])[0][:, -1])


def _images() -> nn.Module:
    """Dead and saturated units, and a batch norm that has seen data."""
    norm = nn.BatchNorm2d(4)
    norm(torch.randn(9, 4, 6, 6))
    found = nn.Sequential(
        nn.Conv2d(2, 4, 3), norm, nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Tanh(), nn.Flatten(),
        nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, CLASSES),
    )  # fmt: skip
    with torch.no_grad():
        found[3].weight.mul_(30)
        found[6].bias[:3] = -100.0
    return found


def _data(n: int, *shape: int) -> Callable[[], tuple[torch.Tensor, torch.Tensor]]:
    def made() -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.randn(n, *shape)
        x[: n // 2] += 0.5
        labels = (x.flatten(1).mean(1) > 0).long() + (x.flatten(1)[:, 0] > 1).long()
        return x, labels

    return made


def _tokens(n: int) -> Callable[[], tuple[torch.Tensor, torch.Tensor]]:
    def made() -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.randint(0, 11, (n, 7))
        return x, x[:, 0] % CLASSES

    return made


Made = Callable[[], tuple[torch.Tensor, torch.Tensor]]
CASES: dict[str, tuple[Callable[[], nn.Module], Made, Made | None, dict[str, Any]]] = {
    "images, held-out data": (_images, _data(37, 2, 6, 6), _data(11, 2, 6, 6), {}),
    "images, no gradients": (_images, _data(37, 2, 6, 6), None, {"gradients": False}),
    "tokens": (_Words, _tokens(50), None, {"draws": 2}),
    "sequences": (_Sequence, _data(23, 9, 5), _data(8, 9, 5), {}),
}
"""A model, its data, held-out data, and how it is probed."""


def reported(name: str, ranks: Ranks = ALONE) -> dict[str, Any]:
    """The report of a case on one or on several processes."""
    make, data, held_out, how = CASES[name]
    torch.manual_seed(3)
    given = Given(make().eval(), data(), held_out() if held_out is not None else None)
    settings = Settings(
        model=name, data=DataSettings(batch_size=16, samples=None), probe=ProbeSettings(**how),
        in_memory=True,
    )  # fmt: skip
    return as_dict(pipeline.inspect(settings, given=given, ranks=ranks))


def main(out: Path) -> None:
    """Every report, by each process."""

    def work(place: Place) -> None:
        group = Group(place)
        with group.joined():
            found = {name: reported(name, group) for name in CASES}
        (out / f"{place.rank}.json").write_text(json.dumps(found))

    with forked(SIZE, 60, work) as group:
        wait(group)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

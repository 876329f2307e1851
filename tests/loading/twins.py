"""Small models in eager form and what else PyTorch saves them as; and their numbers, to compare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from gradscope.config import LoadSettings, ProbeSettings
from gradscope.loading import load_model
from gradscope.measurements import Measurements
from gradscope.model import LoadedModel
from gradscope.probe import measure
from gradscope.progress import Silent
from tests.support import sample_of


class Reader(nn.Module):
    """An LSTM and a head on its last step."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 5, num_layers=2, batch_first=True)
        self.head = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states, _ = self.lstm(x)
        return self.head(states[:, -1])


class Encoder(nn.Module):
    """A transformer layer whose activations are found one by one."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, activation="gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.encoder(x).mean(1)))


class Residual(nn.Module):
    """Blocks h + W2 tanh(W1 h)."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6)) for _ in range(3)
        )
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


def mlp() -> nn.Module:
    layers = [m for _ in range(4) for m in (nn.Linear(6, 6), nn.Tanh())]
    return nn.Sequential(*layers, nn.Linear(6, 3))


def cnn() -> nn.Module:
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh(), nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Sigmoid(), nn.Dropout(0.5),
        nn.Flatten(), nn.Linear(64, 3),
    )  # fmt: skip
    with torch.no_grad():
        net(torch.randn(16, 1, 8, 8))  # running statistics of its own
    return net


def gru() -> nn.Module:
    class Read(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(4, 5, bidirectional=True, batch_first=True)
            self.head = nn.Linear(10, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.gru(x)[0].mean(1))

    return Read()


@dataclass(frozen=True)
class Twin:
    """A model and the shape of one of its samples."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]


TWINS = {
    "mlp": Twin(mlp, (6,)),
    "cnn with batch norm": Twin(cnn, (1, 8, 8)),
    "lstm": Twin(Reader, (7, 4)),
    "gru": Twin(gru, (7, 4)),
    "transformer": Twin(Encoder, (5, 8)),
    "residual": Twin(Residual, (6,)),
}


def eager(name: str) -> tuple[nn.Module, torch.Tensor]:
    """The model in eval mode, seeded, and 24 samples."""
    torch.manual_seed(0)
    twin = TWINS[name]
    return twin.make().eval(), torch.randn(24, *twin.shape)


def numbers(model: LoadedModel, x: torch.Tensor, size: int = 24) -> Measurements:
    """Measured in batches of ``size``."""
    y = torch.arange(len(x)) % 3
    settings = ProbeSettings(draws=2)
    return measure(model, sample_of(x, y, size), None, settings, 0, size, Silent())


def load(path: Path) -> LoadedModel:
    """With nothing admitted."""
    return load_model(str(path), LoadSettings())


def assert_same(found: Measurements, wanted: Measurements, *, names: bool = True) -> None:
    """Sites, ledger, saturation and gradients to 1e-5."""
    if names:
        assert [s.id for s in found.sites] == [s.id for s in wanted.sites]
        assert [p.name for p in found.parameters] == [p.name for p in wanted.parameters]
        assert [s.layer for s in found.sites] == [s.layer for s in wanted.sites]
    assert [(s.role, s.gate, s.calls) for s in found.sites] == [
        (s.role, s.gate, s.calls) for s in wanted.sites
    ]
    for mine, other in zip(found.sites, wanted.sites, strict=True):
        for field in ("saturated_fraction", "output_gain", "pre_activation_rms", "numel"):
            _close(getattr(mine, field), getattr(other, field), f"{mine.id} {field}")
    _close(found.heads[0].ledger.total, wanted.heads[0].ledger.total, "total")
    rms = sorted(p.gradient.rms or 0 for p in found.parameters if p.gradient)
    for a, b in zip(rms, sorted(p.gradient.rms or 0 for p in wanted.parameters), strict=True):
        _close(a, b, "gradient")
    for mine, other in zip(found.parameters, wanted.parameters, strict=True):
        if names and other.loss_gradient is not None:
            assert mine.loss_gradient is not None
            _close(mine.loss_gradient.rms, other.loss_gradient.rms, f"{mine.name} loss")


def _close(a: float | None, b: float | None, what: str) -> None:
    if a is None or b is None:
        assert a is b, f"{what}: {a} {b}"
    else:
        assert abs(a - b) <= 1e-5 * max(1.0, abs(b)), f"{what}: {a} {b}"

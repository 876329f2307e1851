"""An exported model's report is that of the torch model that it came from."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gradscope.config import DataSettings, LoadSettings, Settings
from gradscope.diagnosis import Inspection
from gradscope.measurements import Role
from gradscope.pipeline import inspect


def mlp() -> tuple[nn.Module, torch.Tensor]:
    layers = [nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 16), nn.Sigmoid(), nn.Linear(16, 16)]
    return nn.Sequential(*layers, nn.Tanh(), nn.Linear(16, 3)), torch.randn(24, 8)


def cnn() -> tuple[nn.Module, torch.Tensor]:
    body = [nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2)]
    more = [nn.Conv2d(6, 8, 3), nn.Hardtanh(), nn.Flatten(), nn.Linear(32, 12), nn.ELU()]
    module, x = nn.Sequential(*body, *more, nn.Linear(12, 4)), torch.randn(12, 2, 8, 8)
    module(x)  # batch norm that has never seen data would be measured by the batch's statistics
    return module, x


def activations() -> tuple[nn.Module, torch.Tensor]:
    kinds = [
        nn.SiLU(),
        nn.GELU(),
        nn.GELU(approximate="tanh"),
        nn.Mish(),
        nn.Hardswish(),
        nn.SELU(),
    ]
    layers = [m for kind in kinds for m in (nn.Linear(8, 8), kind)]
    return nn.Sequential(*layers, nn.Linear(8, 3)), torch.randn(16, 8)


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], **options: bool | int) -> None:
        super().__init__()
        self.cells = kind(5, 7, batch_first=True, **options)
        both = 2 if options.get("bidirectional") else 1
        self.head = nn.Linear(7 * both, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.cells(x)[0][:, -1])


def recurrent(kind: type[nn.RNNBase], **options: bool | int):  # type: ignore[no-untyped-def]
    return lambda: (Recurrent(kind, **options), 2 * torch.randn(10, 6, 5))


MODELS = {
    "mlp": mlp,
    "cnn": cnn,
    "activations": activations,
    "lstm": recurrent(nn.LSTM),
    "gru": recurrent(nn.GRU),
    "rnn": recurrent(nn.RNN),
    "bidirectional": recurrent(nn.LSTM, bidirectional=True),
    "stacked": recurrent(nn.GRU, num_layers=2),
}


@pytest.fixture(params=MODELS, scope="module")
def reports(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Inspection, Inspection]:
    """(of the torch model, of its export)."""
    torch.manual_seed(3)
    module, x = MODELS[request.param]()
    module.eval()
    folder: Path = tmp_path_factory.mktemp(request.param)
    torch.save(module, folder / "model.pt")
    np.savez(folder / "data.npz", x=x.numpy())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, (x[:2],), str(folder / "model.onnx"), dynamo=False, opset_version=17,
            input_names=["x"], dynamic_axes={"x": {0: "n"}},
        )  # fmt: skip
    data = DataSettings(data=str(folder / "data.npz"))
    load = LoadSettings(trust_model=True)
    torch_report = inspect(Settings(str(folder / "model.pt"), data=data, load=load))
    return torch_report, inspect(Settings(str(folder / "model.onnx"), data=data))


def test_ledger(reports: tuple[Inspection, Inspection]) -> None:
    one, two = (r.measurements.ledger for r in reports)
    assert one is not None
    assert two is not None
    for name in ("total", "median", "activation", "slope", "weight"):
        assert getattr(two, name) == pytest.approx(getattr(one, name), abs=1e-4), name


def test_sites(reports: tuple[Inspection, Inspection]) -> None:
    one, two = (r.measurements.sites for r in reports)
    assert [(s.kind, s.role, s.gate, s.calls) for s in two] == [
        (s.kind, s.role, s.gate, s.calls) for s in one
    ]
    for a, b in zip(one, two, strict=True):
        assert b.saturated_fraction == pytest.approx(a.saturated_fraction, abs=1e-4), b.id
        assert b.output_gain == pytest.approx(a.output_gain, abs=1e-4), b.id
        assert a.role is not Role.GATE or b.units == a.units


def test_parity_is_reported(reports: tuple[Inspection, Inspection]) -> None:
    one, two = (r.measurements.run.parity for r in reports)
    assert one is None
    assert two is not None
    assert len(two.samples) == 2
    assert 0 <= two.max_share <= 1
    assert two.runtime.startswith("onnxruntime")

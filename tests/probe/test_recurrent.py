"""LSTM and GRU gate by gate: the same numbers and the same sites as torch's own code on a CPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from gradscope.config import ProbeSettings
from gradscope.measurements import Measurements
from gradscope.model import Batch, LoadedModel, Sample
from gradscope.probe import measure, state
from gradscope.probe.state import visible_operations
from gradscope.progress import Silent


class _Cells(nn.Module):
    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell, self.head = cell, nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        return self.head(state[0] if isinstance(state, tuple) else state)


class _Layers(nn.Module):
    def __init__(self, rnn: nn.RNNBase, width: int = 5) -> None:
        super().__init__()
        self.rnn, self.head = rnn, nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, _ = self.rnn(x)
        return self.head(y[:, -1])


MODELS: dict[str, Callable[[], nn.Module]] = {
    "lstm": lambda: _Layers(nn.LSTM(4, 5, batch_first=True)),
    "two layers": lambda: _Layers(nn.LSTM(4, 5, 2, batch_first=True)),
    "no biases": lambda: _Layers(nn.LSTM(4, 5, bias=False, batch_first=True)),
    "both ways": lambda: _Layers(nn.LSTM(4, 5, 2, batch_first=True, bidirectional=True), 10),
    "projected": lambda: _Layers(nn.LSTM(4, 7, proj_size=5, batch_first=True)),
    "projected, no biases": lambda: _Layers(
        nn.LSTM(4, 7, bias=False, proj_size=5, batch_first=True)
    ),
    "gru": lambda: _Layers(nn.GRU(4, 5, 2, batch_first=True)),
    "gru both ways": lambda: _Layers(nn.GRU(4, 5, bidirectional=True, batch_first=True), 10),
    "lstm cell": lambda: _Cells(nn.LSTMCell(4, 5)),
    "gru cell": lambda: _Cells(nn.GRUCell(4, 5)),
    "cell without biases": lambda: _Cells(nn.LSTMCell(4, 5, bias=False)),
}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return MODELS[request.param]().eval()


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """As if the cells were one kernel here, as they are on a GPU."""
    return lambda: monkeypatch.setattr(state, "cells_are_fused", lambda x: True)


def _measured(model: nn.Module, x: torch.Tensor) -> Measurements:
    sample = Sample(
        None, len(x), None, False, False, {"x": tuple(x.shape[1:])},
        lambda: iter([Batch((x,), {}, None, len(x), 0)]),
    )  # fmt: skip
    loaded = LoadedModel("m", "module", model)
    return measure(loaded, sample, None, ProbeSettings(), 0, len(x), Silent())


def test_outputs_are_those_of_torch(model: nn.Module, fused: Callable[[], None]) -> None:
    x = torch.randn(6, 7, 4)
    with visible_operations():
        expected = model(x)
    fused()
    with visible_operations():
        assert torch.allclose(model(x), expected, rtol=1e-5, atol=1e-7)


def test_measurements_are_those_of_a_cpu(model: nn.Module, fused: Callable[[], None]) -> None:
    x = torch.randn(6, 7, 4)
    expected = _measured(model, x)
    fused()
    found = _measured(model, x)
    assert [s.id for s in found.sites] == [s.id for s in expected.sites]
    assert [s.gate for s in found.sites] == [s.gate for s in expected.sites]
    assert any(s.gate for s in found.sites)
    for mine, theirs in zip(found.sites, expected.sites, strict=True):
        assert mine.saturated_fraction == theirs.saturated_fraction
        assert mine.output_gain == pytest.approx(theirs.output_gain, abs=1e-5)
    for one, two in zip(found.parameters, expected.parameters, strict=True):
        assert one.gradient is not None
        assert two.gradient is not None
        assert one.gradient.norm == pytest.approx(two.gradient.norm, rel=1e-5)


def test_dropout_between_layers_acts_in_training_only(fused: Callable[[], None]) -> None:
    rnn = nn.LSTM(4, 5, 2, dropout=0.5)
    x = torch.randn(7, 6, 4)
    fused()
    with visible_operations():
        assert torch.allclose(rnn.eval()(x)[0], rnn(x)[0])
        assert not torch.allclose(rnn.train()(x)[0], rnn(x)[0])


def test_packed_sequences_are_left_to_torch(fused: Callable[[], None]) -> None:
    rnn = nn.LSTM(4, 5)
    packed = nn.utils.rnn.pack_sequence([torch.randn(5, 4), torch.randn(3, 4)])
    expected = rnn(packed)[0].data
    fused()
    with visible_operations():
        assert torch.allclose(rnn(packed)[0].data, expected, atol=1e-6)

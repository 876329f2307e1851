"""``--no-gradients``: the same activations, on the way forward alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from gradscope.config import LoadSettings, ProbeSettings
from gradscope.loading import load_model
from gradscope.measurements import Measurements
from gradscope.model import Batch, LoadedModel, Sample
from gradscope.probe import measure
from gradscope.progress import Silent


class Read(nn.Module):
    """A recurrent layer with states of its own, read out at its last step."""

    def __init__(self, rnn: nn.RNNBase) -> None:
        super().__init__()
        self.rnn = rnn
        width = (rnn.proj_size or rnn.hidden_size) * (2 if rnn.bidirectional else 1)
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Scores."""
        y = self.rnn(x)[0]
        return self.head(torch.tanh(y[:, -1] if self.rnn.batch_first else y[-1]))


class Started(Read):
    """The same from states that are not 0."""

    def forward(self, x: Tensor) -> Tensor:
        """Scores."""
        rnn = self.rnn
        h = torch.linspace(-2, 2, rnn.hidden_size).expand(rnn.num_layers, len(x), -1)
        start = (h.contiguous(), -h) if isinstance(rnn, nn.LSTM) else h.contiguous()
        return self.head(rnn(x, start)[0][:, -1])


def _wide(module: nn.Module) -> nn.Module:
    """With weights that saturate in part."""
    with torch.no_grad():
        for p in module.parameters():
            p.mul_(6.0)
    return module.eval()


TORCH = {
    "lstm": lambda: Read(nn.LSTM(5, 7, batch_first=True)),
    "time first": lambda: Read(nn.LSTM(5, 7)),
    "stacked, both directions": lambda: Read(
        nn.LSTM(5, 7, 3, batch_first=True, bidirectional=True)
    ),
    "without biases": lambda: Read(nn.LSTM(5, 7, bias=False, batch_first=True)),
    "gru": lambda: Read(nn.GRU(5, 7, 2, batch_first=True, bidirectional=True)),
    "gru without biases": lambda: Read(nn.GRU(5, 7, bias=False, batch_first=True)),
    "rnn": lambda: Read(nn.RNN(5, 7, 2, batch_first=True, bidirectional=True)),
    "rnn of relus": lambda: Read(nn.RNN(5, 7, nonlinearity="relu", batch_first=True)),
    "lstm from a state": lambda: Started(nn.LSTM(5, 7, 2, batch_first=True)),
    "gru from a state": lambda: Started(nn.GRU(5, 7, 2, batch_first=True)),
}
IN_STEPS = {
    "projected": (lambda: Read(nn.LSTM(5, 7, proj_size=4, batch_first=True)), "projection"),
}


def _sample(x: Tensor, name: str = "x") -> Sample:
    n = x.shape[0]

    def batches() -> Iterator[Batch]:
        for start in range(0, n, 4):
            part = x[start : start + 4]
            yield Batch((part,), {}, None, len(part), start)

    return Sample("x", n, n, False, False, {name: tuple(x.shape[1:])}, batches)


def _both(model: LoadedModel, sample: Sample) -> tuple[Measurements, Measurements]:
    full = measure(model, sample, None, ProbeSettings(draws=1), 0, 4, Silent())
    quick = measure(model, sample, None, ProbeSettings(gradients=False), 0, 4, Silent())
    return full, quick


def _same(full: Measurements, quick: Measurements) -> None:
    """All that the way forward shows."""
    assert len(full.sites) > 1
    assert [s.id for s in quick.sites] == [s.id for s in full.sites]
    for one, two in zip(full.sites, quick.sites, strict=True):
        bare = replace(one, output_gain=None, output_gain_median=None, gradient_state=None,
                       silent_fraction=None)  # fmt: skip
        for field in ("saturated_fraction", "mean_relative_derivative", "pre_activation_rms",
                      "activation_rms", "sample_variance_ratio", "shrink"):  # fmt: skip
            value, got = getattr(one, field), getattr(two, field)
            assert (value is None) == (got is None), (one.id, field)
            if value is not None:
                rel = 1e-3 if field == "shrink" else 1e-5  # read from a histogram
                assert got == pytest.approx(value, rel=rel, abs=1e-5), (one.id, field)
            bare = replace(bare, **{field: got})
        steps = [replace(t, output_gain=None) for t in one.time]
        assert replace(two, units=None) == replace(bare, units=None, time=tuple(steps))
        assert (one.units is None) == (two.units is None)
        if one.units is not None and two.units is not None:
            shares = one.units.saturated_share
            assert two.units.dead_count == one.units.dead_count
            assert two.units.saturated_share == (shares and pytest.approx(shares))


@pytest.mark.parametrize("name", TORCH)
def test_torch_layers(name: str) -> None:
    torch.manual_seed(0)
    model = LoadedModel(name, "PyTorch module", _wide(TORCH[name]()))
    x = torch.randn(9, 9, 5)
    sample = _sample(x) if name != "time first" else _whole(x)
    full, quick = _both(model, sample)
    _same(full, quick)
    assert any(s.saturated_fraction not in (None, 0.0) for s in full.sites)


def _whole(x: Tensor) -> Sample:
    """Samples on the second axis: one batch, taken as it is."""
    batch = Batch((x,), {}, None, len(x), 0)
    return Sample("x", len(x), len(x), False, False, {"x": (9, 5)}, lambda: iter([batch]))


@pytest.mark.parametrize("name", IN_STEPS)
def test_what_has_to_run_step_by_step_says_why(name: str) -> None:
    make, reason = IN_STEPS[name]
    model = LoadedModel(name, "PyTorch module", _wide(make()))
    full, quick = _both(model, _sample(torch.randn(6, 5, 5)))
    _same(full, quick)
    assert [reason in s.reason for s in quick.skipped if s.what == "the quick pass"] == [True]


@pytest.mark.filterwarnings("ignore:The tensor attributes")
def test_exported_program(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = _wide(Read(nn.LSTM(5, 7, 2, batch_first=True)))
    x = torch.randn(4, 6, 5)
    program = torch.export.export(module, (x,))
    torch.export.save(program, tmp_path / "m.pt2")
    _same(*_both(load_model(str(tmp_path / "m.pt2"), LoadSettings()), _sample(x)))


def _onnx(op: str, path: Path, *, lengths: bool = False, **attributes: object) -> None:
    """One recurrent operator of 5 inputs and 4 units with a readout at its last step."""
    generator = torch.Generator().manual_seed(0)
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    d = 2 if attributes.get("direction") == "bidirectional" else 1
    sizes = {"W": (d, gates * 4, 5), "R": (d, gates * 4, 4), "B": (d, gates * 8), "M": (d * 4, 3)}
    tensors = [
        numpy_helper.from_array((torch.randn(s, generator=generator) * 2).numpy(), n)
        for n, s in sizes.items()
    ]
    inputs = ["x", "W", "R", "B"]
    if lengths:
        inputs.append("L")
        tensors.append(numpy_helper.from_array(torch.tensor([3, 6, 2, 6]).int().numpy(), "L"))
    shape = torch.tensor([4, d * 4]).numpy()
    tensors.append(numpy_helper.from_array(shape, "shape"))
    nodes = [
        helper.make_node("Transpose", ["s"], ["x"], perm=[1, 0, 2]),
        helper.make_node(op, inputs, ["", "h"], hidden_size=4, **attributes),
        helper.make_node("Transpose", ["h"], ["t"], perm=[1, 0, 2]),
        helper.make_node("Reshape", ["t", "shape"], ["f"]),
        helper.make_node("MatMul", ["f", "M"], ["m"]),
        helper.make_node("Tanh", ["m"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("s", TensorProto.FLOAT, [4, 6, 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 3])], tensors,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)


ONNX = {
    f"{op} {direction}": (op, {"direction": direction})
    for op in ("LSTM", "GRU", "RNN")
    for direction in ("forward", "reverse", "bidirectional")
}
for _op in ("GRU forward", "GRU bidirectional"):
    ONNX[f"{_op}, late reset"] = ("GRU", {**ONNX[_op][1], "linear_before_reset": 1})
ONNX["LSTM, clipped"] = ("LSTM", {"clip": 1.0})
ONNX["LSTM, lengths"] = ("LSTM", {"direction": "bidirectional", "lengths": True})


@pytest.mark.parametrize("name", ONNX)
def test_onnx_operators(name: str, tmp_path: Path) -> None:
    op, attributes = ONNX[name]
    _onnx(op, tmp_path / "m.onnx", **attributes)
    model = load_model(str(tmp_path / "m.onnx"), LoadSettings())
    x = torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(1))
    _same(*_both(model, _sample(x, "s")))


def test_a_model_without_gradients_keeps_what_it_shows(tmp_path: Path) -> None:
    _onnx("LSTM", tmp_path / "m.onnx")
    model = load_model(str(tmp_path / "m.onnx"), LoadSettings())
    full, quick = _both(model, _sample(torch.randn(4, 6, 5), "s"))
    assert quick.heads == ()
    assert quick.ledger is None
    assert [p.weight for p in quick.parameters] == [p.weight for p in full.parameters]
    assert {p.gradient for p in quick.parameters} == {None}
    assert {(s.gradient_state, s.output_gain) for s in quick.sites} == {(None, None)}
    assert next(s.what for s in quick.skipped) == "all gradients"
    assert (quick.run.draws, quick.run.backward_passes) == (0, 0)


def test_sequences_of_another_length_in_every_batch() -> None:
    torch.manual_seed(0)
    model = LoadedModel("m", "PyTorch module", _wide(Read(nn.LSTM(5, 7, batch_first=True))))
    parts = [torch.randn(4, steps, 5) for steps in (6, 3, 8)]
    batches = [Batch((x,), {}, None, 4, 4 * i) for i, x in enumerate(parts)]
    sample = Sample("x", 12, 12, False, False, {"x": (6, 5)}, lambda: iter(batches))
    _same(*_both(model, sample))

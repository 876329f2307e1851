"""Exports by torch's two exporters, over operator sets, against the network that they are made of.

For each: onnxruntime's outputs, the gradient of every parameter of the network (led back through
what the exporter made of it, folded batch norms included), the ledger and the saturation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gradscope.config import LoadSettings, ProbeSettings
from gradscope.loading import load_model
from gradscope.measurements import Measurements, Parity
from gradscope.model import Batch, LoadedModel, Sample
from gradscope.probe import measure
from gradscope.progress import Silent
from tests.loading.onnx.exported import Built, built, exported
from tests.loading.onnx.pulled_back import alike, pulled_back

# Both exporters, every network by each where it can, every operator set by each.
LEGACY = {
    13: ("mlp", "cnn", "lstm", "if"),
    17: ("encoder", "gru", "bidirectional", "mobilenet", "masked", "loop", "written"),
    18: ("stacked", "resnet", "causal"),
    20: ("cnn", "lstm", "masked", "if", "loop"),
}
# The newer one makes opset 18 and brings it down where it can: whatever is asked for below 18,
# encoders, residual and separable convolutions come out as 18, and as 13 dense layers alone come.
DYNAMO = {
    13: ("mlp",),
    16: ("cnn",),
    17: ("gru", "lstm", "stacked", "masked", "causal", "if", "loop"),
    18: ("resnet", "cnn", "bidirectional", "clones", "written"),
    20: ("mobilenet", "masked", "if"),
    23: ("encoder", "stacked", "causal"),
}
CASES = [
    pytest.param((name, dynamo, opset), id=f"{name}-{'dynamo' if dynamo else 'legacy'}-{opset}")
    for dynamo, table in ((False, LEGACY), (True, DYNAMO))
    for opset, names in table.items()
    for name in names
]


@dataclass(frozen=True)
class Pair:
    """A network and its export, opened; ``file`` is what was measured of the latter."""

    name: str
    built: Built
    loaded: LoadedModel
    parity: Parity
    network: Measurements
    file: Measurements


def _sample(inputs: Mapping[str, Tensor]) -> Sample:
    n = len(inputs["x"])
    shapes = {name: tuple(x.shape[1:]) for name, x in inputs.items()}
    batch = Batch(tuple(inputs.values()), {}, None, n, 0)
    return Sample("x", n, n, False, False, shapes, lambda: iter([batch]))


def _measured(model: LoadedModel, inputs: Mapping[str, Tensor]) -> Measurements:
    return measure(model, _sample(inputs), None, ProbeSettings(), 0, 6, Silent())


@cache
def _network(name: str) -> tuple[Built, Measurements]:
    module, inputs = built(name)
    return (module, inputs), _measured(LoadedModel(name, "PyTorch module", module), inputs)


@pytest.fixture(params=CASES, scope="module")
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    name, dynamo, opset = request.param
    both, network = _network(name)
    path: Path = tmp_path_factory.mktemp("export") / f"{name}.onnx"
    exported(name, both, path, dynamo=dynamo, opset=opset)
    loaded = load_model(str(path), LoadSettings())
    assert loaded.format.startswith(f"ONNX opset {opset}")
    assert loaded.verify is not None
    parity = loaded.verify(_sample(both[1]))
    return Pair(name, both, loaded, parity, network, _measured(loaded, both[1]))


def test_outputs_are_those_of_onnxruntime(pair: Pair) -> None:
    assert pair.parity.samples == (6, 3)
    assert pair.parity.max_share <= 0.1


def test_gradient_of_every_parameter(pair: Pair) -> None:
    module, inputs = pair.built
    wanted = _gradients(module, module(*inputs.values()))
    lowered = pair.loaded.module
    assert lowered is not None
    own = _gradients(lowered, lowered(*inputs.values())["y"])
    named = dict(lowered.named_parameters())
    got = pulled_back(module, {n: (named[n].detach(), g) for n, g in own.items()})
    largest = max(float(g.abs().max()) for g in wanted.values())
    names = list(wanted)
    for group in alike(list(module.parameters())):
        one = sum(wanted[names[i]] for i in group)
        two = sum(got[i] for i in group)
        torch.testing.assert_close(
            two, one, rtol=1e-5, atol=2e-6 * largest, msg=lambda m, i=group[0]: f"{names[i]}: {m}"
        )


def _gradients(module: nn.Module, y: Tensor) -> dict[str, Tensor]:
    """Of a fixed sum of all outputs; 0 where no gradient arrives."""
    weights = torch.linspace(-1, 1, y.numel()).reshape(y.shape)
    named = dict(module.named_parameters())
    parts = torch.autograd.grad((y * weights).sum(), list(named.values()), allow_unused=True)
    return {
        n: torch.zeros_like(p) if g is None else g
        for (n, p), g in zip(named.items(), parts, strict=True)
    }


def test_ledger(pair: Pair) -> None:
    one, two = pair.network.ledger, pair.file.ledger
    assert (one is None) == (two is None)
    if one is None or two is None:
        return
    for name in ("total", "median", "activation", "slope", "weight"):
        assert getattr(two, name) == pytest.approx(getattr(one, name), abs=1e-5), name


def test_saturation(pair: Pair) -> None:
    one, two = pair.network.sites, pair.file.sites
    if pair.name == "clones":  # fed by the same weights: one site, called twice, as over time
        assert [s.calls for s in two] == [2]
        return
    assert [(s.kind, s.role, s.gate, s.calls, s.units) for s in two] == [
        (s.kind, s.role, s.gate, s.calls, s.units) for s in one
    ]
    for a, b in zip(one, two, strict=True):
        assert b.saturated_fraction == pytest.approx(a.saturated_fraction, abs=1e-5), a.id
        assert b.output_gain == pytest.approx(a.output_gain, abs=1e-5), a.id

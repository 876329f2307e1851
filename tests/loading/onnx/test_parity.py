"""No gradients where the outputs are not onnxruntime's."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import helper

from gradscope.config import DataSettings, Settings
from gradscope.errors import DataError, ProbeError
from gradscope.loading.onnx import registry
from gradscope.loading.onnx.parity import difference
from gradscope.loading.onnx.registry import Operator
from gradscope.pipeline import inspect
from tests.loading.onnx.graphs import model, saved

NODE = helper.make_node
W = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)


def written(tmp_path: Path) -> Settings:
    nodes = [
        NODE("MatMul", ["x", "w"], ["h"]),
        NODE("Tanh", ["h"], ["a"]),
        NODE("MatMul", ["a", "w"], ["b"]),
        NODE("Tanh", ["b"], ["y"]),
    ]
    proto = model(nodes, {"x": ["n", 4]}, {"y": ["n", 4]}, {"w": W})
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(1).normal(size=(10, 4)).astype("f4"))
    return Settings(saved(proto, tmp_path), data=DataSettings(data=str(tmp_path / "x.npz")))


def test_agreement_is_reported(tmp_path: Path) -> None:
    parity = inspect(written(tmp_path)).measurements.run.parity
    assert parity is not None
    assert parity.samples == (10, 5)
    assert parity.max_error < 1e-6


def test_first_node_that_differs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = written(tmp_path)
    (right,) = registry._OPERATORS[("", "Tanh")]
    wrong = Operator(lambda call, x: right.run(call, x) * 1.01, right.since)
    monkeypatch.setitem(registry._OPERATORS, ("", "Tanh"), [wrong])
    with pytest.raises(ProbeError, match=r"node 'a' \(Tanh\) is the first that differs") as caught:
        inspect(settings)
    assert caught.value.exit_status == 3
    assert "no gradients" in str(caught.value)


def test_failure_where_the_runtime_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = written(tmp_path)
    (right,) = registry._OPERATORS[("", "Tanh")]

    def fails_on_few(call: object, x: torch.Tensor) -> torch.Tensor:
        if x.shape[0] == 5:
            raise ValueError("five")
        return right.run(call, x)

    monkeypatch.setitem(registry._OPERATORS, ("", "Tanh"), [Operator(fails_on_few, 6)])
    with pytest.raises(ProbeError, match=r"on 5 samples, but here it fails: node 'a' \(Tanh\)"):
        inspect(settings)


def saturated_gru(tmp_path: Path) -> Settings:
    """All weights x30: what the last bit of the input does doubles from step to step."""
    torch.manual_seed(0)

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = torch.nn.GRU(8, 32, batch_first=True)
            self.head = torch.nn.Linear(32, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.rnn(x)[0][:, -1])

    net = Net()
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(30)
    x = torch.randn(64, 8, 8)
    path = tmp_path / "gru.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net, (x[:2],), str(path), dynamo=False, input_names=["x"], output_names=["y"],
            dynamic_axes={"x": {0: "n"}, "y": {0: "n"}},
        )  # fmt: skip
    np.savez(tmp_path / "x.npz", x=x.numpy())
    return Settings(str(path), data=DataSettings(data=str(tmp_path / "x.npz")))


def test_rounding_that_a_model_amplifies_is_no_difference(tmp_path: Path) -> None:
    parity = inspect(saturated_gru(tmp_path)).measurements.run.parity
    assert parity is not None
    assert 1e-3 < parity.max_error < 0.1  # of outputs up to some 30
    assert parity.max_share <= 1


def test_a_wrong_operator_is_no_rounding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = saturated_gru(tmp_path)
    (right,) = registry._OPERATORS[("", "GRU")]

    def wrong(call: object, *given: object) -> object:
        made = right.run(call, *given)
        return tuple(m * 1.03 for m in made)

    monkeypatch.setitem(registry._OPERATORS, ("", "GRU"), [Operator(wrong, right.since)])
    with pytest.raises(ProbeError, match="outputs are not those of"):
        inspect(settings)


@pytest.mark.parametrize(
    ("got", "wanted", "share"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.002, 2.0], [1.0, 2.0], 2.0 / 1.01),
        ([1e-6, 0.0], [0.0, 0.0], 0.1),
        ([float("nan"), 1.0], [float("nan"), 1.0], 0.0),
        ([float("nan"), 1.0], [1.0, 1.0], float("inf")),
        ([1.0, 1.0], [float("inf"), 1.0], float("inf")),
        ([float("-inf"), 1.0], [float("inf"), 1.0], float("inf")),
        ([1.0], [1.0, 1.0], float("inf")),
    ],
)
def test_difference(got: list[float], wanted: list[float], share: float) -> None:
    a, b = torch.tensor(got, dtype=torch.float64), torch.tensor(wanted, dtype=torch.float64)
    assert difference(a, b).share == pytest.approx(share, rel=1e-3, abs=1e-12)


# --- inputs without samples ------------------------------------------------------------------


def with_shared(tmp_path: Path) -> str:
    nodes = [
        NODE("Mul", ["x", "gain"], ["s"]),
        NODE("Add", ["s", "state"], ["t"]),
        NODE("MatMul", ["t", "w"], ["h"]),
        NODE("Tanh", ["h"], ["y"]),
    ]
    inputs = {"gain": [], "x": ["n", 4], "state": [1, 4]}
    return saved(model(nodes, inputs, {"y": ["n", 4]}, {"w": W}), tmp_path)


def test_numbers_and_states_are_taken_whole(tmp_path: Path) -> None:
    path = with_shared(tmp_path)
    x = np.ones((6, 4), np.float32)
    np.savez(tmp_path / "x.npz", x=x, gain=np.float32(2), state=np.full((1, 4), 0.5, "f4"))
    found = inspect(Settings(path, data=DataSettings(data=str(tmp_path / "x.npz"))))
    (site,) = found.measurements.sites
    wanted = np.sqrt(np.mean((2.5 * x @ W) ** 2))
    assert site.pre_activation_rms == pytest.approx(wanted, rel=1e-5)


def test_a_state_begins_at_zero(tmp_path: Path) -> None:
    path = with_shared(tmp_path)
    np.savez(tmp_path / "x.npz", x=np.ones((6, 4), np.float32), gain=np.float32(2))
    found = inspect(Settings(path, data=DataSettings(data=str(tmp_path / "x.npz"))))
    assert "input 'state' is not in the data: zeros" in found.measurements.sample.notes


def test_a_number_cannot_be_left_out(tmp_path: Path) -> None:
    path = with_shared(tmp_path)
    np.savez(tmp_path / "x.npz", x=np.ones((6, 4), np.float32))
    with pytest.raises(DataError, match="no number for the model's input 'gain'"):
        inspect(Settings(path, data=DataSettings(data=str(tmp_path / "x.npz"))))

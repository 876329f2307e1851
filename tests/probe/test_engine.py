"""The engine called directly does what torch's front door does."""

from __future__ import annotations

import pytest
import torch
from torch.autograd.graph import get_gradient_edge

from gradscope.probe import engine


def _network() -> tuple[torch.nn.Sequential, list[torch.Tensor], torch.Tensor]:
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
    spare = torch.zeros(2, requires_grad=True)
    return layers, [*layers.parameters(), spare], layers(torch.randn(7, 4))


@pytest.fixture(params=["engine", "front door"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "front door":
        monkeypatch.setattr(engine, "_ENGINE", None)
    return str(request.param)


def test_gradients_are_those_of_torch(way: str) -> None:
    _, inputs, output = _network()
    cotangent = torch.randn(7, 3)
    expected = torch.autograd.grad(output, inputs, cotangent, retain_graph=True, allow_unused=True)
    edge = get_gradient_edge(output)
    found = engine.gradients([edge], [cotangent], inputs, keep=True)
    assert found[-1] is None  # nothing arrives where nothing was used
    for mine, theirs in zip(found[:-1], expected[:-1], strict=True):
        assert torch.equal(mine, theirs)  # type: ignore[arg-type]
    assert all(p.grad is None for p in inputs)
    engine.accumulate([edge], [cotangent], inputs, keep=True)
    engine.accumulate([edge], [cotangent], inputs, keep=False)
    assert inputs[-1].grad is None
    for p, theirs in zip(inputs[:-1], expected[:-1], strict=True):
        assert p.grad is not None
        assert torch.equal(p.grad, 2 * theirs)
    with pytest.raises(RuntimeError, match="second time"):
        engine.accumulate([edge], [cotangent], inputs, keep=False)


def test_a_cotangent_of_another_shape_is_refused(way: str) -> None:
    _, inputs, output = _network()
    with pytest.raises(RuntimeError, match="shape"):
        engine.accumulate([get_gradient_edge(output)], [torch.ones(3, 7)], inputs, keep=False)


def test_torch_has_the_engine_under_the_name_known_here() -> None:
    assert engine._ENGINE is not None

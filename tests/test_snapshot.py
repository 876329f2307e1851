"""What a model carries between calls is found, put back and named."""

from __future__ import annotations

import types
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from gradscope.snapshot import Snapshot


class Holder(nn.Module):
    """Holds one of everything."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.register_buffer("table", torch.arange(4.0))
        self.register_buffer("empty", None)
        self.plain = torch.arange(4.0)
        self.number, self.nothing = 3, None
        self.items = [1, [torch.zeros(2)], {"deep": [1, 2]}]
        self.names: dict[str, Any] = {"one": [1], "two": {"three": set()}}
        self.ordered, self.queue = OrderedDict(a=1), deque([1, 2], maxlen=2)
        self.pair = (torch.zeros(2), [5])
        self.state = types.SimpleNamespace(h=None, inner=types.SimpleNamespace(steps=[0]))


def _replace_buffer(m: Any) -> None:
    m.table = m.table + 1


def _resize(m: Any) -> None:
    m.table.resize_(9).fill_(7)


def _grow(m: Any) -> None:
    m.layer.extra = 1


def _drop(m: Any) -> None:
    del m.number


CHANGES: dict[str, tuple[Callable[[Any], Any], set[str]]] = {
    "buffer in place": (lambda m: m.table.add_(1), set()),
    "buffer replaced": (_replace_buffer, {"table"}),
    "buffer resized": (_resize, set()),
    "buffer set": (lambda m: setattr(m, "empty", torch.ones(1)), {"empty"}),
    "tensor in place": (lambda m: m.plain.mul_(3), {"plain"}),
    "tensor replaced": (lambda m: setattr(m, "plain", torch.ones(2)), {"plain"}),
    "counter": (lambda m: setattr(m, "number", 4), {"number"}),
    "hidden state": (lambda m: setattr(m, "nothing", torch.ones(2)), {"nothing"}),
    "new attribute": (_grow, {"layer.extra"}),
    "attribute gone": (_drop, {"number"}),
    "list": (lambda m: m.items.append(2), {"items"}),
    "tensor in a list in a list": (lambda m: m.items[1][0].add_(1), {"items"}),
    "list in a dict in a list": (lambda m: m.items[2]["deep"].clear(), {"items"}),
    "dict": (lambda m: m.names.update(one=5), {"names"}),
    "list in a dict": (lambda m: m.names["one"].append(2), {"names"}),
    "set": (lambda m: m.names["two"]["three"].add(1), {"names"}),
    "ordered dict": (lambda m: m.ordered.update(b=2), {"ordered"}),
    "deque": (lambda m: m.queue.append(9), {"queue"}),
    "tensor in a tuple": (lambda m: m.pair[0].add_(1), {"pair"}),
    "list in a tuple": (lambda m: m.pair[1].append(1), {"pair"}),
    "object": (lambda m: setattr(m.state, "h", torch.ones(2)), {"state"}),
    "object in an object": (lambda m: m.state.inner.steps.append(1), {"state"}),
}


def _seen(value: Any) -> Any:
    """A value as something that can be compared."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {k: _seen(v) for k, v in value.items()}
    if isinstance(value, list | tuple | deque):
        return [_seen(v) for v in value]
    if isinstance(value, types.SimpleNamespace):
        return _seen(vars(value))
    return value


def _everything(m: nn.Module) -> dict[str, Any]:
    hidden = ("_parameters", "_modules")
    return {k: _seen(v) for k, v in vars(m).items() if k not in hidden} | vars(m.layer)


@pytest.mark.parametrize("name", CHANGES)
def test_changes_are_put_back_and_named(name):
    change, named = CHANGES[name]
    module = Holder()
    before, table = _everything(module), module.table
    snapshot = Snapshot(module)
    assert snapshot.restore() == ()
    for _ in range(2):  # as often as needed
        change(module)
        assert set(snapshot.restore()) == named
        assert _everything(module) == before
        assert module.table is table
    assert snapshot.restore() == ()


def test_weights_are_not_state():
    module = Holder()
    snapshot = Snapshot(module)
    with torch.no_grad():
        module.layer.weight.add_(1)
    kept = module.layer.weight.clone()
    assert snapshot.restore() == ()
    assert torch.equal(module.layer.weight, kept)


@pytest.mark.filterwarnings("ignore:.*weight_norm")
def test_a_weight_that_is_made_anew_at_every_call_is_no_state():
    layer = nn.utils.weight_norm(nn.Linear(2, 2))
    snapshot = Snapshot(layer)
    layer(torch.zeros(1, 2))
    assert snapshot.restore() == ()


def test_circles_end():
    module = Holder()
    module.items.append(module.items)
    module.state.me = module.state
    snapshot = Snapshot(module)
    module.items.append(3)
    assert snapshot.restore() == ("items",)


def test_a_view_that_is_written_through():
    module = Holder()
    module.part = module.plain[1:3]
    snapshot = Snapshot(module)
    module.part.add_(5)
    snapshot.restore()
    assert module.plain.tolist() == [0.0, 1.0, 2.0, 3.0]

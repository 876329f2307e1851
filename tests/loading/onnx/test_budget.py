"""What a run may take is refused before it is taken, and what honest models take is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from gradscope.config import LoadSettings
from gradscope.loading import load_model
from gradscope.loading.onnx.budget import MOST_RUNS, MOST_STEPS, OPEN_RUNS, Budget, check_result
from gradscope.loading.onnx.execute import NodeError
from gradscope.loading.onnx.graph import Node
from tests.loading.onnx import hostile_models
from tests.loading.onnx.broken import loop_of


def _node(op: str, **attributes: object) -> Node:
    return Node(op, "", 18, ("a", "b"), ("y",), attributes, "")


def _of(*shape: int) -> torch.Tensor:
    """So large in name only."""
    return torch.zeros(1).expand(shape)


HONEST = {
    "scores of attention": ("MatMul", (_of(8, 16, 4096, 64), _of(8, 16, 64, 4096))),
    "a large batch of images": ("Add", (_of(256, 64, 224, 224), _of(1, 64, 1, 1))),
    "logits of many words": ("Gemm", (_of(4096, 768), _of(768, 50_000))),
    "sizes that do not fit, which torch says": ("Add", (_of(2**15, 3), _of(2**15, 4))),
    "an equation with an ellipsis": ("Einsum", (_of(2**15, 3), _of(3, 2**15))),
}
ABSURD = {
    "two vectors": ("MatMul", (_of(10**6, 1), _of(1, 10**6))),
    "a column and a row": ("Mul", (_of(10**5, 1), _of(10**5))),
    "three of them": ("Where", (_of(2**11, 1, 1), _of(2**11, 1), _of(2**11))),
    "more than a machine has": ("Add", (_of(2**40), _of(2**40))),
}


@pytest.mark.parametrize("name", HONEST)
def test_honest_results(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradscope.loading.onnx.budget._memory", lambda: 1 << 36)
    op, inputs = HONEST[name]
    check_result(_node(op), inputs)


@pytest.mark.parametrize("name", ABSURD)
def test_absurd_results(name: str) -> None:
    op, inputs = ABSURD[name]
    with pytest.raises(ValueError, match="asks for a tensor of shape"):
        check_result(_node(op), inputs)


def test_results_larger_than_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = HONEST["a large batch of images"][1]
    monkeypatch.setattr("gradscope.loading.onnx.budget._memory", lambda: 1 << 31)
    with pytest.raises(ValueError, match=r"\(3 GiB\)"):
        check_result(_node("Add"), inputs)


def test_results_that_are_large_beside_all_that_was_given() -> None:
    """What doubles from node to node is never much larger than its own inputs."""
    half = _of(2**25, 2)
    check_result(_node("Concat", axis=0), (half, half), given=2**17)
    check_result(_node("Concat", axis=0), (_of(2**25), _of(2**25)), given=8)
    with pytest.raises(ValueError, match=r"\[67108864, 2\] \(512 MiB\)"):
        check_result(_node("Concat", axis=0), (half, half), given=2**16)


def _counted(proto: onnx.ModelProto, path: Path, monkeypatch: pytest.MonkeyPatch) -> int | str:
    """Steps that its loops make on two samples, or the refusal if none was made."""
    steps = []
    monkeypatch.setattr(Budget, "step", lambda self: steps.append(1))
    path.write_bytes(proto.SerializeToString())
    module = load_model(str(path), LoadSettings()).module
    assert module is not None
    try:
        module(torch.ones(2, 5))
    except NodeError as error:
        assert not steps
        return str(error)
    return len(steps)


def _conditional(trips: int) -> onnx.ModelProto:
    """Until the condition ends it, which it does after three steps."""
    proto = loop_of(trips)
    body = next(n for n in proto.graph.node if n.op_type == "Loop").attribute[0].g
    on = next(n for n in body.node if n.output[0] == "on")
    on.op_type, on.input[:] = "Less", ["i", "two"]
    body.initializer.append(onnx.numpy_helper.from_array(np.array(2, np.int64), "two"))
    return proto


LOOPS: dict[str, tuple[onnx.ModelProto, int | str]] = {
    "few steps": (loop_of(4), 4),
    "no step": (loop_of(0), 0),
    "all that are allowed, less than": (loop_of(300), 300),
    "too many": (loop_of(MOST_STEPS + 1), "runs more than"),
    "without end": (loop_of(2**63 - 1), "runs more than"),
    "in each other": (hostile_models.BOMBS["Loop in a loop"], "runs more than"),
    "as long as a condition holds": (_conditional(10**15), 3),
}


@pytest.mark.parametrize("name", LOOPS)
def test_loops_that_nothing_ends_are_refused_before_their_first_step(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proto, expected = LOOPS[name]
    found = _counted(proto, tmp_path / "m.onnx", monkeypatch)
    assert (expected in found) if isinstance(expected, str) else found == expected


def test_steps_of_loops() -> None:
    budget = Budget()
    for _ in range(MOST_STEPS):
        budget.step()
    with pytest.raises(ValueError, match=f"more than {MOST_STEPS} times"):
        budget.step()


def test_work_in_loops() -> None:
    """Products count with their inner size: 2^42 multiplications."""
    budget, a = Budget(), _of(2**14, 2**10)
    for _ in range(2**8 - 1):
        budget.spend(_node("MatMul"), [a, a], [_of(2**14, 2**10)])
    budget.spend(_node("Relu"), [a], [a])
    with pytest.raises(ValueError, match=r"4e\+12 operations"):
        budget.spend(_node("MatMul"), [a, a], [_of(2**14, 2**10)])


def test_what_loops_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what waits for the backward pass is kept."""
    monkeypatch.setattr("gradscope.loading.onnx.budget._LARGE", 1 << 10)
    monkeypatch.setattr("gradscope.loading.onnx.budget._memory", lambda: 1 << 14)
    budget, x = Budget(), torch.ones(1 << 10, requires_grad=True)
    free = x.detach() * 2
    for _ in range(100):
        budget.spend(_node("Mul"), [free, free], [free])
    kept = x * 2
    for _ in range(4):
        budget.spend(_node("Mul"), [x, x], [kept, kept.reshape(2, -1)])
    with pytest.raises(ValueError, match="for the backward pass"):
        budget.spend(_node("Mul"), [x, x], [kept])


def test_nodes_in_loops() -> None:
    """Few where nothing tells that a loop ends; as many as planned where something does."""
    a = _of(1)
    for most, limit in ((10.0, MOST_RUNS), (float("inf"), OPEN_RUNS)):
        budget = Budget()
        budget.begin(most, 20)
        budget.runs = limit - 1
        budget.spend(_node("Relu"), [a], [a])
        with pytest.raises(ValueError, match=f"more than {limit} nodes"):
            budget.spend(_node("Relu"), [a], [a])
    with pytest.raises(ValueError, match="nodes in the steps"):
        Budget().plan(MOST_STEPS, 100)


def test_work_is_measured_by_what_was_given() -> None:
    """A few bytes may not ask for hours; as many multiplications of a large model are its own."""
    a = _of(2**11, 2**11)
    many, few = Budget(given=2**24), Budget(given=8)
    for budget in (many, few):
        budget.admit(_node("MatMul"), [a, a])
        budget.admit(_node("MatMul"), [a, a])
    many.admit(_node("MatMul"), [a, a])
    with pytest.raises(ValueError, match=r"more than 2e\+10 operations"):
        few.admit(_node("MatMul"), [a, a])


def test_what_waits_for_later_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradscope.loading.onnx.budget._memory", lambda: 1 << 12)
    budget, one, two = Budget(), torch.ones(300), torch.ones(300)
    budget.check_alive([one, one[:100], one.reshape(3, 100), None])
    with pytest.raises(ValueError, match="for later nodes"):
        budget.check_alive([one, two])

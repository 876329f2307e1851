"""Lists of tensors, and values that may be absent."""

from __future__ import annotations

from typing import Any

import torch

from gradscope.loading.onnx.budget import check_count
from gradscope.loading.onnx.registry import Call, ints, number, operator

Tensor = torch.Tensor


@operator("SequenceConstruct", since=11)
def construct(call: Call, *values: Any) -> list[Any]:
    """A list of the inputs."""
    return list(values)


@operator("SequenceEmpty", since=11)
def empty(call: Call) -> list[Any]:
    """An empty list."""
    return []


@operator("SequenceAt", since=11)
def element(call: Call, values: list[Any], at: Tensor) -> Any:
    """One element, perhaps counted from the end."""
    return values[int(number(at))]


@operator("SequenceInsert", since=11)
def insert(call: Call, values: list[Any], value: Any, at: Tensor | None = None) -> list[Any]:
    """With one more element, at the end or before another."""
    index = len(values) if at is None else int(number(at))
    index = index + len(values) if index < 0 else index
    return [*values[:index], value, *values[index:]]


@operator("SequenceErase", since=11)
def erase(call: Call, values: list[Any], at: Tensor | None = None) -> list[Any]:
    """Without one element, the last by default."""
    index = -1 if at is None else int(number(at))
    index = index + len(values) if index < 0 else index
    return [*values[:index], *values[index + 1 :]]


@operator("SequenceLength", since=11)
def length(call: Call, values: list[Any]) -> Tensor:
    """Number of elements."""
    return torch.tensor(len(values))


@operator("ConcatFromSequence", since=11)
def concat_sequence(call: Call, values: list[Tensor]) -> Tensor:
    """Elements joined along an axis, a new one if asked for."""
    join = torch.stack if call.get("new_axis", 0) else torch.cat
    return join(values, int(call.get("axis")))


@operator("SplitToSequence", since=11)
def split_sequence(call: Call, x: Tensor, sizes: Tensor | None = None) -> list[Tensor]:
    """Parts along an axis, as a list."""
    axis = int(call.get("axis", 0))
    check_count(x.shape[axis] if sizes is None or sizes.dim() == 0 else 0, "parts")
    if sizes is None:
        parts = list(x.split(1, axis))  # type: ignore[no-untyped-call]
        return parts if call.get("keepdims", 1) else [p.squeeze(axis) for p in parts]
    wanted: Any = int(number(sizes)) if sizes.dim() == 0 else ints(sizes)
    return list(x.split(wanted, axis))  # type: ignore[no-untyped-call]


@operator("SequenceMap", since=17, scoped=True)
def sequence_map(call: Call, scope: Any, values: list[Any], *others: Any) -> tuple[Any, ...]:
    """A body run on each element, with other lists in step and tensors as they are."""
    scope.budget.plan(len(values), len(call.programs["body"].graph.nodes))
    for _ in values:
        scope.budget.step()
    rows = [
        call.programs["body"].run(
            (value, *(o[i] if isinstance(o, list) else o for o in others)), scope
        )
        for i, value in enumerate(values)
    ]
    return tuple([row[k] for row in rows] for k in range(call.outputs))


@operator("Optional", since=15)
def optional(call: Call, value: Any = None) -> Any:
    """The value, or nothing."""
    return value


@operator("OptionalHasElement", since=15)
def has_element(call: Call, value: Any = None) -> Tensor:
    """Whether there is a value."""
    return torch.tensor(value is not None)


@operator("OptionalGetElement", since=15)
def get_element(call: Call, value: Any) -> Any:
    """The value.

    Raises:
        ValueError: there is none.
    """
    if value is None:
        raise ValueError("takes an element out of nothing")
    return value

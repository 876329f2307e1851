"""What one run of a graph may take: sizes that a few bytes ask for, and loops that go on.

Told before the memory is taken where the inputs show how large a result will be.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import torch

from gradscope.loading.onnx.graph import Node

Tensor = torch.Tensor
MOST_STEPS = 100_000  # of all loops in one run, those of loops within loops counted each
_MOST_WORK = 1 << 42  # multiplications and results of all that runs from the first step of a loop
_LARGE = 1 << 28  # bytes that loops may keep in any memory
_MOST = 1 << 30  # elements that may be made out of little
_GROWTH = 256  # times as many elements as the largest input: out of little
_SMALL = 1 << 26  # elements that may be made of anything
_GROWTH_OF_RUN = 1024  # times as many elements as inputs and weights of the whole run together
_PRODUCTS = frozenset({"MatMul", "Gemm", "Einsum"})
_BROADCASTS = frozenset({
    "Add", "Sub", "Mul", "Div", "Pow", "Mod", "Max", "Min", "Sum", "Mean", "Where", "PRelu",
    "Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual", "And", "Or", "Xor", "BitwiseAnd",
    "BitwiseOr", "BitwiseXor", "BitShift",
})  # fmt: skip


def check_result(node: Node, values: Sequence[Any], given: float = math.inf) -> None:
    """Refuse a result that no machine, or not this one, has room for.

    Args:
        node: about to run.
        values: its inputs.
        given: elements of all that the run was given, inputs and weights: what doubles from node to
            node is large beside these alone.

    Raises:
        ValueError: the size.
    """
    tensors = [v for v in values if isinstance(v, Tensor)]
    if len(tensors) < 2 or math.prod(t.numel() for t in tensors) <= _SMALL:
        return  # nothing that is joined, broadcast or multiplied becomes larger
    shape = _shape(node, tensors)
    if shape is not None:
        check_shape(shape, tensors, given)


def check_shape(shape: Sequence[int], inputs: Sequence[Tensor], given: float = math.inf) -> None:
    """The same where the shape of the result is known."""
    made, largest = math.prod(shape), max(t.numel() for t in inputs)
    if made <= _SMALL:
        return
    size = made * max(t.element_size() for t in inputs)
    grown = made > _GROWTH_OF_RUN * given or (made > _MOST and made > _GROWTH * largest)
    if grown or size > _memory():
        raise ValueError(f"asks for a tensor of shape {list(shape)} ({_human(size)})")


def _human(size: int) -> str:
    return f"{size >> 30} GiB" if size >> 30 else f"{size >> 20} MiB"


def _shape(node: Node, tensors: Sequence[Tensor]) -> tuple[int, ...] | None:
    """Of the result, where it follows from the shapes of the inputs; None where it does not, or
    where they do not fit, which torch then says."""
    shapes = [tuple(t.shape) for t in tensors]
    if node.op == "Concat":
        axis = int(node.attributes.get("axis") or 0)
        if len({len(s) for s in shapes}) > 1 or not -len(shapes[0]) <= axis < len(shapes[0]):
            return None
        joined = list(shapes[0])
        joined[axis] = sum(s[axis] for s in shapes)
        return tuple(joined)
    if node.op == "Gemm":
        first = shapes[0][1 if node.attributes.get("transA") else 0]
        last = shapes[1][0 if node.attributes.get("transB") else 1]
        return (first, last)
    if node.op == "Einsum":
        return _einsum(str(node.attributes.get("equation", "")), shapes)
    try:
        if node.op == "MatMul" and min(len(s) for s in shapes) > 1:
            ahead = _broadcast([s[:-2] for s in shapes])
            return (*ahead, shapes[0][-2], shapes[1][-1])
        return _broadcast(shapes) if node.op in _BROADCASTS else None
    except RuntimeError:
        return None


def _broadcast(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(torch.broadcast_shapes(*shapes))  # type: ignore[no-untyped-call]


def _einsum(equation: str, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...] | None:
    """None where axes stand for several (an ellipsis)."""
    terms, arrow, result = equation.replace(" ", "").partition("->")
    named = terms.split(",")
    if "." in equation or not arrow or [len(n) for n in named] != [len(s) for s in shapes]:
        return None
    sizes = dict(zip("".join(named), (n for s in shapes for n in s), strict=True))
    return tuple(sizes.get(c, 1) for c in result)


class Budget:
    """What has been spent in one run, by all of its loops together.

    Attributes:
        given: elements of the inputs and weights of the run.
    """

    def __init__(self, given: float = math.inf) -> None:
        self.given = given
        self.steps = self.work = self.held = 0

    def step(self) -> None:
        """One more step of a loop.

        Raises:
            ValueError: there have been too many.
        """
        self.steps += 1
        self.plan(0)

    def plan(self, steps: float) -> None:
        """So many more steps are sure to come.

        Raises:
            ValueError: they will be too many.
        """
        if self.steps + steps > MOST_STEPS:
            raise ValueError(f"runs more than {MOST_STEPS} times")

    def spend(self, node: Node, values: Sequence[Any], results: Sequence[Any]) -> None:
        """What a node has made, once a loop has begun.

        Raises:
            ValueError: more than could be meant, or than there is memory for.
        """
        for made in results:
            if not isinstance(made, Tensor):
                continue
            self.work += made.numel() * _inner(node, values)
            if made.grad_fn is not None and not made._is_view():
                self.held += made.numel() * made.element_size()
        if self.work > _MOST_WORK:
            raise ValueError(
                f"more than {_MOST_WORK:.0e} operations in {self.steps} steps of loops"
            )
        if self.held > _LARGE and self.held > _memory():
            gib, steps = self.held >> 30, self.steps
            raise ValueError(f"{steps} steps of loops keep {gib} GiB for the backward pass")


def _inner(node: Node, values: Sequence[Any]) -> int:
    """Multiplications for each element of a result."""
    if node.op == "Gemm":
        return int(values[0].shape[0 if node.attributes.get("transA") else 1])
    if node.op in _PRODUCTS and values[0].dim():
        return int(values[0].shape[-1])
    return math.prod(values[1].shape[1:]) if node.op == "Conv" else 1


def _memory() -> int:
    """Bytes that this machine has, used or not."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):  # a system that does not tell
        return 1 << 40

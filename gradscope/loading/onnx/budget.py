"""What one run of a graph may take: sizes that a few bytes ask for, and loops that go on.

Told before the memory is taken where the inputs show how large a result will be.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from gradscope.loading.onnx.graph import Node

Tensor = torch.Tensor
MOST_STEPS = 100_000  # of all loops in one run, those of loops within loops counted each
MOST_RUNS = 1 << 21  # of nodes, from the first step of a loop on; a step costs as much as four
OPEN_RUNS = 1 << 18  # the same once a loop has begun of which nothing tells that it ends sooner
_STEP = 4
_MOST_WORK = 1 << 42  # multiplications and results of all that runs from the first step of a loop
_LITTLE_WORK = 1 << 34  # multiplications, about a second of them
_WORK_OF_RUN = 1 << 20  # as many for each element of inputs and weights of the whole run
_LARGE = 1 << 28  # bytes that loops may keep in any memory
_MOST = 1 << 30  # elements that may be made out of little
_GROWTH = 256  # times as many elements as the largest input: out of little
SMALL = 1 << 26  # elements that may be made of anything
_GROWTH_OF_RUN = 1024  # times as many elements as inputs and weights of the whole run together
_PRODUCTS = frozenset({"MatMul", "Gemm", "Einsum"})
_RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
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
    if node.op in _RECURRENT:
        batch_first = bool(node.attributes.get("layout"))
        check_count(values[0].shape[1 if batch_first else 0], "steps of a sequence")
    if node.op == "ConcatFromSequence":
        values = values[0]
        check_shape([sum(t.numel() for t in values)], values, given)
        return
    tensors = [v for v in values if isinstance(v, Tensor)]
    if len(tensors) < 2 or math.prod(t.numel() for t in tensors) <= SMALL:
        return  # nothing that is joined, broadcast or multiplied becomes larger
    shape = _shape(node, tensors)
    if shape is not None:
        check_shape(shape, tensors, given)


def check_count(count: int, what: str) -> None:
    """Refuse to go through more of something one by one than a loop may have steps.

    Raises:
        ValueError: the number.
    """
    if count > MOST_STEPS:
        raise ValueError(f"goes through {count:,} {what}")


def check_shape(shape: Sequence[int], inputs: Sequence[Tensor], given: float = math.inf) -> None:
    """The same where the shape of the result is known."""
    made = math.prod(shape)
    if made <= SMALL:
        return
    largest = max(t.numel() for t in inputs)
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
    if node.op in ("Gather", "Attention", "GridSample"):
        return _picked(node, *shapes[:2])
    try:
        if node.op == "MatMul" and min(len(s) for s in shapes) > 1:
            ahead = _broadcast([s[:-2] for s in shapes])
            return (*ahead, shapes[0][-2], shapes[1][-1])
        return _broadcast(shapes) if node.op in _BROADCASTS else None
    except RuntimeError:
        return None


def _broadcast(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(torch.broadcast_shapes(*shapes))  # type: ignore[no-untyped-call]


def _picked(node: Node, x: tuple[int, ...], at: tuple[int, ...]) -> tuple[int, ...] | None:
    """Rows of a table for each index; scores of queries and keys; pixels for each place."""
    if node.op == "Gather":
        axis = int(node.attributes.get("axis") or 0)
        return (*at, *(n for i, n in enumerate(x) if i != axis % len(x))) if x else None
    if min(len(x), len(at)) < 3:
        return None
    return (*x[:-1], at[-2]) if node.op == "Attention" else (*x[:2], *at[1:-1])


def _einsum(equation: str, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...] | None:
    """An ellipsis stands for axes of its own, counted from the last; without an arrow, every letter
    that occurs once is an axis of the result, in alphabetical order."""
    terms, arrow, result = equation.replace(" ", "").partition("->")
    sizes: dict[str, int] = {}
    named = terms.split(",")
    if len(named) != len(shapes):
        return None
    for term, shape in zip(named, shapes, strict=True):
        before, dots, after = term.partition("...")
        several = len(shape) - len(before) - len(after)
        if several < 0 or (several and not dots):
            return None  # torch says so
        letters = [*before, *(str(i) for i in range(several, 0, -1)), *after]
        for letter, size in zip(letters, shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    if not arrow:
        result = "..." + "".join(c for c in sizes if not c.isdigit() and terms.count(c) == 1)
    wanted = result.replace("...", "")
    spread = [n for c, n in sizes.items() if c.isdigit()] if "..." in result else []
    return (*spread, *(sizes.get(c, 1) for c in wanted))


class Budget:
    """What has been spent in one run, by all of its loops together.

    Attributes:
        given: elements of the inputs and weights of the run.
    """

    def __init__(self, given: float = math.inf) -> None:
        self.given = given
        self.steps = self.work = self.held = self.runs = 0
        self._most_runs = MOST_RUNS
        self._most_work = min(_MOST_WORK, max(_LITTLE_WORK, _WORK_OF_RUN * given))

    def admit(self, node: Node, values: Sequence[Any]) -> None:
        """A node that is about to run; see :func:`check_result`.

        Raises:
            ValueError: its result, or all that was multiplied so far, is more than could be meant.
        """
        check_result(node, values, self.given)
        if node.op in _PRODUCTS and not self.steps:  # in loops it is counted by spend
            shapes = [v.numel() for v in values[:2] if isinstance(v, Tensor)]
            if math.prod(shapes) > SMALL:
                made = _shape(node, [v for v in values if isinstance(v, Tensor)])
                self._worked(math.prod(made or ()) * _inner(node, values))

    def _worked(self, count: int) -> None:
        self.work += count
        if self.work > self._most_work:
            what = f"more than {self._most_work:.0e} operations"
            raise ValueError(what + (f" in {self.steps} steps of loops" if self.steps else ""))

    def step(self) -> None:
        """One more step of a loop.

        Raises:
            ValueError: there have been too many.
        """
        self.steps += 1
        self.runs += _STEP
        self.plan(0)

    def plan(self, steps: float, nodes: int = 0) -> None:
        """So many more steps are sure to come.

        Args:
            steps: of loops.
            nodes: that run in each of them, at least.

        Raises:
            ValueError: they will be too many.
        """
        if self.steps + steps > MOST_STEPS:
            raise ValueError(f"runs more than {MOST_STEPS} times")
        if self.runs + steps * (_STEP + nodes) > self._most_runs:
            raise ValueError(f"runs more than {self._most_runs} nodes in the steps of loops")

    def begin(self, most: float, nodes: int) -> None:
        """A loop of at most so many steps, of so many nodes each, that may end before."""
        if most * (_STEP + nodes) > MOST_RUNS:
            self._most_runs = min(self._most_runs, self.runs + OPEN_RUNS)

    def check_alive(self, values: Iterable[Any]) -> None:
        """Once something large was made: all that a run keeps for later nodes.

        Raises:
            ValueError: it takes more than half of the memory of the machine.
        """
        tensors = (v for v in values if isinstance(v, Tensor))
        storages = {s.data_ptr(): s.nbytes() for s in (t.untyped_storage() for t in tensors)}
        if sum(storages.values()) > _memory() // 2:
            raise ValueError(f"keeps {_human(sum(storages.values()))} for later nodes")

    def spend(self, node: Node, values: Sequence[Any], results: Sequence[Any]) -> None:
        """What a node has made, once a loop has begun.

        Raises:
            ValueError: more than could be meant, or than there is memory for.
        """
        self.runs += 1
        self.plan(0)
        for made in results:
            if not isinstance(made, Tensor):
                continue
            self._worked(made.numel() * _inner(node, values))
            if made.grad_fn is not None and not made._is_view():
                self.held += made.numel() * made.element_size()
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

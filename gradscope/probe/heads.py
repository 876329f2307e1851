"""The outputs of a model, and where a cotangent enters each of them.

v enters before a final softmax, log-softmax, sigmoid or normalisation: a confident output is no
loss of signal.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.graph import GradientEdge

from gradscope.errors import OptionError
from gradscope.findings import Skipped
from gradscope.probe.graph import SHAPE_OPS, Node, op_name, output_shape

MAX_HEADS = 4
_SQUASH = {
    "SoftmaxBackward": "softmax",
    "LogSoftmaxBackward": "log-softmax",
    "SigmoidBackward": "sigmoid",
    "LogSigmoidBackward": "log-sigmoid",
    "TanhBackward": "tanh",
    "HardsigmoidBackward": "hardsigmoid",
    "AtanBackward": "atan",
}
_CONSTANT_ARITHMETIC = {"AddBackward", "SubBackward", "MulBackward", "DivBackward", "NegBackward"}


@dataclass(frozen=True)
class HeadRoot:
    """One output and the place in the graph where its cotangent enters.

    Attributes:
        name: ``output``, ``output[1]``, ``output.logits``.
        tensor: the output itself.
        edge: where the cotangent enters.
        shape: of the tensor there.
        entered_before: the squashing that was skipped, if any.
    """

    name: str
    tensor: torch.Tensor
    edge: GradientEdge
    shape: tuple[int, ...]
    entered_before: str | None


def named_tensors(output: Any, name: str = "output") -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor in a model's output, with a name that says where it stands."""
    if isinstance(output, torch.Tensor):
        yield name, output
    elif isinstance(output, Mapping):
        for key, value in output.items():
            yield from named_tensors(value, f"{name}.{key}")
    elif isinstance(output, tuple) and hasattr(output, "_fields"):
        for key in output._fields:
            yield from named_tensors(getattr(output, key), f"{name}.{key}")
    elif isinstance(output, list | tuple):
        for i, value in enumerate(output):
            yield from named_tensors(value, f"{name}[{i}]")
    elif isinstance(output, torch.nn.utils.rnn.PackedSequence):
        yield f"{name}.data", output.data
    elif dataclasses.is_dataclass(output) and not isinstance(output, type):
        for item in dataclasses.fields(output):
            yield from named_tensors(getattr(output, item.name), f"{name}.{item.name}")


def chosen_tensors(output: Any, wanted: Sequence[str]) -> list[tuple[str, torch.Tensor]]:
    """The outputs that the user named, in that order; all if none is named.

    ``logits`` and ``output.logits`` name the same one, as do ``1`` and ``output[1]``.

    Raises:
        OptionError: there is no such output.
    """
    there = list(named_tensors(output))
    if not wanted:
        return there
    tensors = dict(there)
    found = []
    for name in wanted:
        forms = (name, f"output.{name}", f"output[{name}]", f"output{name}")
        form = next((f for f in forms if f in tensors), None)
        if form is None:
            names = ", ".join(list(tensors)[:8]) + (", ..." if len(tensors) > 8 else "")
            what = f"the model has no output '{name}'; it has: {names or 'none'}"
            hint = "The file for the report is named by --out."
            raise OptionError(what, where="--output", hint=hint)
        found.append((form, tensors[form]))
    return found


def find_heads(output: Any, wanted: Sequence[str] = ()) -> tuple[list[HeadRoot], list[Skipped]]:
    """Heads that can receive a cotangent, and those that cannot, with the reason.

    Args:
        output: what the model returned.
        wanted: names of the outputs to take; none: all.

    Raises:
        OptionError: there is no output of that name.
    """
    heads: list[HeadRoot] = []
    skipped: list[Skipped] = []
    for name, tensor in chosen_tensors(output, wanted):
        if not tensor.is_floating_point():
            skipped.append(Skipped(name, f"{_dtype(tensor)} output: no gradient is defined"))
        elif tensor.grad_fn is None:
            skipped.append(Skipped(name, "detached output: no parameter or input leads to it"))
        elif tensor.numel() == 0:
            skipped.append(Skipped(name, "empty output"))
        elif len(heads) == MAX_HEADS and not wanted:
            reason = f"only the first {MAX_HEADS} outputs are probed; --output chooses"
            skipped.append(Skipped(name, reason))
        else:
            heads.append(_root(name, tensor))
    return heads, skipped


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _root(name: str, tensor: torch.Tensor) -> HeadRoot:
    node, number = tensor.grad_fn, tensor.output_nr
    assert node is not None
    found = _before_squash(node)
    if found is None:
        return HeadRoot(name, tensor, GradientEdge(node, number), tuple(tensor.shape), None)
    squash, (inner, inner_number) = found
    shape = output_shape(inner, inner_number)
    return HeadRoot(name, tensor, GradientEdge(inner, inner_number), shape, squash)


def _before_squash(node: Node) -> tuple[str, tuple[Node, int]] | None:
    """What a final squashing operation squashes; None if the output ends otherwise."""
    while node is not None:
        name = op_name(node)
        inputs = node.next_functions
        if name in _SQUASH:
            return _real_edge(_SQUASH[name], inputs[0])
        if name == "DivBackward" and len(inputs) == 2 and _is_norm_of(inputs[1][0], inputs[0][0]):
            return _real_edge("normalisation", inputs[0])
        present = [n for n, _ in inputs if n is not None]
        constant = name in _CONSTANT_ARITHMETIC and len(present) == 1
        if len(present) != 1 or not (constant or name in SHAPE_OPS) or _is_leaf(present[0]):
            return None
        node = present[0]
    return None


def _real_edge(squash: str, edge: tuple[Node, int]) -> tuple[str, tuple[Node, int]] | None:
    """Squashing of a leaf (the input itself) is no head to enter before."""
    return None if edge[0] is None or _is_leaf(edge[0]) else (squash, edge)


def _is_leaf(node: Node) -> bool:
    return not node.next_functions


def _is_norm_of(divisor: Node, numerator: Node) -> bool:
    """Whether the divisor is a norm (perhaps clamped, expanded) of the numerator."""
    if divisor is None or numerator is None:
        return False
    normed = False
    for _ in range(8):
        if divisor is numerator:
            return normed
        name = op_name(divisor)
        normed = normed or "Norm" in name or name in ("SqrtBackward", "PowBackward", "SumBackward")
        present = [n for n, _ in divisor.next_functions if n is not None]
        if len(set(present)) != 1:
            return False
        divisor = present[0]
    return False

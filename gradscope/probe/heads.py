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
from gradscope.probe.graph import output_shape
from gradscope.probe.squash import before_squash

MAX_HEADS = 4


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
    elif type(output).__module__ != "builtins" and not isinstance(output, torch.nn.Module):
        for key, value in getattr(output, "__dict__", {}).items():  # a result class of the user's
            if isinstance(value, torch.Tensor):
                yield f"{name}.{key}", value


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
            is_file = name.endswith((".json", ".html", ".txt"))
            hint = "The file for the report is named by --out." if is_file else None
            raise OptionError(what, where="--head", hint=hint)
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
        if not (tensor.is_floating_point() or tensor.is_complex()):
            skipped.append(Skipped(name, f"{_dtype(tensor)} output: no gradient is defined"))
        elif tensor.grad_fn is None:
            skipped.append(Skipped(name, "detached output: no parameter or input leads to it"))
        elif tensor.numel() == 0:
            skipped.append(Skipped(name, "empty output"))
        elif len(heads) == MAX_HEADS and not wanted:
            reason = f"only the first {MAX_HEADS} outputs are probed; --head chooses"
            skipped.append(Skipped(name, reason))
        else:
            root = _root(name, tensor)
            twin = next((h.name for h in heads if h.edge == root.edge), None)
            if twin is None:
                heads.append(root)
            else:
                skipped.append(Skipped(name, f"made of the same tensor as {twin}"))
    return heads, skipped


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _root(name: str, tensor: torch.Tensor) -> HeadRoot:
    node, number = tensor.grad_fn, tensor.output_nr
    assert node is not None
    found = before_squash(node)
    if found is None:
        return HeadRoot(name, tensor, GradientEdge(node, number), tuple(tensor.shape), None)
    inner, inner_number = found.edge
    shape = output_shape(inner, inner_number)
    return HeadRoot(name, tensor, GradientEdge(inner, inner_number), shape, found.name)

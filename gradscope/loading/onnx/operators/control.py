"""If, Loop and Scan: subgraphs that see the tensors around them."""

from __future__ import annotations

import math
from typing import Any

import torch

from gradscope.loading.onnx.registry import Call, number, operator

Tensor = torch.Tensor


@operator("If", scoped=True)
def choose(call: Call, scope: Any, condition: Tensor) -> tuple[Any, ...]:
    """One of two branches; only the one that runs is measured."""
    name = "then_branch" if bool(number(condition)) else "else_branch"
    return tuple(call.programs[name].run((), scope))


@operator("Loop", scoped=True)
def loop(
    call: Call, scope: Any, trips: Tensor | None, condition: Tensor | None, *carried: Any
) -> tuple[Any, ...]:
    """A body run while its condition holds and at most so many times.

    Returns:
        the values carried from step to step, then those collected, stacked.

    Raises:
        ValueError: it does not end.
    """
    body = call.programs["body"]
    most = math.inf if trips is None else int(number(trips))
    goes_on = condition is None or bool(number(condition))
    values, collected = list(carried), list[list[Any]]()
    if goes_on and body.is_unending():
        scope.budget.plan(most * (1 + body.least_steps(scope)), len(body.graph.nodes))
    elif goes_on:
        scope.budget.begin(most, len(body.graph.nodes))
    step = 0
    while goes_on and step < most:
        scope.budget.step()
        held = torch.tensor(goes_on)
        after, *results = body.run((torch.tensor(step), held, *values), scope)
        goes_on = bool(number(after))
        values, new = results[: len(values)], results[len(values) :]
        collected = collected or [[] for _ in new]
        for column, item in zip(collected, new, strict=True):
            column.append(item)
        step += 1
    stacked = [torch.stack(column) for column in collected]
    if not step:
        stacked = [_empty(call, o) for o in body.graph.outputs[1 + len(values) :]]
    return (*values, *stacked)


def _empty(call: Call, output: Any) -> Tensor:
    """What is collected in no step at all."""
    shape = [0, *(s or 0 for s in output.shape or ())]
    return torch.zeros(shape, dtype=call.types.of(output.dtype or 1))


@operator("Scan", since=9, scoped=True)
def scan(call: Call, scope: Any, *inputs: Tensor) -> tuple[Any, ...]:
    """A body run over slices of some inputs, with states carried along."""
    body, count = call.programs["body"], int(call.get("num_scan_inputs"))
    states, scanned = list(inputs[:-count]), inputs[-count:]
    axes = call.get("scan_input_axes", (0,) * count)
    ways = call.get("scan_input_directions", (0,) * count)
    scope.budget.plan(scanned[0].shape[axes[0]], len(body.graph.nodes))
    columns = [
        (x.flip(axis) if way else x).unbind(axis)
        for x, axis, way in zip(scanned, axes, ways, strict=True)
    ]
    collected = list[list[Any]]()
    for slices in zip(*columns, strict=True):
        scope.budget.step()
        results = body.run((*states, *slices), scope)
        states, new = results[: len(states)], results[len(states) :]
        collected = collected or [[] for _ in new]
        for column, item in zip(collected, new, strict=True):
            column.append(item)
    made = len(body.graph.outputs) - len(states)
    out_axes = call.get("scan_output_axes", (0,) * made)
    out_ways = call.get("scan_output_directions", (0,) * made)
    if not collected:
        stacked = [_empty(call, o) for o in body.graph.outputs[len(states) :]]
    else:
        stacked = [
            torch.stack(list(reversed(column)) if way else column, axis)
            for column, axis, way in zip(collected, out_axes, out_ways, strict=True)
        ]
    return (*states, *stacked)


@operator("Scan", since=8, scoped=True)
def scan_batched(call: Call, scope: Any, lengths: Tensor | None, *inputs: Tensor) -> Any:
    """The form of opset 8: each sample of a batch on its own, all sequences complete."""
    count = int(call.get("num_scan_inputs"))
    if lengths is not None and lengths.numel():
        raise ValueError("sequences of different lengths (opset 8) are not known")
    ways = call.get("directions", (0,) * count)
    scope.budget.plan(inputs[-1].shape[0] * inputs[-1].shape[1])
    body, rows = call.programs["body"], []
    for b in range(inputs[0].shape[0]):
        states = [x[b] for x in inputs[:-count]]
        scanned = [x[b].flip(0) if way else x[b]
                   for x, way in zip(inputs[-count:], ways, strict=True)]  # fmt: skip
        collected = list[list[Any]]()
        for slices in zip(*[x.unbind(0) for x in scanned], strict=True):
            scope.budget.step()
            results = body.run((*states, *slices), scope)
            states, new = results[: len(states)], results[len(states) :]
            collected = collected or [[] for _ in new]
            for column, item in zip(collected, new, strict=True):
                column.append(item)
        rows.append([*states, *(torch.stack(c) for c in collected)])
    return tuple(torch.stack(column) for column in zip(*rows, strict=True))

"""Runs a graph node by node on torch tensors, eagerly, and lets go of what is no longer needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from gradscope.loading.onnx.budget import SMALL, Budget
from gradscope.loading.onnx.graph import Graph, Node, captured
from gradscope.loading.onnx.registry import Call, Operator, Types, find
from gradscope.loading.onnx.uses import Id
from gradscope.loading.onnx.weights import Binding
from gradscope.model import Products

Trace = Callable[[Node, int, Any], None]


class NodeError(RuntimeError):
    """A node that failed on these inputs; the message names it."""


class Scope(dict[str, Any]):
    """Tensors by name; what is not found here is looked up in the scope around it.

    Attributes:
        parameters: the model's parameters by key, for subgraphs.
        trace: told every output of every node, if anyone wants to know.
        budget: of the whole run, held by the outermost.
    """

    def __init__(
        self,
        around: Scope | None,
        parameters: Mapping[str, Any],
        trace: Trace | None = None,
        budget: Budget | None = None,
    ) -> None:
        super().__init__()
        self.around, self.parameters, self.trace = around, parameters, trace
        self.budget: Budget = budget or (around.budget if around is not None else Budget())

    def __missing__(self, name: str) -> Any:
        if self.around is None:
            raise KeyError(name)
        return self.around[name]

    def check_alive(self, node: Node, made: Sequence[Any]) -> None:
        """What this scope and those around it hold beside what a node has made.

        Raises:
            NodeError: there is no room for it.
        """
        held = list(made)
        scope: Scope | None = self
        while scope is not None:
            held += scope.values()
            scope = scope.around
        try:
            self.budget.check_alive(held)
        except ValueError as error:
            raise NodeError(f"{node}: {error}") from error

    def get_near(self, name: str) -> Any:
        """The same, or None."""
        try:
            return self[name]
        except KeyError:
            return None


@dataclass(eq=False)
class _Step:
    """One node, ready to run.

    Attributes:
        frees: names that no later node of this graph reads.
        pure: made of constants and shapes alone: equal inputs, equal outputs.
        last: inputs and outputs of the last run, if pure.
        products: what its first input and its first output are multiplied by.
    """

    node: Node
    operator: Operator
    call: Call
    frees: tuple[str, ...]
    pure: bool
    last: Any = None
    products: tuple[float, float] = (1.0, 1.0)


class Program:
    """One graph, compiled.

    Args:
        graph: whose operators are all known.
        types: what stands for the file's types.
        weights: the parameters that stand for constants.
        around: names that the graphs around this one make without data.
    """

    def __init__(
        self,
        graph: Graph,
        types: Types,
        weights: Mapping[Id, Binding],
        around: frozenset[str] = frozenset(),
    ) -> None:
        self.graph = graph
        mine = {n: weights[(graph.path, n)] for n in graph.constants if (graph.path, n) in weights}
        self._single = {n: b.keys[0] for n, b in mine.items() if not b.pieces}
        self._pieces = {n: b.keys for n, b in mine.items() if b.pieces}
        self.constants = {n: c.tensor for n, c in graph.constants.items() if n not in mine}
        pure = around | set(self.constants)
        last_use = _last_uses(graph)
        self._steps: list[_Step] = []
        for i, node in enumerate(graph.nodes):
            operator = find(node)
            assert operator is not None, node
            programs = {
                name: Program(value, types, weights, frozenset(pure))
                for name, value in node.attributes.items()
                if isinstance(value, Graph)
            }
            is_pure = not programs and _is_pure(node, pure)
            if is_pure:
                pure = pure | set(node.outputs)
            call = Call(node, types, programs)
            self._steps.append(_Step(node, operator, call, last_use.get(i, ()), is_pure))

    def least_steps(self, around: Scope) -> float:
        """Steps that loops in this graph are sure to make when it runs, loops inside them counted.

        Args:
            around: what the graph around this one knows.
        """
        made = {name for step in self._steps for name in step.node.outputs}
        total = 0.0
        for step in self._steps:
            if step.node.op != "Loop":
                continue
            trips, begins = (
                self.constants.get(n, None if n in made else around.get_near(n))
                for n in step.node.inputs[:2]
            )
            body = step.call.programs["body"]
            runs = body.is_unending() and (not step.node.inputs[1] or _number(begins) == 1)
            count = _number(trips)
            if runs and count is not None and count > 0:
                total += count * (1 + body.least_steps(around))
        return total

    def is_unending(self) -> bool:
        """For the body of a loop: whether its condition is the one that it was given."""
        makers = {n: s.node for s in self._steps for n in s.node.outputs}
        name = self.graph.outputs[0].name
        while name in makers and makers[name].op == "Identity":
            name = makers[name].inputs[0]
        if name in self.constants:
            return bool(self.constants[name].all())
        return len(self.graph.inputs) > 1 and name == self.graph.inputs[1].name

    def exchange(self, tanh: bool) -> int:
        """Runs every logistic activation as a tanh, or as what it is; how many there are."""
        count = 0
        for step in self._steps:
            if is_logistic(step.node):
                operator = find(replace(step.node, op="Tanh" if tanh else "Sigmoid"))
                assert operator is not None
                step.operator = operator
                count += 1
            count += sum(p.exchange(tanh) for p in step.call.programs.values())
        return count

    def put(self, products: Products) -> None:
        """Runs with these factors before and behind nodes, and with no others."""
        for step in self._steps:
            step.products = products.get(step.node.where, (1.0, 1.0))
            for program in step.call.programs.values():
                program.put(products)

    def apply(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Changes every floating constant: to another type or device."""
        for name, tensor in self.constants.items():
            self.constants[name] = change(tensor) if tensor.is_floating_point() else tensor
        for step in self._steps:
            step.last = None
            for program in step.call.programs.values():
                program.apply(change)

    def run(self, inputs: Sequence[Any], around: Scope) -> list[Any]:
        """Outputs in order.

        Args:
            inputs: in order.
            around: what the graph around this one knows.

        Raises:
            NodeError: names the node that failed.
        """
        scope = Scope(around, around.parameters, around.trace)
        scope.update(self.constants)
        for name, key in self._single.items():
            scope[name] = scope.parameters[key]
        for name, keys in self._pieces.items():
            scope[name] = [scope.parameters[k] for k in keys]
        scope.update(zip((i.name for i in self.graph.inputs), inputs, strict=False))
        for step in self._steps:
            _run(step, scope)
            for name in step.frees:
                scope.pop(name, None)
        return [scope[o.name] for o in self.graph.outputs]


def _number(value: Any) -> int | None:
    single = isinstance(value, torch.Tensor) and value.numel() == 1
    return int(value) if single else None


def is_logistic(node: Node) -> bool:
    """Whether a node can be made a tanh by its name alone."""
    return node.op == "Sigmoid" and not node.domain


def _run(step: _Step, scope: Scope) -> None:
    node = step.node
    values: list[Any] = [scope[n] if n else None for n in node.inputs]
    if step.pure and step.last is not None:
        before, results = step.last
        if node.op == "Shape":
            same = before == tuple(values[0].shape)
        else:
            same = all(a is b for a, b in zip(before, values, strict=True))
        if same:
            _store(step, scope, results)
            return
    together = _on_one_device(values)
    arguments = (step.call, scope, *together) if step.operator.scoped else (step.call, *together)
    try:
        scope.budget.admit(node, values)
        result = step.operator.run(*_multiplied(step, arguments))
        results = result if isinstance(result, tuple) else (result,)
        if step.products[1] != 1:
            results = (results[0] * step.products[1], *results[1:])
        if scope.budget.steps and not step.operator.scoped:
            scope.budget.spend(node, values, results)
    except (NodeError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # what torch says of a shape or type does not name the node
        if "can't allocate memory" in str(error):
            raise
        said = str(error).strip().split("\n")[0] or type(error).__name__
        raise NodeError(f"{node}: {said}") from error
    if any(isinstance(r, torch.Tensor) and r.numel() > SMALL for r in results):
        scope.check_alive(node, results)
    elif step.pure:
        kept: Any = tuple(values[0].shape) if node.op == "Shape" else values
        step.last = (kept, results)
    _store(step, scope, results)


def _multiplied(step: _Step, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    before = step.products[0]
    if before == 1:
        return arguments
    at = 2 if step.operator.scoped else 1
    return (*arguments[:at], arguments[at] * before, *arguments[at + 1 :])


def _on_one_device(values: list[Any]) -> list[Any]:
    """Shapes and indices are made on the CPU, and follow the data where they meet them."""
    devices = {v.device for v in values if isinstance(v, torch.Tensor)}
    if len(devices) < 2:
        return values
    there = next(d for d in devices if d.type != "cpu")
    return [v.to(there) if isinstance(v, torch.Tensor) else v for v in values]


def _store(step: _Step, scope: Scope, results: tuple[Any, ...]) -> None:
    for index, name in enumerate(step.node.outputs):
        if name and index < len(results):
            scope[name] = results[index]
            if scope.trace is not None:
                scope.trace(step.node, index, results[index])


def _is_pure(node: Node, pure: frozenset[str] | set[str]) -> bool:
    if node.domain or not any(node.outputs):
        return False
    return node.op == "Shape" or all(n in pure for n in node.inputs if n)


def _last_uses(graph: Graph) -> dict[int, tuple[str, ...]]:
    """Index of a node -> names that can be forgotten after it."""
    last: dict[str, int] = {}
    for i, node in enumerate(graph.nodes):
        for name in (*node.outputs, *node.inputs, *captured(node)):
            if name:
                last[name] = i
    kept = {o.name for o in graph.outputs} | set(graph.constants)
    found: dict[int, list[str]] = {}
    for name, i in last.items():
        if name not in kept:
            found.setdefault(i, []).append(name)
    return {i: tuple(names) for i, names in found.items()}

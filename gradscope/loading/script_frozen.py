"""Frozen scripts: what were parameters are constants of the graph, and gradients reach them too."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import torch
from torch.jit._script import RecursiveScriptModule

_STATISTICS = ("running_mean", "running_var")


class Frozen(torch.nn.Module):
    """A frozen script with the constants that may have been weights as its parameters.

    They are the very tensors that the graph computes with.

    Args:
        script: prepared to be called.
    """

    def __init__(self, script: RecursiveScriptModule) -> None:
        super().__init__()
        vars(self)["_script"] = script  # not as a child: it has no parameters to name
        vars(self)["forward"] = vars(script)["forward"]
        self.original_name = script.original_name
        self.mode_is_fixed = True
        for (name, _), tensor in sorted(_weights(script).items(), key=lambda item: item[0][1]):
            path, _, own = name.rpartition(".")
            self._owner(path)._parameters[own] = tensor  # type: ignore[assignment]
        self.eval()

    def _owner(self, path: str) -> torch.nn.Module:
        if path not in self._modules:
            owner = torch.nn.Module()
            vars(owner)["original_name"] = _layer_class(path.rpartition("_")[0])
            self._modules[path] = owner
        owned = self._modules[path]
        assert owned is not None
        return owned


def _layer_class(operation: str) -> str:
    """The module that calls an operation, where it matters for the size of a unit."""
    if operation.startswith("conv_transpose"):
        return f"ConvTranspose{operation.removeprefix('conv_transpose')}"
    return {"embedding": "Embedding", "embedding_bag": "EmbeddingBag"}.get(operation, operation)


def _weights(script: RecursiveScriptModule) -> dict[tuple[str, int], torch.Tensor]:
    """Floating constants of forward: (name by what uses it, number) -> tensor."""
    code, held = script._c._get_method("forward").code_with_constants
    names = dict(_names(ast.parse(code)))
    found = {}
    for constant, value in held.items():
        name = names.get(constant, f"constants.{constant}")
        is_weight = isinstance(value, torch.Tensor) and value.is_floating_point() and value.dim()
        if is_weight and value.layout is torch.strided and not name.endswith(_STATISTICS):
            found[name, int(constant[1:])] = value
    return found


def _names(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """``c0`` -> ``linear_0.weight``, by the call that takes it and the name of the argument."""
    lists: dict[str, ast.List] = {}
    counts: dict[str, int] = {}
    seen: set[str] = set()
    for node in _in_order(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.List):
            target = node.targets[0]
            if isinstance(target, ast.Name):
                lists[target.id] = node.value
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        operation = node.func.attr
        taken = dict(_taken(operation, node.args, lists))
        if not taken or not seen.isdisjoint(taken):
            continue
        number = counts.setdefault(operation, 0)
        counts[operation] += 1
        seen |= taken.keys()
        for constant, argument in taken.items():
            yield constant, f"{operation}_{number}.{argument}"


def _in_order(tree: ast.AST) -> Iterator[ast.AST]:
    """Inner expressions first, as they run."""
    for child in ast.iter_child_nodes(tree):
        yield from _in_order(child)
    yield tree


def _taken(
    operation: str, arguments: list[ast.expr], lists: dict[str, ast.List]
) -> Iterator[tuple[str, str]]:
    schemas = torch._C._jit_get_schemas_for_operator(f"aten::{operation}")
    fitting = [s for s in schemas if len(s.arguments) >= len(arguments)]
    for at, argument in enumerate(arguments):
        name = fitting[0].arguments[at].name if fitting else str(at)
        if (constant := _constant(argument)) is not None:
            yield constant, name
        values = lists.get(argument.id) if isinstance(argument, ast.Name) else argument
        if isinstance(values, ast.List):
            held = [c for c in map(_constant, values.elts) if c is not None]
            if len(held) == len(values.elts):
                for i, constant in enumerate(held):
                    yield constant, f"{name}_{i}"


def _constant(node: ast.expr) -> str | None:
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return node.attr if node.value.id == "CONSTANTS" else None
    return None

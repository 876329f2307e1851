"""Control flow in exported programs, as plain Python; and an operation without a derivative.

torch runs a branch as one opaque operation: the activations inside would not be seen. Here the
branch that is taken runs like the rest of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

_MOST_STEPS = 1_000_000


def unfold(module: torch.nn.Module) -> None:
    """Replace these operations in a program and in its branches."""
    for part in module.modules():
        if not isinstance(part, torch.fx.GraphModule):
            continue
        nodes = [n for n in part.graph.nodes if n.op == "call_function"]
        changed = [(n, _PLAIN[str(n.target)]) for n in nodes if str(n.target) in _PLAIN]
        for node, plain in changed:
            node.target = plain
        if changed:
            part.recompile()


def cond(predicate: Any, then: Callable[..., Any], other: Callable[..., Any], *rest: Any) -> Any:
    """``torch.cond``: one of two branches."""
    operands = rest[0] if rest else ()
    return (then if bool(predicate) else other)(*operands)


def while_loop(
    goes_on: Callable[..., Any],
    body: Callable[..., Any],
    carried: Sequence[Any],
    fixed: Sequence[Any] = (),
) -> Any:
    """``while_loop``: the body as long as the condition holds."""
    values = tuple(carried)
    for _ in range(_MOST_STEPS):
        if not bool(goes_on(*values, *fixed)):
            return values
        values = tuple(body(*values, *fixed))
    raise RuntimeError(f"a loop of the program did not end after {_MOST_STEPS:,} steps")


def set_grad_enabled(enabled: bool, body: Callable[..., Any], *operands: Any) -> Any:
    """A part that was run with or without gradients."""
    with torch.set_grad_enabled(enabled):
        return body(*operands)


def autocast(
    device: str,
    dtype: torch.dtype | None,
    enabled: bool,
    cached: bool | None,
    body: Callable[..., Any],
    *operands: Any,
) -> Any:
    """A part that was run in mixed precision."""
    with torch.autocast(device, dtype=dtype, enabled=enabled, cache_enabled=cached):
        return body(*operands)


def checkpoint(body: Callable[..., Any], *operands: Any, **options: Any) -> Any:
    """A part whose activations were to be computed twice: once will do."""
    return body(*operands)


def copied(target: torch.Tensor, source: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    """``aten.copy``: the values of ``source`` in the form of ``target``."""
    return source.to(target.device, target.dtype).expand(target.shape).clone()


_PLAIN: dict[str, Callable[..., Any]] = {
    "aten.copy.default": copied,
    "cond": cond,
    "while_loop": while_loop,
    "wrap_with_set_grad_enabled": set_grad_enabled,
    "wrap_with_autocast": autocast,
    "tag_activation_checkpoint": checkpoint,
}

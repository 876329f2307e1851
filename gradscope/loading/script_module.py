"""How a script is called: unoptimised, from the same state each time, its output thrown away."""

from __future__ import annotations

import contextlib
import copy
import inspect
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.jit._script import RecursiveScriptModule

from gradscope.fusion import switched_off_fusion
from gradscope.loading.wanted import PLAIN
from gradscope.model import Input

_RAISED = re.compile(r"^(?:[\w.]*(?:Error|Exception)): (.+)")
_RECURRENT = frozenset({"lstm", "gru", "rnn_tanh", "rnn_relu"})


class Runner:
    """The forward of a script, as its module is to call it.

    With optimisation on, derivatives of activations vanish into fused operations from the second
    call on, and the choice made at the first call stays with the type: so it is off at every call.

    Args:
        method: the script's own forward.
        state: put back before each call.
        recurrent: whether it has recurrent layers, which run unfused.
        defaults: of the schema, for callers that look for a signature.
    """

    def __init__(self, method: Any, state: State, *, recurrent: bool) -> None:
        self._method, self._state, self._recurrent = method, state, recurrent
        self.__signature__ = _signature(method.schema)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it."""
        self._state.restore()
        with ExitStack() as stack:
            stack.enter_context(unoptimised())
            stack.enter_context(contextlib.redirect_stdout(_Nowhere()))
            stack.enter_context(torch.set_grad_enabled(torch.is_grad_enabled()))
            if self._recurrent:
                stack.enter_context(switched_off_fusion())
            try:
                return self._method(*args, **kwargs)
            except (RuntimeError, torch.jit.Error) as error:
                raise RuntimeError(_reason(error)) from error


def _reason(error: Exception) -> str:
    """The interpreter puts the reason after the script's own traceback."""
    lines = [line.strip() for line in str(error).strip().split("\n") if line.strip()]
    named = (m for m in map(_RAISED.match, lines) if m is not None)
    found = next(named, None)
    return found.group(1) if found else (lines or [type(error).__name__])[-1]


class _Nowhere:
    """Where ``print`` in a script goes: the report alone belongs on stdout."""

    def write(self, text: str) -> int:
        """Forget it."""
        return len(text)

    def flush(self) -> None:
        """Nothing is kept."""


@contextmanager
def unoptimised() -> Iterator[None]:
    """Inside, scripts run operation by operation."""
    before = torch._C._get_graph_executor_optimize()
    torch._C._set_graph_executor_optimize(False)
    try:
        yield
    finally:
        torch._C._set_graph_executor_optimize(before)


class State:
    """Attributes of a script that its methods assign: hidden states, counters.

    Args:
        module: as it came out of its file.
        assigned: names of attributes that some method assigns.
    """

    def __init__(self, module: RecursiveScriptModule, assigned: Iterable[str]) -> None:
        self._held: list[tuple[Any, str, Any, Any]] = []
        self.names: list[str] = []
        for path, child in module.named_modules():
            for name in sorted(assigned):
                if name in child._modules or not child._c.hasattr(name):
                    continue
                value = child._c.getattr(name)
                if isinstance(value, torch.nn.Parameter) or name in ("training",):
                    continue
                self._held.append((child._c, name, value, _copied(value)))
                self.names.append(f"{path}.{name}" if path else name)

    def restore(self) -> None:
        """Put everything back."""
        for owner, name, value, kept in self._held:
            if isinstance(value, torch.Tensor):
                with torch.no_grad():
                    if not torch.equal(value, kept):
                        value.copy_(kept)
                owner.setattr(name, value)
            else:
                owner.setattr(name, _copied(kept))


def _copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    return copy.copy(value) if isinstance(value, list | dict) else value


def inputs_of(schema: Any) -> tuple[Input, ...]:
    """What a script's forward takes: names, and which may be left out."""
    return tuple(
        Input(a.name, required=not a.has_default_value(), plain=str(a.type) in PLAIN)
        for a in list(schema.arguments)[1:]
    )


def _signature(schema: Any) -> inspect.Signature:
    kinds = inspect.Parameter
    return inspect.Signature([
        kinds(
            a.name,
            kinds.KEYWORD_ONLY if a.kwarg_only else kinds.POSITIONAL_OR_KEYWORD,
            default=a.default_value if a.has_default_value() else kinds.empty,
        )
        for a in list(schema.arguments)[1:]
    ])  # fmt: skip


def prepare(
    module: RecursiveScriptModule, assigned: Iterable[str], calls: Iterable[str]
) -> list[str]:
    """Make every call of a loaded script one by :class:`Runner`.

    Returns:
        names of the attributes that it keeps between calls.
    """
    state = State(module, assigned)
    recurrent = not _RECURRENT.isdisjoint(calls)
    runner = Runner(module._c._get_method("forward"), state, recurrent=recurrent)
    # Where the class looks first; its own descriptor fills the same place with the bare method.
    vars(module)["forward"] = runner
    for child in module.modules():
        if not child._c.hasattr("training"):  # type: ignore[operator, union-attr]
            vars(child)["training"] = False
    return state.names

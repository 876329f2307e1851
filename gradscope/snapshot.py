"""What a model carries from one call to the next, put back before each call and at the end.

Some models remember: hidden states, caches, running statistics. A second backward pass through what
an earlier call left behind fails, and batches would not be alike. So every call starts from the
state that came out of the file.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Any

import torch

_SMALL = 1 << 14  # elements
_OWN = frozenset({"_parameters", "_buffers", "_modules", "training"})


class Snapshot:
    """Buffers, and the plain attributes of every module: tensors, numbers, lists, dictionaries.

    Lists and dictionaries are copied one level deep; what lies deeper is not looked at.

    Args:
        module: as it is to be again.
        leave: ids of buffers that are let change, such as running statistics in training.
    """

    def __init__(self, module: torch.nn.Module, leave: Container[int] = ()) -> None:
        kept = (b for b in module.buffers() if id(b) not in leave)
        self._buffers = [(b, b._version, b.detach().clone()) for b in kept]
        self._modules = [
            _State(name, child)
            for name, child in module.named_modules()
            if not isinstance(child, torch.jit.ScriptModule)  # keeps its own books
        ]

    def restore(self) -> tuple[str, ...]:
        """Put everything back.

        Returns:
            names of the attributes and replaced buffers that had changed.
        """
        changed = [name for state in self._modules for name in state.restore()]
        with torch.no_grad():
            for i, (buffer, version, value) in enumerate(self._buffers):
                if _is_changed(buffer, version, value):
                    buffer.detach_()
                    if buffer.shape != value.shape:
                        buffer.resize_(value.shape)
                    buffer.copy_(value)
                    self._buffers[i] = (buffer, buffer._version, value)
        return tuple(changed)


def _is_changed(buffer: torch.Tensor, version: int, value: torch.Tensor) -> bool:
    """Batch norm writes its statistics without counting it as a change: small ones are compared."""
    if buffer._version != version:
        return True
    return buffer.numel() <= _SMALL and not torch.equal(buffer, value)


class _State:
    """One module's own."""

    def __init__(self, name: str, module: torch.nn.Module) -> None:
        self._name, self._module = name, module
        self._buffers = dict(module._buffers)
        self._held = {k: (v, _copy(v)) for k, v in _attributes(module)}

    def restore(self) -> Iterator[str]:
        mine = vars(self._module)
        for key, value in _attributes(self._module):
            if key not in self._held:
                del mine[key]
                yield self._path(key)
            elif value is not self._held[key][0]:
                mine[key] = self._held[key][0]
                yield self._path(key)
        for key, (value, copy) in self._held.items():
            if key not in mine:
                mine[key] = value
                yield self._path(key)
            if copy is not None and not _same(value, copy):
                _refill(value, copy)
                yield self._path(key)
        now = self._module._buffers
        replaced = [k for k in {**now, **self._buffers} if now.get(k) is not self._buffers.get(k)]
        if replaced:
            now.clear()
            now.update(self._buffers)
        yield from map(self._path, replaced)

    def _path(self, key: str) -> str:
        return f"{self._name}.{key}" if self._name else key


def _attributes(module: torch.nn.Module) -> list[tuple[str, Any]]:
    return [(k, v) for k, v in vars(module).items() if k not in _OWN and not k.endswith("_hooks")]


def _copy(value: Any) -> Any:
    """A shallow copy of a list or dictionary; None for anything else."""
    return type(value)(value) if type(value) in (list, dict) else None


def _same(value: Any, copy: Any) -> bool:
    if len(value) != len(copy):
        return False
    if isinstance(value, dict):
        return all(k in copy and copy[k] is v for k, v in value.items())
    return all(a is b for a, b in zip(value, copy, strict=True))


def _refill(value: Any, copy: Any) -> None:
    value.clear()
    if isinstance(value, dict):
        value.update(copy)
    else:
        value.extend(copy)

"""What a model carries from one call to the next, put back before each call and at the end.

Some models remember: hidden states, caches, running statistics. A second backward pass through what
an earlier call left behind fails, and batches would not be alike. So every call starts from the
state that came out of the file.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterator
from typing import Any

import torch

_SMALL = 1 << 14  # elements
_MOST = 10_000  # containers that are looked into
_OWN = frozenset({"_parameters", "_buffers", "_modules", "training"})
_FOREIGN = frozenset({"torch", "builtins", "lightning", "pytorch_lightning"})
"""Packages whose objects are not followed: a module of Lightning's holds its whole trainer."""
_DERIVED = ("_g", "_v", "_orig")  # weight_norm and its like make ``weight`` anew from these


class Snapshot:
    """Buffers, and whatever else the modules hold: tensors, lists, dictionaries, plain objects.

    Containers and objects of the user's are followed as deep as they go, up to 10000 of them;
    objects of torch's own and parameters are not.

    Args:
        module: as it is to be again.
        leave: ids of buffers that are let change, such as running statistics in training.
    """

    def __init__(self, module: torch.nn.Module, leave: Container[int] = ()) -> None:
        buffers = {id(b): b for b in module.buffers()}
        self._tensors = [_Values(b) for i, b in buffers.items() if i not in leave]
        self._modules = []
        walk = _Walk(set(buffers))
        for name, child in module.named_modules():
            if isinstance(child, torch.jit.ScriptModule):
                continue  # keeps its own books
            self._modules.append(_Attributes(name, child))
            for key, value in _attributes(child):
                walk.visit(value, f"{name}.{key}" if name else key)
        self._containers = walk.containers
        weights = {tensor_storage(p) for p in module.parameters()}
        self._tensors += [v for v in walk.tensors if v.storage not in weights]

    def restore(self) -> tuple[str, ...]:
        """Put everything back.

        Returns:
            names of the attributes, containers and replaced buffers that had changed.
        """
        changed = [name for state in self._modules for name in state.restore()]
        changed += [c.path for c in self._containers if c.restore()]
        with torch.no_grad():
            changed += [v.path for v in self._tensors if v.restore() and v.path]
        return tuple(changed)


def tensor_storage(tensor: torch.Tensor) -> int:
    """Identity of the memory behind a tensor."""
    return int(tensor.untyped_storage()._cdata)


class _Values:
    """The values of one tensor; a path if it is no buffer."""

    def __init__(self, tensor: torch.Tensor, path: str = "") -> None:
        self._tensor, self.path = tensor, path
        self._version, self._value = tensor._version, tensor.detach().clone()

    @property
    def storage(self) -> int:
        """Which memory it is a view of: a parameter's under another name is no state."""
        return tensor_storage(self._tensor)

    def restore(self) -> bool:
        tensor, value = self._tensor, self._value
        if not self._is_changed():
            return False
        if not tensor._is_view():  # which forbid it
            tensor.detach_()
        if tensor.shape != value.shape:
            tensor.resize_(value.shape)
        tensor.detach().copy_(value)
        # It is what it was, also to a graph that waits for its backward pass.
        torch._C._autograd._unsafe_set_version_counter((tensor,), (self._version,))
        return True

    def _is_changed(self) -> bool:
        """Batch norm writes its statistics without counting it: small tensors are compared.

        A buffer on another device is taken to have changed: the copy is queued, while a comparison
        would wait for the device, once a layer.
        """
        if self._tensor._version != self._version:
            return True
        if self._tensor.numel() > _SMALL:
            return False
        if not self.path and self._tensor.device.type != "cpu":
            return True
        return not torch.equal(self._tensor, self._value)


class _Attributes:
    """The attributes and buffers of one module, by identity."""

    def __init__(self, name: str, module: torch.nn.Module) -> None:
        self._name, self._module = name, module
        self._buffers = dict(module._buffers)
        self._held = dict(_attributes(module))

    def restore(self) -> Iterator[str]:
        mine, held = vars(self._module), self._held
        for key, value in _attributes(self._module):
            if key not in held:
                del mine[key]
            elif value is held[key]:
                continue
            else:
                mine[key] = held[key]
            if not any(f"{key}{end}" in self._module._parameters for end in _DERIVED):
                yield self._path(key)
        for key in held.keys() - mine.keys():
            mine[key] = held[key]
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
    return [(k, v) for k, v in vars(module).items() if k not in _OWN and "_hooks" not in k]


class _Contents:
    """The contents of one list, set, deque, dictionary or object, by identity."""

    def __init__(self, value: Any, path: str) -> None:
        self._value, self.path = value, path
        self._copy = _shallow(value)

    def restore(self) -> bool:
        value, copy = self._value, self._copy
        if _same(value, copy):
            return False
        value.clear()
        fill: Callable[[Any], None] = (
            value.extend if isinstance(value, list | deque) else value.update
        )
        fill(copy)
        return True


def _shallow(value: Any) -> Any:
    if isinstance(value, dict):
        return dict(value)
    return set(value) if isinstance(value, set) else list(value)


def _same(value: Any, copy: Any) -> bool:
    if len(value) != len(copy):
        return False
    if isinstance(value, dict):
        return all(k in copy and copy[k] is v for k, v in value.items())
    if isinstance(value, set):
        return bool(value == copy)
    return all(a is b for a, b in zip(value, copy, strict=True))


class _Walk:
    """Follows what a module holds.

    Args:
        seen: ids of what is kept already.
    """

    def __init__(self, seen: set[int]) -> None:
        self.containers: list[_Contents] = []
        self.tensors: list[_Values] = []
        self._seen = seen

    def visit(self, value: Any, path: str) -> None:
        """One value and all that it holds."""
        waiting = [(value, path)]
        while waiting and len(self.containers) < _MOST:
            value, path = waiting.pop()
            if id(value) in self._seen:
                continue
            if isinstance(value, torch.Tensor):
                self._keep(value, path)
            elif isinstance(value, tuple):
                waiting += [(v, path) for v in value]
            else:
                inside = _inside(value)
                if inside is not None:
                    self._seen.add(id(value))
                    self.containers.append(_Contents(inside, path))
                    held = inside.values() if isinstance(inside, dict) else inside
                    waiting += [(v, path) for v in held]

    def _keep(self, tensor: torch.Tensor, path: str) -> None:
        plain = tensor.layout is torch.strided and not tensor.is_nested
        if plain and tensor.is_leaf and not isinstance(tensor, torch.nn.Parameter):
            self._seen.add(id(tensor))
            self.tensors.append(_Values(tensor, path))


def _inside(value: Any) -> Any:
    """What can change inside of a value: itself, or its attributes; None if nothing can."""
    if isinstance(value, list | dict | set | deque):
        return value
    kind = type(value)
    foreign = kind.__module__.partition(".")[0] in _FOREIGN
    if foreign or isinstance(value, type | torch.nn.Module) or callable(value):
        return None
    return getattr(value, "__dict__", None)

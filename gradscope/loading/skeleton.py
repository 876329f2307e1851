"""Architectures without memory for their parameters, which tensors of a file then become.

A factory makes its parameters at random before any file is read, and for a moment a model would be
held twice. Here each parameter becomes one of torch's meta device, which has a shape and no
memory, when its module registers it. Everything else that a constructor makes, tables and masks,
is real. What it computes *from* a parameter is on the meta device, too, so it is found, and such
an architecture has to be built for real. So has one that asks a parameter for its device or its
numbers and keeps or acts on the answer, or that keeps random numbers: the parameters before them
drew none.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

_QUESTIONS = frozenset(
    ["device", "is_cpu", "is_cuda", "is_meta", "data_ptr", "item", "tolist", "numpy", "__array__",
     "__bool__", "__float__", "__int__", "__repr__", "__format__"]
)  # fmt: skip
"""Whose answer is another for a tensor with memory."""


class Watch(TorchFunctionMode):
    """What a constructor does that would come out otherwise with memory for its parameters.

    Attributes:
        answered: it asked a tensor without memory what only one with memory can tell, or failed
            on one, whether or not it went on.
        drew: it took random numbers, or seeded them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.answered = self.drew = False
        self._before = torch.get_rng_state()
        self._known: Any = WeakIdKeyDictionary(dict.fromkeys(_alive()))

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        descriptor = func.__self__ if func.__name__ == "__get__" else func
        asks = getattr(descriptor, "__name__", "") in _QUESTIONS
        if asks and _is_hollow(args) and not _asked_by_torch():
            self.answered = True
        try:
            return func(*args, **(kwargs or {}))
        # Whatever a constructor met: it may catch that itself, and go on as another module.
        except Exception:  # adds what it learns of it, and re-raises
            self.answered = self.answered or _is_hollow((*args, *(kwargs or {}).values()))
            raise

    def end(self) -> None:
        """No more is built."""
        self.drew = not torch.equal(self._before, torch.get_rng_state())

    def misled(self, module: torch.nn.Module) -> bool:
        """Whether the module, filled by now, may be another than one built with memory."""
        if self.answered or not self.drew:
            return self.answered
        filled = {
            id(t) for t in (*module.parameters(), *module.state_dict(keep_vars=True).values())
        }
        return any(t not in self._known and id(t) not in filled for t in _alive())


def _is_hollow(values: tuple[Any, ...]) -> bool:
    return any(isinstance(v, torch.Tensor) and v.is_meta for v in values)


def _asked_by_torch() -> bool:
    """Whether the code that asks is torch's own, or the one below."""
    name = str(sys._getframe(2).f_globals.get("__name__", ""))
    return name == __name__ or name.partition(".")[0] == "torch"


def _alive() -> Iterator[torch.Tensor]:
    gc.collect()
    return (o for o in gc.get_objects() if issubclass(type(o), torch.Tensor))


@contextmanager
def without_parameters() -> Iterator[Watch]:
    """Inside, parameters of modules that are built have no memory; what is tied stays tied."""
    watch = Watch()
    known: Any = WeakIdKeyDictionary()  # as long as a constructor keeps what it registered

    def hollow(_: torch.nn.Module, name: str, made: torch.Tensor | None) -> Any:
        if type(made) is not torch.nn.Parameter or made.is_meta:
            return None  # a class of its own may keep more than numbers
        if made not in known:
            empty = torch.nn.Parameter(made.detach().to("meta"), made.requires_grad)
            empty.__dict__.update(made.__dict__)
            known[made] = empty
        return known[made]

    handle = register_module_parameter_registration_hook(hollow)
    try:
        with watch:
            yield watch
    finally:
        watch.end()
        handle.remove()


def is_whole(module: torch.nn.Module) -> bool:
    """Whether no tensor without memory is left, in the module or in anything that it refers to."""
    own = (*module.parameters(), *module.buffers())
    if any(tensor.is_meta for tensor in own):
        return False
    return not any(tensor.is_meta for tensor in _alive())

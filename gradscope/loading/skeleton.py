"""Architectures without memory for their parameters, which tensors of a file then become.

A factory makes its parameters at random before any file is read, and for a moment a model would be
held twice. Here each parameter becomes one of torch's meta device, which has a shape and no
memory, when its module registers it. Everything else that a constructor makes, tables and masks,
is real. What it computes *from* a parameter is on the meta device, too, so it is found, and such
an architecture has to be built for real.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.utils.weak import WeakIdKeyDictionary


@contextmanager
def without_parameters() -> Iterator[None]:
    """Inside, parameters of modules that are built have no memory; what is tied stays tied."""
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
        yield
    finally:
        handle.remove()


def is_whole(module: torch.nn.Module) -> bool:
    """Whether no tensor without memory is left, in the module or in anything that it refers to."""
    own = (*module.parameters(), *module.buffers())
    if any(tensor.is_meta for tensor in own):
        return False
    gc.collect()
    alive = (o for o in gc.get_objects() if issubclass(type(o), torch.Tensor))
    return not any(tensor.is_meta for tensor in alive)

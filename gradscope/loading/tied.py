"""Weights that several layers share, where a file format keeps only the memory in common."""

from __future__ import annotations

from typing import Any

import torch


def tie(module: torch.nn.Module) -> None:
    """Make parameters of equal place in memory one parameter again, as in the eager model.

    Buffers that are views of a file's memory get their own: they may be put back in place.
    """
    known: dict[Any, torch.Tensor] = {}
    for owner in module.modules():
        for name, tensor in list(owner.named_parameters(recurse=False, remove_duplicate=False)):
            if not tensor.numel():
                continue
            place = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
            first = known.setdefault(place, tensor)
            if first is tensor:
                continue
            if isinstance(owner, torch.jit.ScriptModule):
                owner._c.setattr(name, first)
            else:
                owner._parameters[name] = first  # type: ignore[assignment]
    own: dict[Any, torch.Tensor] = {}
    for owner in module.modules():
        if isinstance(owner, torch.jit.ScriptModule):
            continue
        for name, buffer in list(owner._buffers.items()):
            if buffer is not None and buffer._is_view():
                place = (buffer.data_ptr(), buffer.shape, buffer.stride(), buffer.dtype)
                owner._buffers[name] = own.setdefault(place, buffer.detach().clone())

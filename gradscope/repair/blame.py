"""Which layer is the first whose numbers are not finite."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from gradscope.probe.first_nonfinite import watched


def first_bad(tensors: Mapping[str, torch.Tensor], call: Callable[[], object]) -> str:
    """Where a call first goes wrong, in words.

    Args:
        tensors: the model's parameters and buffers by name, in the order of the model.
        call: runs it, forward only.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            return f"in '{name}', which is not finite itself"
    found = watched({n: t for n, t in tensors.items() if t.numel()}, call)
    if found is None:
        return "in the loss itself"
    return f"in {found.operation}" + (f" after '{found.after}'" if found.after else "")

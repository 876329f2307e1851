"""Looks at each parameter's gradient as it arrives, and lets it go.

All gradients together take as much memory as the model. Where one pass makes the whole of them,
none has to wait for the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

Take = Callable[[str, torch.Tensor], None]
"""(name, gradient): called once for each parameter that a gradient reaches."""


@contextmanager
def taken_by(take: Take | None, tensors: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Inside, gradients go to ``take`` and not to ``.grad``; None: they stay.

    Only for one backward pass: a second one would not add to the first.
    """
    handles = []

    def listen(name: str) -> Callable[[torch.Tensor], None]:
        def hook(tensor: torch.Tensor) -> None:
            gradient, tensor.grad = tensor.grad, None
            if gradient is not None and take is not None:
                dense = gradient.layout is torch.strided
                take(name, gradient if dense else gradient.to_dense())

        return hook

    try:
        for name, tensor in tensors.items() if take is not None else ():
            if tensor.requires_grad and tensor.is_leaf:
                register: Any = tensor.register_post_accumulate_grad_hook
                handles.append(register(listen(name)))
        yield
    finally:
        for handle in handles:
            handle.remove()

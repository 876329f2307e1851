"""Memory to compute in."""

from __future__ import annotations

import torch

MOST = 1 << 18
"""Elements up to which memory is held: what fits into a cache."""


class Scratch:
    """Memory to compute in, the same from call to call: fresh pages cost more than the arithmetic.

    On other devices than the CPU the allocator does that itself, and large tensors are not held.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[int, torch.dtype], torch.Tensor] = {}

    def like(self, tensor: torch.Tensor, slot: int) -> torch.Tensor:
        """Uninitialised, of the shape and type of ``tensor``; what ``slot`` held is lost."""
        n = tensor.numel()
        if tensor.device.type != "cpu" or n > MOST:
            return torch.empty_like(tensor, memory_format=torch.contiguous_format)
        key = (slot, tensor.dtype)
        held = self._held.get(key)
        if held is None or len(held) < n:
            held = self._held[key] = torch.empty(n, dtype=tensor.dtype)
        return held[:n].view(tensor.shape)

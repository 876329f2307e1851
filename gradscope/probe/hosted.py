"""What was measured on another device, brought to the CPU at once.

A copy waits for all work before it: a transfer for each layer would make a GPU wait as often. So
what is measured stays where it is until a batch is over, and then comes in one piece.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

_CHUNK = 1 << 18  # elements
_CHUNK_ELSEWHERE = 1 << 24
_LANES = 32  # copies of a table of counts: additions to one place wait for each other


def to_host(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The same on the CPU, in as many transfers as there are devices and types among them."""
    found = list(tensors)
    groups: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for i, tensor in enumerate(found):
        if tensor.device.type != "cpu":
            groups.setdefault((tensor.device, tensor.dtype), []).append(i)
    for places in groups.values():
        flat = torch.cat([found[i].reshape(-1) for i in places]).cpu()
        parts = torch.split(flat, [found[i].numel() for i in places])
        for i, part in zip(places, parts, strict=True):
            found[i] = part.view(found[i].shape)
    return found


def is_here(tensor: torch.Tensor) -> bool:
    """Whether it can be asked for a number without waiting for a device."""
    return tensor.device.type == "cpu"


def chunk_of(tensor: torch.Tensor) -> int:
    """Elements to look at together: no copy of a whole gradient, and on a CPU one that stays in
    its cache."""
    return _CHUNK if is_here(tensor) else _CHUNK_ELSEWHERE


def count(bins: torch.Tensor, length: int) -> torch.Tensor:
    """How often each number from 0 to ``length`` - 1 stands in ``bins``, int64, on its device."""
    flat = bins.reshape(-1)
    if is_here(flat):
        return torch.bincount(flat, minlength=length)
    return count_in_lanes(flat, length)


def count_in_lanes(flat: torch.Tensor, length: int) -> torch.Tensor:
    """:func:`count` without waiting, which ``bincount`` does, for the largest number.

    Sums of integers are exact in any order.
    """
    lane = torch.arange(flat.numel(), device=flat.device).remainder_(_LANES).mul_(length)
    table = torch.zeros(_LANES * length, dtype=torch.int64, device=flat.device)
    ones = torch.ones(1, dtype=torch.int64, device=flat.device).expand(flat.numel())
    return table.scatter_add_(0, lane.add_(flat), ones).view(_LANES, length).sum(dim=0)

"""Which memory an operation is given: parameters are known by it, also through views."""

from __future__ import annotations

from typing import Any

import torch


def readable(value: Any) -> bool:
    """Whether it is a tensor whose numbers lie in one plain piece of memory."""
    plain = isinstance(value, torch.Tensor) and value.layout is torch.strided
    return plain and not value.is_nested and value.device.type != "meta"


def address(tensor: torch.Tensor) -> int:
    """Of the memory behind a readable tensor."""
    return int(tensor.untyped_storage().data_ptr())

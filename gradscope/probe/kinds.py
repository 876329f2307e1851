"""What class a layer is of, also where scripts and exported programs have lost the class itself."""

from __future__ import annotations

import torch


def class_name(module: torch.nn.Module) -> str:
    """``Linear``, also for what loading gave an ``original_name``: scripts, exported programs."""
    original = getattr(module, "original_name", None)
    return original if isinstance(original, str) else type(module).__name__


def mode_is_fixed(module: torch.nn.Module) -> bool:
    """Whether the choice between train and eval was made when the model was recorded."""
    return getattr(module, "mode_is_fixed", None) is True

"""Writes gradients to a safetensors file, whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from gradscope.files import write_atomic


def save_gradients(
    path: str,
    probe: Mapping[str, torch.Tensor],
    loss: Mapping[str, torch.Tensor] | None,
) -> None:
    """Mean |g| of every element, under ``probe/NAME`` and, with labels, ``loss/NAME``.

    Args:
        path: file to write.
        probe: mean over the draws of |g|, loss-free, normalised to one sample.
        loss: |gradient of the mean loss|; None without labels.

    Raises:
        OutputError: the file cannot be written.
    """
    from safetensors.torch import save  # only where it is used

    tensors = {f"probe/{k}": v.contiguous().cpu() for k, v in probe.items()}
    tensors |= {f"loss/{k}": v.contiguous().cpu() for k, v in (loss or {}).items()}
    metadata = {
        "producer": "gradscope",
        "probe": "mean over random cotangents of |g|, divided by sqrt(samples)",
        "loss": "|gradient of the mean loss|",
    }
    write_atomic(path, save(tensors, metadata), option="--save-gradients")

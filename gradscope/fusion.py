"""Switches off the fused kernels of recurrent layers: they have no gates to look at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def switched_off_fusion() -> Iterator[None]:
    """Inside, LSTMs run step by step. For a whole CNN this costs a factor of 1.6."""
    # The public context manager of oneDNN also sets a TF32 flag, which warns on most machines.
    onednn, cudnn = torch._C._get_mkldnn_enabled(), torch._C._get_cudnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    torch._C._set_cudnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(onednn)
        torch._C._set_cudnn_enabled(cudnn)

"""Random cotangents for the output: what makes the probe loss-free.

v ~ N(0, I), scaled to unit norm per sample and head, so that the measured gains describe the
network and not how far its loss has come down. The numbers depend on seed, head, draw and the index
of the sample alone: chunks, shards and machines see the same v.
"""

from __future__ import annotations

import numpy as np
import torch

from gradscope.probe.layout import BatchLayout

_BLOCK = 32  # samples that share one generator: starting one costs about 8 microseconds


def _rows(key: tuple[int, int, int], start: int, n: int, width: int) -> np.ndarray:
    """Standard normal rows ``start .. start + n`` of the endless table that ``key`` names."""
    first, last = start // _BLOCK, (start + n - 1) // _BLOCK
    parts = []
    for block in range(first, last + 1):
        bits = np.random.SFC64(np.random.SeedSequence([*key, block]))
        rows = min(_BLOCK, start + n - block * _BLOCK)
        parts.append(np.random.Generator(bits).standard_normal((rows, width), dtype=np.float32))
    table = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return table[start - first * _BLOCK :]


def unit_cotangent(
    shape: tuple[int, ...],
    layout: BatchLayout,
    *,
    seed: int,
    head: int,
    draw: int,
    start: int,
    samples: int,
) -> torch.Tensor:
    """One cotangent for one batch: float32, of ``shape``, unit L2 norm for each sample.

    Args:
        shape: of the output that it enters.
        layout: where the samples lie in it.
        seed, head, draw: which cotangent.
        start: index of the batch's first sample within the whole sample.
        samples: samples in the batch.
    """
    width = int(np.prod(shape, dtype=np.int64)) // samples
    rows = torch.from_numpy(_rows((seed, head, draw), start, samples, width))
    rows = rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp_min(1e-30)
    return layout.arrange(rows, shape, samples)

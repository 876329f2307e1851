"""What several tests need: tensors as a sample, a module as a loaded model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from gradscope.config import ProbeSettings
from gradscope.measurements import Measurements
from gradscope.model import Batch, LoadedModel, Sample
from gradscope.probe import measure
from gradscope.progress import Silent


def sample_of(
    x: torch.Tensor, y: torch.Tensor | None = None, batch_size: int | None = None
) -> Sample:
    """All of ``x``, in batches."""
    n = len(x)
    size = batch_size or n

    def batches() -> Iterator[Batch]:
        for start in range(0, n, size):
            stop = min(start + size, n)
            labels = None if y is None else y[start:stop]
            yield Batch((x[start:stop],), {}, labels, stop - start, start)

    return Sample("x", n, n, False, y is not None, {"x": tuple(x.shape[1:])}, batches)


def measured(
    module: torch.nn.Module,
    x: torch.Tensor,
    y: torch.Tensor | None = None,
    *,
    batch_size: int | None = None,
    validation: Sample | None = None,
    seed: int = 0,
    **settings: Any,
) -> Measurements:
    """``measure`` with little around it."""
    return measure(
        LoadedModel("model", "PyTorch module", module),
        sample_of(x, y, batch_size),
        validation,
        ProbeSettings(**settings),
        seed,
        batch_size or len(x),
        Silent(),
    )

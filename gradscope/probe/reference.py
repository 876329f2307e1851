"""What a plain learner reaches on the same samples: a lower bound of what can be learned from them.

Kernel ridge regression on the flattened, standardised inputs, in closed form. Every sample is
answered by the fit to all others: with K = V diag(w) V^T and residuals r = (K + n ridge)^-1 y, the
answer left out is y_i - r_i / [(K + n ridge)^-1]_ii. It takes no training, no seed, and for 512
samples well under a second.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator

import torch
from torch.utils._pytree import tree_leaves

from gradscope.findings import Skipped
from gradscope.measurements import Reference
from gradscope.model import Batch, Sample
from gradscope.probe.losses import accuracy_skill

ROWS = 512
"""Samples that are looked at: the first ones."""

_FEWEST = 32
_WIDEST = 1 << 14
_SCALES = (0.1, 0.5, 2.0)  # squared width of a Gaussian kernel, over the median squared distance
_RIDGES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)  # times n; kernels have a diagonal of about 1
_CLASSES = ("cross-entropy", "nll", "bce")
_HOW = "kernel ridge regression on the inputs, each sample left out once"


def reference(sample: Sample, loss_kind: str) -> Reference | Skipped:
    """The best of a few kernels and ridges, by the squared error of what was left out.

    Args:
        sample: with labels.
        loss_kind: as decided for the model's skill.
    """
    try:
        x, y = _rows(sample)
        if loss_kind in _CLASSES:
            return _of_classes(x, y)
        if loss_kind == "mse":
            return _of_numbers(x, y.double().reshape(len(y), -1))
        raise _Unfit(f"the loss is {loss_kind}")
    except _Unfit as reason:
        return Skipped("what a plain learner reaches on this sample", str(reason))


class _Unfit(Exception):
    """Why there is nothing to compare with."""


def _rows(sample: Sample) -> tuple[torch.Tensor, torch.Tensor]:
    """Standardised inputs (n, features), float64, and labels (n, ...), on the CPU."""
    inputs, labels, n = [], [], 0
    for batch in sample.batches():
        take = min(batch.size, ROWS - n)
        assert batch.labels is not None
        inputs.append(torch.cat([t[:take].flatten(1) for t in _inputs(batch)], dim=1))
        labels.append(batch.labels[:take].detach().cpu())
        n += take
        if n >= ROWS:
            break
    if n < _FEWEST:
        raise _Unfit(f"{n} samples are too few")
    if len({t.shape[1:] for t in inputs}) > 1:
        raise _Unfit("samples differ in length")
    x, y = torch.nan_to_num(torch.cat(inputs), 0.0, 0.0, 0.0), torch.cat(labels)
    if x.numel() == y.numel() and torch.equal(x, y.to(x.dtype).reshape(x.shape)):
        raise _Unfit("the labels are the inputs themselves, which a bottleneck is meant to lose")
    sd, mean = torch.std_mean(x, dim=0, correction=0)
    varies = sd > 1e-9 * sd.max().clamp_min(1e-300)
    if not bool(varies.any()):
        raise _Unfit("all samples are the same")
    once = _distinct(x)
    if len(once) < _FEWEST:
        raise _Unfit(f"{len(once)} different samples are too few")
    return ((x - mean) / sd)[once][:, varies], y[once]


def _distinct(x: torch.Tensor) -> list[int]:
    """The first of rows that are equal: another of them would tell the answer that is left out."""
    first: dict[bytes, int] = {}
    for i, row in enumerate(x.numpy()):
        first.setdefault(hashlib.sha256(row.tobytes()).digest(), i)
    return list(first.values())


def _inputs(batch: Batch) -> Iterator[torch.Tensor]:
    """Those with an entry a sample, float64, on the CPU."""
    width = 0
    for leaf in tree_leaves((batch.args, dict(batch.kwargs))):
        if not isinstance(leaf, torch.Tensor):
            if hasattr(leaf, "batch_sizes"):
                raise _Unfit("samples differ in length")
            continue
        if leaf.dim() == 0 or leaf.shape[0] != batch.size or leaf.layout is not torch.strided:
            continue
        if not leaf.is_floating_point():
            raise _Unfit("its inputs are tokens or other whole numbers")
        width += leaf[0].numel()
        if width > _WIDEST:
            raise _Unfit(f"a sample has {width:,} numbers or more; at most {_WIDEST:,} are taken")
        yield leaf.detach().double().cpu().reshape(batch.size, -1)
    if not width:
        raise _Unfit("no input has an entry for each sample")


def _of_classes(x: torch.Tensor, labels: torch.Tensor) -> Reference:
    if labels.numel() != len(labels):
        raise _Unfit("there is more than one label a sample")
    names, y = torch.unique(labels.reshape(-1), return_inverse=True)
    if len(names) < 2:
        raise _Unfit("there is one class only")
    left_out, mean = _left_out(x, torch.nn.functional.one_hot(y).double())
    right = float(((left_out + mean).argmax(dim=1) == y).double().mean())
    chance = float(torch.bincount(y).max()) / len(y)
    score, error = accuracy_skill(right, chance, len(y))
    assert score is not None
    assert error is not None
    return Reference(score, error, "accuracy", _HOW, len(y), x.shape[1])


def _of_numbers(x: torch.Tensor, y: torch.Tensor) -> Reference:
    left_out, mean = _left_out(x, y)
    variance = float((y - mean).square().mean())
    if not math.isfinite(variance) or variance <= 0:
        raise _Unfit("the labels do not vary")
    losses = (left_out - (y - mean)).square().mean(dim=1)
    error = float(losses.std()) / math.sqrt(len(y)) / variance
    return Reference(1 - float(losses.mean()) / variance, error, "skill", _HOW, len(y), x.shape[1])


def _left_out(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(answers for samples left out, around the mean; the mean)."""
    mean = y.mean(dim=0)
    centred = y - mean
    answers = [a for kernel in _kernels(x) for a in _answers(kernel, centred)]
    return min(answers, key=lambda a: float((a - centred).square().mean())), mean


def _kernels(x: torch.Tensor) -> Iterator[torch.Tensor]:
    """Gaussian ones of several widths, and the linear one."""
    inner = x @ x.T
    squares = inner.diagonal()
    distances = (squares[:, None] + squares[None, :] - 2 * inner).clamp_min(0)
    apart = distances[distances > 0]
    typical = apart.median() if apart.numel() else torch.ones((), dtype=x.dtype)
    for scale in _SCALES:
        yield torch.exp(-distances / (scale * typical))
    yield inner / x.shape[1]


def _answers(kernel: torch.Tensor, y: torch.Tensor) -> Iterator[torch.Tensor]:
    values, vectors = torch.linalg.eigh(kernel)
    turned = vectors.T @ y
    for ridge in _RIDGES:
        inverse = 1 / (values.clamp_min(0) + ridge * len(y))
        residual = vectors @ (inverse[:, None] * turned)
        own = vectors.square() @ inverse
        yield y - residual / own[:, None]

"""Losses that stand inside a graph."""

from __future__ import annotations

from typing import Any

import torch

from gradscope.loading.onnx.registry import Call, operator

Tensor = torch.Tensor


@operator("NegativeLogLikelihoodLoss", since=12)
def nll(call: Call, x: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Minus the log-probability at the target, summed, averaged by weight, or neither."""
    return _loss(call, x, target, weight)


@operator("SoftmaxCrossEntropyLoss", since=12)
def cross_entropy(call: Call, x: Tensor, target: Tensor, weight: Tensor | None = None) -> Any:
    """The same of a log-softmax over axis 1, which is the second output."""
    logs = torch.log_softmax(x, 1)
    return _loss(call, logs, target, weight), logs


def _loss(call: Call, logs: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    ignored = call.get("ignore_index")
    at = target.long()
    counts = torch.ones(at.shape, dtype=logs.dtype, device=logs.device)
    if ignored is not None:
        counts = (at != ignored).to(logs.dtype)
        at = torch.where(at == ignored, torch.zeros_like(at), at)
    if weight is not None:
        counts = counts * weight[at]
    losses = -logs.gather(1, at.unsqueeze(1)).squeeze(1)
    # Not a plain product: an ignored entry may be infinite.
    losses = torch.where(counts == 0, torch.zeros_like(losses), losses * counts)
    reduction = call.get("reduction", "mean")
    if reduction == "none":
        return losses
    return losses.sum() if reduction == "sum" else losses.sum() / counts.sum()

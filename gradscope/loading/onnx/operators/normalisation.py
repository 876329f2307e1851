"""Normalisation over the batch, channels, groups or the last axes."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from gradscope.loading.onnx.registry import Call, Slot, operator

Tensor = torch.Tensor
_AFFINE = {1: Slot(), 2: Slot()}


@operator("BatchNormalization", since=6, weights=_AFFINE)
def batch_norm(
    call: Call, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor
) -> Tensor | tuple[Any, ...]:
    """With the running statistics; with those of the batch where the file says training_mode."""
    epsilon = call.get("epsilon", 1e-5)
    trains = bool(call.get("training_mode", 0))
    if not trains and (mean.requires_grad or var.requires_grad):
        # Statistics that are computed from data: torch's own operation has no gradient for them.
        shape = (1, -1, *[1] * (x.dim() - 2))
        inverse = scale * torch.rsqrt(var + epsilon)
        return (x - mean.reshape(shape)) * inverse.reshape(shape) + bias.reshape(shape)
    if not trains:
        like = scale.dtype
        return functional.batch_norm(
            x, mean.to(like), var.to(like), scale, bias, False, 0.0, epsilon
        )
    momentum = call.get("momentum", 0.9)
    axes = [0, *range(2, x.dim())]
    now, spread = x.mean(axes), x.var(axes, correction=0)
    y = functional.batch_norm(x, None, None, scale, bias, True, 0.0, epsilon)
    return (
        y,
        mean * momentum + now * (1 - momentum),
        var * momentum + spread * (1 - momentum),
    )


@operator("InstanceNormalization", since=6, weights=_AFFINE)
def instance_norm(call: Call, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Each channel of each sample by its own statistics."""
    axes = list(range(2, x.dim()))
    normed = _normed(x, axes, call.get("epsilon", 1e-5))
    shape = (1, -1, *[1] * (x.dim() - 2))
    return normed * scale.reshape(shape) + bias.reshape(shape)


def _normed(x: Tensor, axes: list[int], epsilon: float) -> Tensor:
    centred = x - x.mean(axes, keepdim=True)
    return centred / torch.sqrt(centred.square().mean(axes, keepdim=True) + epsilon)


@operator("LayerNormalization", since=17, weights=_AFFINE)
def layer_norm(
    call: Call, x: Tensor, scale: Tensor, bias: Tensor | None = None
) -> Tensor | tuple[Any, ...]:
    """The axes from one on; also mean and inverse deviation, if wanted."""
    axis = int(call.get("axis", -1)) % x.dim()
    epsilon = call.get("epsilon", 1e-5)
    shape = list(x.shape[axis:])
    fits = list(scale.shape) == shape and (bias is None or list(bias.shape) == shape)
    if fits:
        y = functional.layer_norm(x, shape, scale, bias, epsilon)
    else:
        y = functional.layer_norm(x, shape, None, None, epsilon) * scale
        y = y if bias is None else y + bias
    if call.outputs == 1:
        return y
    axes = list(range(axis, x.dim()))
    mean = x.mean(axes, keepdim=True)
    var = (x - mean).square().mean(axes, keepdim=True)
    return y, mean, torch.rsqrt(var + epsilon)


@operator("RMSNormalization", since=23, weights={1: Slot()})
def rms_norm(call: Call, x: Tensor, scale: Tensor) -> Tensor:
    """x over its root mean square, over the axes from one on."""
    axes = list(range(int(call.get("axis", -1)) % x.dim(), x.dim()))
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    square = wide.square().mean(axes, keepdim=True)
    return (wide * torch.rsqrt(square + call.get("epsilon", 1e-5))).to(x.dtype) * scale


@operator("GroupNormalization", since=18, weights=_AFFINE)
def group_norm(call: Call, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Groups of channels; scale and bias a group up to opset 20, a channel since 21."""
    groups = int(call.get("num_groups"))
    if scale.shape[0] == groups != x.shape[1]:
        each = x.shape[1] // groups
        scale, bias = scale.repeat_interleave(each), bias.repeat_interleave(each)
    return functional.group_norm(x, groups, scale, bias, call.get("epsilon", 1e-5))


@operator("LRN")
def local_response(call: Call, x: Tensor) -> Tensor:
    """x over a power of the mean square of neighbouring channels (Krizhevsky et al. 2012)."""
    size, alpha = int(call.get("size")), call.get("alpha", 1e-4)
    square = x.square().transpose(1, -1) if x.dim() > 2 else x.square()
    square = functional.pad(square, ((size - 1) // 2, size // 2))
    total = square.unfold(-1, size, 1).sum(-1)
    total = total.transpose(1, -1) if x.dim() > 2 else total
    scale: Tensor = (call.get("bias", 1.0) + alpha / size * total) ** call.get("beta", 0.75)
    return x / scale


@operator("LpNormalization")
def lp_norm(call: Call, x: Tensor) -> Tensor:
    """x over its norm along an axis; 0 stays 0."""
    p, axis = call.get("p", 2), call.get("axis", -1)
    norm = torch.linalg.vector_norm(x, p, axis, keepdim=True)
    return torch.where(norm == 0, torch.zeros_like(x), x / torch.where(norm == 0, 1.0, norm))


@operator("MeanVarianceNormalization", since=9)
def mean_variance(call: Call, x: Tensor) -> Tensor:
    """Centred and scaled to unit variance over some axes."""
    axes = list(call.get("axes", (0, 2, 3)))
    centred = x - x.mean(axes, keepdim=True)
    return centred / (torch.sqrt(centred.square().mean(axes, keepdim=True)) + 1e-9)

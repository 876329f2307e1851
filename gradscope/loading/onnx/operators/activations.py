"""Activations, each as torch's own operation, so that the probe sees what it sees in torch."""

from __future__ import annotations

import torch
from torch.nn import functional

from gradscope.loading.onnx.registry import Call, Slot, operator

Tensor = torch.Tensor
_SIXTH = 1.0 / 6.0


@operator("Relu", since=6)
def relu(call: Call, x: Tensor) -> Tensor:
    """max(x, 0)."""
    return torch.relu(x)


@operator("Sigmoid", since=6)
def sigmoid(call: Call, x: Tensor) -> Tensor:
    """1 / (1 + exp(-x))."""
    return torch.sigmoid(x)


@operator("Tanh", since=6)
def tanh(call: Call, x: Tensor) -> Tensor:
    """tanh x."""
    return torch.tanh(x)


@operator("LeakyRelu", since=6)
def leaky_relu(call: Call, x: Tensor) -> Tensor:
    """alpha x below 0."""
    return functional.leaky_relu(x, call.get("alpha", 0.01))


@operator("PRelu", since=6, weights={1: Slot()})
def prelu(call: Call, x: Tensor, slope: Tensor) -> Tensor:
    """slope x below 0, with one slope in all or one for each channel; or any other shape."""
    channels = x.shape[1] if x.dim() > 1 else 1
    aligned = (1,) * (x.dim() - slope.dim()) + tuple(slope.shape)
    per_channel = x.dim() > 1 and aligned == (1, channels, *(1,) * (x.dim() - 2))
    if call.version < 7 and slope.dim() == 1 and slope.numel() == channels:
        per_channel = True
    if x.is_floating_point() and (slope.numel() == 1 or per_channel):
        return functional.prelu(x, slope.reshape(-1))
    return torch.where(x > 0, x, slope * x)


@operator("Elu", since=6)
def elu(call: Call, x: Tensor) -> Tensor:
    """alpha (exp x - 1) below 0."""
    return functional.elu(x, call.get("alpha", 1.0))


@operator("Selu", since=6)
def selu(call: Call, x: Tensor) -> Tensor:
    """gamma elu(x), with alpha."""
    alpha = call.get("alpha", 1.67326319217681884765625)
    gamma = call.get("gamma", 1.05070102214813232421875)
    y: Tensor = torch.ops.aten.elu(x, alpha, gamma, 1.0)
    return y


@operator("Celu", since=12)
def celu(call: Call, x: Tensor) -> Tensor:
    """max(0, x) + min(0, alpha (exp(x / alpha) - 1))."""
    return functional.celu(x, call.get("alpha", 1.0))


@operator("ThresholdedRelu", since=10)
def thresholded_relu(call: Call, x: Tensor) -> Tensor:
    """x above alpha, else 0."""
    return functional.threshold(x, call.get("alpha", 1.0), 0.0)


@operator("Softplus")
def softplus(call: Call, x: Tensor) -> Tensor:
    """log(1 + exp x)."""
    return functional.softplus(x)


@operator("Softsign")
def softsign(call: Call, x: Tensor) -> Tensor:
    """x / (1 + |x|)."""
    return functional.softsign(x)


@operator("HardSigmoid", since=6)
def hard_sigmoid(call: Call, x: Tensor) -> Tensor:
    """max(0, min(1, alpha x + beta)), as torch's hard sigmoid of a shifted and scaled x."""
    alpha, beta = call.get("alpha", 0.2), call.get("beta", 0.5)
    if abs(alpha - _SIXTH) < 1e-7 and beta == 0.5:
        return functional.hardsigmoid(x)
    return functional.hardsigmoid(x * (6.0 * alpha) + (6.0 * beta - 3.0))


@operator("HardSwish", since=14)
def hard_swish(call: Call, x: Tensor) -> Tensor:
    """x hardsigmoid(x) with alpha 1/6, beta 1/2."""
    return functional.hardswish(x)


@operator("Mish", since=18)
def mish(call: Call, x: Tensor) -> Tensor:
    """x tanh(softplus x)."""
    return functional.mish(x)


@operator("Gelu", since=20)
def gelu(call: Call, x: Tensor) -> Tensor:
    """x Phi(x), exact or through tanh."""
    return functional.gelu(x, approximate=call.get("approximate", "none"))


@operator("Swish", since=24)
def swish(call: Call, x: Tensor) -> Tensor:
    """x sigmoid(alpha x)."""
    alpha = call.get("alpha", 1.0)
    return functional.silu(x) if alpha == 1.0 else x * torch.sigmoid(alpha * x)


@operator("Shrink", since=9)
def shrink(call: Call, x: Tensor) -> Tensor:
    """x moved by bias towards 0 outside of (-lambd, lambd), 0 inside."""
    edge, bias = call.get("lambd", 0.5), call.get("bias", 0.0)
    moved = torch.where(x < -edge, x + bias, x - bias).to(x.dtype)
    return torch.where((x < -edge) | (x > edge), moved, torch.zeros_like(x))


def _flattened(call: Call, x: Tensor) -> tuple[Tensor, int]:
    """What a softmax runs over: since opset 13 one axis, before all axes from one on."""
    if call.version >= 13:
        return x, int(call.get("axis", -1))
    axis = int(call.get("axis", 1)) % max(x.dim(), 1)
    if axis == x.dim() - 1:
        return x, -1
    return x.flatten(axis), axis


@operator("Softmax")
def softmax(call: Call, x: Tensor) -> Tensor:
    """exp x over its sum."""
    flat, axis = _flattened(call, x)
    return torch.softmax(flat, axis).reshape(x.shape)


@operator("LogSoftmax")
def log_softmax(call: Call, x: Tensor) -> Tensor:
    """log softmax."""
    flat, axis = _flattened(call, x)
    return torch.log_softmax(flat, axis).reshape(x.shape)


@operator("Hardmax")
def hardmax(call: Call, x: Tensor) -> Tensor:
    """1 at the first largest element, else 0: constant almost everywhere."""
    flat, axis = _flattened(call, x)
    # The first of equals: torch's argmax promises no order.
    largest = flat == flat.amax(axis, keepdim=True)
    first = largest & (largest.cumsum(axis) == 1)
    return first.to(x.dtype).reshape(x.shape)

"""Matrix products."""

from __future__ import annotations

import torch
from torch.nn import functional

from gradscope.loading.onnx.registry import Call, Slot, operator

Tensor = torch.Tensor


def _gemm_fan_in(call: Call, shape: tuple[int, ...]) -> int | None:
    return shape[1 if call.get("transB", 0) else 0] if len(shape) == 2 else None


def _gemm_left(call: Call, shape: tuple[int, ...]) -> int | None:
    return shape[0 if call.get("transA", 0) else 1] if len(shape) == 2 else None


@operator(
    "Gemm",
    since=6,
    weights={0: Slot(_gemm_left), 1: Slot(_gemm_fan_in, linear=True), 2: Slot()},
)
def gemm(call: Call, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """alpha a b + beta c, each factor perhaps transposed."""
    alpha, beta = call.get("alpha", 1.0), call.get("beta", 1.0)
    a = a.t() if call.get("transA", 0) else a
    if alpha == 1.0 and (c is None or (beta == 1.0 and c.dim() == 1)):
        if call.get("transB", 0):
            if c is None or c.shape[0] == b.shape[0]:
                return functional.linear(a, b, c)
        elif c is not None and a.is_floating_point() and c.shape[0] == b.shape[1]:
            return torch.addmm(c, a, b)
    product = a @ (b.t() if call.get("transB", 0) else b)
    product = product if alpha == 1.0 else _scaled(product, alpha)
    if c is None:
        return product
    return product + (c if beta == 1.0 else _scaled(c, beta))


def _scaled(x: Tensor, factor: float) -> Tensor:
    return (x * factor).to(x.dtype)


@operator(
    "MatMul",
    weights={
        0: Slot(lambda _, shape: shape[-1] if len(shape) > 1 else None),
        1: Slot(lambda _, shape: shape[-2] if len(shape) > 1 else None, linear=True),
    },
)
def matmul(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """Matrix product over the last two axes, as numpy's."""
    return torch.matmul(a, b)


@operator("Einsum", since=12, weights={0: Slot(), 1: Slot(), 2: Slot()})
def einsum(call: Call, *values: Tensor) -> Tensor:
    """Sum of products by an equation."""
    return torch.einsum(call.get("equation").replace(" ", ""), *values)


@operator("Det", since=11)
def determinant(call: Call, x: Tensor) -> Tensor:
    """Determinant of the last two axes."""
    found: Tensor = torch.linalg.det(x)
    return found

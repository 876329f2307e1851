"""Arithmetic, comparison and logic, element by element, with ONNX's (numpy's) broadcasting."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from gradscope.loading.onnx.registry import Call, Slot, operator

Tensor = torch.Tensor
_TERMS = {0: Slot(), 1: Slot()}  # biases and scales stand on either side


def _aligned(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """b where opset 6 puts it: its first axis at one of a's, not its last at the last."""
    axis = call.get("axis") if call.version < 7 else None
    if axis is None:
        return b
    return b.reshape(*b.shape, *[1] * (a.dim() - axis % a.dim() - b.dim()))


@operator("Add", since=6, weights=_TERMS)
def add(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """a + b."""
    return a + _aligned(call, a, b)


@operator("Sub", since=6, weights=_TERMS)
def subtract(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """a - b."""
    return a - _aligned(call, a, b)


@operator("Mul", since=6, weights=_TERMS)
def multiply(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """a b."""
    return a * _aligned(call, a, b)


@operator("Div", since=6, weights=_TERMS)
def divide(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """a / b; integers are cut towards zero, as in C."""
    b = _aligned(call, a, b)
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


@operator("Pow", since=6)
def power(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """a to the b, in the type of a."""
    b = _aligned(call, a, b)
    exponent: Any = b.item() if b.numel() == 1 and b.dim() <= a.dim() and not b.requires_grad else b
    if not a.is_floating_point() and isinstance(exponent, float | Tensor):
        return torch.pow(a.double(), exponent).to(a.dtype)
    return torch.pow(a, exponent).to(a.dtype)


@operator("Mod", since=10)
def modulo(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """Remainder with the sign of the divisor, or of the dividend with fmod."""
    return torch.fmod(a, b) if call.get("fmod", 0) else torch.remainder(a, b)


def _joint(combine: Callable[[Tensor, Tensor], Tensor], doc: str) -> Callable[..., Tensor]:
    def run(call: Call, *values: Tensor) -> Tensor:
        return functools.reduce(combine, values)

    run.__doc__ = doc
    return run


operator("Max", since=6)(_joint(torch.maximum, "The largest of several."))
operator("Min", since=6)(_joint(torch.minimum, "The smallest of several."))
operator("Sum", since=6, weights=_TERMS)(_joint(torch.add, "The sum of several."))


@operator("Mean", since=8)
def mean(call: Call, *values: Tensor) -> Tensor:
    """The mean of several."""
    return functools.reduce(torch.add, values) / len(values)


def _unary(function: Callable[..., Any]) -> Callable[[Call, Tensor], Tensor]:
    return lambda call, x: function(x)


for _name, _function in {
    "Neg": torch.neg, "Abs": torch.abs, "Sqrt": torch.sqrt, "Exp": torch.exp, "Log": torch.log,
    "Reciprocal": torch.reciprocal, "Erf": torch.erf, "Sign": torch.sign, "Floor": torch.floor,
    "Ceil": torch.ceil, "Round": torch.round, "Sin": torch.sin, "Cos": torch.cos,
    "Tan": torch.tan, "Asin": torch.asin, "Acos": torch.acos, "Atan": torch.atan,
    "Sinh": torch.sinh, "Cosh": torch.cosh, "Asinh": torch.asinh, "Acosh": torch.acosh,
    "Atanh": torch.atanh, "Not": torch.logical_not, "IsNaN": torch.isnan,
    "BitwiseNot": torch.bitwise_not,
}.items():  # fmt: skip
    operator(_name, since=6)(_unary(_function))  # type: ignore[arg-type]


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda call, a, b: function(a, b)


for _name, _compare in {
    "Equal": torch.eq, "Greater": torch.gt, "Less": torch.lt, "GreaterOrEqual": torch.ge,
    "LessOrEqual": torch.le, "And": torch.logical_and, "Or": torch.logical_or,
    "Xor": torch.logical_xor, "BitwiseAnd": torch.bitwise_and, "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
}.items():  # fmt: skip
    operator(_name, since=7)(_binary(_compare))


@operator("BitShift", since=11)
def shift(call: Call, a: Tensor, b: Tensor) -> Tensor:
    """Bits to the left or right."""
    left = call.get("direction") == "LEFT"
    return torch.bitwise_left_shift(a, b) if left else torch.bitwise_right_shift(a, b)


@operator("IsInf", since=10)
def is_infinite(call: Call, x: Tensor) -> Tensor:
    """Where x is infinite, of the signs asked for."""
    found = torch.isinf(x)
    if not call.get("detect_negative", 1):
        found = found & (x > 0)
    return found if call.get("detect_positive", 1) else found & (x < 0)


@operator("Where", since=9)
def where(call: Call, condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """a where the condition holds, else b."""
    return torch.where(condition, a, b)


@operator("Clip", since=6)
def clip(call: Call, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    """x between two bounds: attributes up to opset 10, inputs since 11.

    0 and 6, -1 and 1 are torch's own relu6 and hardtanh; a lower bound of 0 alone is a ReLU.
    """
    first: Any = call.get("min") if call.version < 11 else low
    second: Any = call.get("max") if call.version < 11 else high
    first, second = _plain(first), _plain(second)
    if call.version < 11:
        # The schema's defaults are the limits of float32.
        first = None if first is not None and first < -3.4e38 else first
        second = None if second is not None and second > 3.4e38 else second
    if first is None and second is None:
        return x
    plain = not isinstance(first, Tensor) and not isinstance(second, Tensor)
    if x.is_floating_point() and plain:
        if (first, second) in ((0, 6), (-1, 1)):
            return torch.nn.functional.hardtanh(x, first, second)
        if (first, second) == (0, None):
            return torch.relu(x)
    if not plain:
        first = None if first is None else torch.as_tensor(first, dtype=x.dtype, device=x.device)
        second = None if second is None else torch.as_tensor(second, dtype=x.dtype, device=x.device)
    return torch.clamp(x, first, second)


def _plain(bound: Any) -> Any:
    """A bound as a number, unless a gradient is to reach it."""
    if not isinstance(bound, Tensor) or bound.requires_grad:
        return bound
    return bound.reshape(-1)[0].item()


@operator("Identity", carries=True)
def identity(call: Call, x: Any) -> Any:
    """x."""
    return x


@operator("Cast", since=6, carries=True)
def cast(call: Call, x: Tensor) -> Tensor:
    """x in another type; floats are cut towards zero."""
    return _to(x, call.types.of(call.get("to")))


@operator("CastLike", since=15)
def cast_like(call: Call, x: Tensor, other: Tensor) -> Tensor:
    """x in the type of another."""
    return _to(x, other.dtype)


def _to(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.to(dtype)

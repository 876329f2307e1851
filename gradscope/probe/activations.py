"""The activations that the probe knows: by which operation, with which derivative.

One entry a kind. phi'_0 is the largest slope; the relative derivative rho(z) = phi'(z) / phi'_0 is
taken from the pre-activation z by a formula without cancellation: the stored output of a float32
tanh gives exactly 0 from z = 9.0, of a sigmoid from z = 16.6.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

SATURATED_BELOW = 0.1
"""An element is saturated where its relative derivative is below this: a definition."""

WIDEST_CLAMP = 6.0
"""Bound up to which a clamp is an activation; beyond, it keeps numbers finite."""

_aten = torch.ops.aten
Derivative = Callable[[torch.Tensor, tuple[float, ...]], torch.Tensor]


@dataclass(frozen=True)
class Kind:
    """One kind of activation.

    Attributes:
        name: as it stands in reports.
        slope: phi'_0, the largest slope; of GELU and its like the one far out, 1.
        node: name of its autograd node, without the trailing number.
        relative: rho(z, attributes); None where it is not defined.
        edge: |z| from which rho < 0.1, for activations that saturate on both sides; a function of
            the attributes where it depends on them; None for those that do not saturate.
        relu_like: half of the units are off by design.
        squashes: bounded on both sides: as a model's last operation it makes an output.
        zeroes: the output is exactly 0 where the unit is off; only such units can be dead.
        centre: the point around which ``edge`` is measured, from the attributes.
        relative_into: rho(z), written into the second tensor, for the kinds that large models are
            full of: fresh memory costs more than the arithmetic.
        of_output: (a, b, c) with rho = a + b y + c y^2 of the output y: exact, but for the rounding
            of y, which is all that is left of rho far out.
        incidental: as often something else (a position's encoding): an activation only behind
            parameters, and not worth a word where no gradient comes through it.
    """

    name: str
    slope: float
    node: str
    relative: Derivative | None = None
    edge: Callable[[tuple[float, ...]], float] | None = None
    relu_like: bool = False
    squashes: bool = False
    zeroes: bool = False
    centre: Callable[[tuple[float, ...]], float] | None = None
    incidental: bool = False
    relative_into: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None
    of_output: tuple[float, float, float] | None = None

    def __reduce__(self) -> tuple[Callable[[str], Kind], tuple[str]]:
        """Its name alone goes from process to process."""
        return _named, (self.name,)


def _named(name: str) -> Kind:
    return next(k for kinds in (*NODES.values(), (SOFTSIGN,)) for k in kinds if k.name == name)


def _sech2(x: torch.Tensor) -> torch.Tensor:
    return torch.cosh(x).square_().reciprocal_()


def _sech2_into(x: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    return torch.cosh(x, out=out).square_().reciprocal_()


def _half_sech2_into(x: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    return torch.mul(x, 0.5, out=out).cosh_().square_().reciprocal_()


def _inside(low: float, high: float) -> Derivative:
    return lambda z, _: ((z > low) & (z < high)).to(z.dtype)


def _clamped(z: torch.Tensor, bounds: tuple[float, ...]) -> torch.Tensor:
    return ((z > bounds[0]) & (z < bounds[1])).to(z.dtype)


def _positive(z: torch.Tensor, _: tuple[float, ...]) -> torch.Tensor:
    return (z > 0).to(z.dtype)


def _leaky(z: torch.Tensor, slopes: tuple[float, ...]) -> torch.Tensor:
    return torch.where(z > 0, 1.0, slopes[0] if slopes else 0.0).to(z.dtype)


def _elu(z: torch.Tensor, factors: tuple[float, ...]) -> torch.Tensor:
    alpha, _, inner = factors
    below = torch.exp((z * inner).clamp_max(0.0)) * (alpha * inner)
    return torch.where(z > 0, 1.0, below).to(z.dtype) / max(1.0, alpha * inner)


_SECH2_EDGE = math.acosh(math.sqrt(10.0))  # sech^2(z) = 0.1

TANH = Kind(
    "tanh",
    1.0,
    "TanhBackward",
    lambda z, _: _sech2(z),
    lambda _: _SECH2_EDGE,
    squashes=True,
    relative_into=_sech2_into,
    of_output=(1.0, 0.0, -1.0),
)
SIGMOID = Kind(
    "sigmoid",
    0.25,
    "SigmoidBackward",
    lambda z, _: _sech2(z * 0.5),
    lambda _: 2 * _SECH2_EDGE,
    squashes=True,
    relative_into=_half_sech2_into,
    of_output=(0.0, 4.0, -4.0),
)
GLU = Kind("glu", 0.25, "GluBackward", lambda z, _: _sech2(z * 0.5), lambda _: 2 * _SECH2_EDGE)
SOFTSIGN = Kind(
    "softsign",
    1.0,
    "DivBackward",
    lambda z, _: (1 + z.abs()).square_().reciprocal_(),
    lambda _: math.sqrt(10.0) - 1,
    squashes=True,
)
ATAN = Kind(
    "atan",
    1.0,
    "AtanBackward",
    lambda z, _: (1 + z * z).reciprocal_(),
    lambda _: 3.0,
    squashes=True,
)
ERF = Kind(
    "erf",
    2 / math.sqrt(math.pi),
    "ErfBackward",
    lambda z, _: torch.exp(-z * z),
    lambda _: math.sqrt(math.log(10.0)),
    squashes=True,
)
HARDTANH = Kind(
    "hardtanh",
    1.0,
    "HardtanhBackward",
    _clamped,
    lambda b: (b[1] - b[0]) / 2,
    squashes=True,
    centre=lambda b: (b[0] + b[1]) / 2,
)
RELU6 = Kind("relu6", 1.0, "HardtanhBackward", _clamped, relu_like=True, zeroes=True)
HARDSIGMOID = Kind(
    "hardsigmoid", 1 / 6, "HardsigmoidBackward", _inside(-3.0, 3.0), lambda _: 3.0, squashes=True
)
SIN = Kind("sin", 1.0, "SinBackward", lambda z, _: torch.cos(z).abs_(), incidental=True)
LOGSIGMOID = Kind("logsigmoid", 1.0, "LogSigmoidBackward", lambda z, _: torch.sigmoid(-z))
SOFTPLUS = Kind("softplus", 1.0, "SoftplusBackward", lambda z, b: torch.sigmoid(z * b[0]))
RELU = Kind("relu", 1.0, "ReluBackward", _positive, relu_like=True, zeroes=True)
LEAKY_RELU = Kind("leaky_relu", 1.0, "LeakyReluBackward", _leaky, relu_like=True)
RRELU = Kind("rrelu", 1.0, "RreluWithNoiseBackward", None, relu_like=True)
PRELU = Kind("prelu", 1.0, "PreluKernelBackward", None, relu_like=True)
THRESHOLD = Kind(
    "threshold",
    1.0,
    "ThresholdBackward",
    lambda z, t: (z > t[0]).to(z.dtype),
    relu_like=True,
    zeroes=True,
)
ELU = Kind("elu", 1.0, "EluBackward", _elu)
SELU = Kind("selu", 1.0507009873554805 * 1.6732632423543772, "EluBackward", _elu)
CELU = Kind("celu", 1.0, "CeluBackward", _elu)
GELU = Kind("gelu", 1.0, "GeluBackward", None, relu_like=True)
SILU = Kind("silu", 1.0, "SiluBackward", None, relu_like=True)
MISH = Kind("mish", 1.0, "MishBackward", None, relu_like=True)
HARDSWISH = Kind("hardswish", 1.0, "HardswishBackward", None, relu_like=True)


@dataclass(frozen=True)
class Call:
    """How one operation calls an activation: its kind and the attributes that shape it."""

    kind: Kind
    attributes: tuple[float, ...] = ()


def _plain(kind: Kind) -> Callable[..., Call]:
    return lambda *args, **kwargs: Call(kind)


def _numbers(args: tuple[Any, ...], kwargs: dict[str, Any], **defaults: float) -> tuple[float, ...]:
    """The numeric arguments after the input, by position or name, with the schema's defaults."""
    given = list(args[1:])
    values = []
    for i, (name, default) in enumerate(defaults.items()):
        value = given[i] if i < len(given) else kwargs.get(name, default)
        values.append(float(value))
    return tuple(values)


def _hardtanh(*args: Any, **kwargs: Any) -> Call:
    low, high = _numbers(args, kwargs, min_val=-1.0, max_val=1.0)
    return Call(RELU6 if low == 0 else HARDTANH, (low, high))


def _clamp(*args: Any, **kwargs: Any) -> Call | None:
    """``clamp(min=0)`` is a ReLU, ``clamp(-b, b)`` a hardtanh, ``clamp(0, b)`` a ReLU6; what limits
    elsewhere, or far out, is no activation."""
    bounds = [*args[1:], None, None][:2]
    low, high = kwargs.get("min", bounds[0]), kwargs.get("max", bounds[1])
    if not isinstance(low, int | float) or not isinstance(high, int | float | None):
        return None
    if high is None:
        return Call(RELU) if low == 0 else None
    if not 0 < high <= WIDEST_CLAMP or low not in (0, -high):
        return None
    return Call(RELU6 if low == 0 else HARDTANH, (float(low), float(high)))


def _maximum(*args: Any, **kwargs: Any) -> tuple[Call, torch.Tensor] | None:
    """``maximum(z, 0)``, in either order."""
    z, other = args[:2]
    if _is_zero(z) and not z.requires_grad:
        z, other = other, z
    return (Call(RELU), z) if z.is_floating_point() and _is_zero(other) else None


def _where(*args: Any, **kwargs: Any) -> tuple[Call, torch.Tensor] | None:
    """``where(z > 0, z, 0)``."""
    if len(args) < 3 or any(not isinstance(a, torch.Tensor) for a in args):
        return None
    condition, z, other = args[:3]
    if not _is_zero(other) or condition.shape != z.shape or not z.is_floating_point():
        return None
    same = torch.equal(condition, z > 0) or torch.equal(condition, z >= 0)
    return (Call(RELU), z) if same else None


def _is_zero(value: torch.Tensor) -> bool:
    if not value.is_floating_point() or value.is_nested or value.layout is not torch.strided:
        return False
    return value.numel() > 0 and not bool(value.any())


def _elu_call(*args: Any, **kwargs: Any) -> Call:
    alpha, scale, inner = _numbers(args, kwargs, alpha=1.0, scale=1.0, input_scale=1.0)
    return Call(SELU if scale != 1.0 else ELU, (alpha, scale, inner))


def _celu_call(*args: Any, **kwargs: Any) -> Call:
    (alpha,) = _numbers(args, kwargs, alpha=1.0)
    return Call(CELU, (alpha, 1.0, 1.0 / alpha))


def _softplus_call(*args: Any, **kwargs: Any) -> Call:
    (beta,) = _numbers(args, kwargs, beta=1.0)
    return Call(SOFTPLUS, (beta,))


def _leaky_call(*args: Any, **kwargs: Any) -> Call:
    return Call(LEAKY_RELU, _numbers(args, kwargs, negative_slope=0.01))


def _threshold_call(*args: Any, **kwargs: Any) -> Call:
    return Call(THRESHOLD, _numbers(args, kwargs, threshold=0.0))


def _glu_call(*args: Any, **kwargs: Any) -> Call:
    return Call(GLU, _numbers(args, kwargs, dim=-1.0))


OPERATIONS: dict[Any, Callable[..., Call | None]] = {
    _aten.tanh: _plain(TANH),
    _aten.sigmoid: _plain(SIGMOID),
    _aten.atan: _plain(ATAN),
    _aten.sin: _plain(SIN),
    _aten.erf: _plain(ERF),
    _aten.relu: _plain(RELU),
    _aten.gelu: _plain(GELU),
    _aten.silu: _plain(SILU),
    _aten.mish: _plain(MISH),
    _aten.hardswish: _plain(HARDSWISH),
    _aten.hardsigmoid: _plain(HARDSIGMOID),
    _aten.log_sigmoid_forward: _plain(LOGSIGMOID),
    _aten._prelu_kernel: _plain(PRELU),
    _aten.rrelu_with_noise: _plain(RRELU),
    _aten.hardtanh: _hardtanh,
    _aten.clamp: _clamp,
    _aten.clamp_min: _clamp,
    _aten.elu: _elu_call,
    _aten.celu: _celu_call,
    _aten.softplus: _softplus_call,
    _aten.leaky_relu: _leaky_call,
    _aten.threshold: _threshold_call,
    _aten.glu: _glu_call,
}
"""By overload packet, the in-place form's too (added below)."""

WRITTEN: dict[Any, Callable[..., tuple[Call, torch.Tensor] | None]] = {
    _aten.maximum: _maximum,
    _aten.where: _where,
}
"""Operations that are an activation by what they are given: what they are then, and of which z."""

for _packet in list(OPERATIONS):
    _inplace = getattr(_aten, _packet.__name__ + "_", None)
    if _inplace is not None:
        OPERATIONS[_inplace] = OPERATIONS[_packet]

RELU_LIKE = frozenset({"relu", "relu6", "leaky_relu", "rrelu", "prelu", "threshold"})
"""Kinds before which weights are twice as large in variance (He et al. 2015)."""

NODES: dict[str, tuple[Kind, ...]] = {}
"""Autograd node name (without trailing digits) -> the kinds it can be."""
for _kind in (
    TANH, SIGMOID, GLU, ATAN, SIN, ERF, HARDTANH, RELU6, HARDSIGMOID, LOGSIGMOID, SOFTPLUS, RELU,
    LEAKY_RELU, RRELU, PRELU, THRESHOLD, ELU, SELU, CELU, GELU, SILU, MISH, HARDSWISH,
):  # fmt: skip
    NODES[_kind.node] = (*NODES.get(_kind.node, ()), _kind)
NODES["ClampBackward"] = (RELU, RELU6, HARDTANH)
NODES["ClampMinBackward"] = (RELU,)
NODES["MaximumBackward"] = NODES["WhereBackward"] = (RELU,)

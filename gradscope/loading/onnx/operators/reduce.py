"""Reductions over axes, and running sums."""

from __future__ import annotations

from collections.abc import Callable

import torch

from gradscope.loading.onnx.registry import Call, ints, number, operator

Tensor = torch.Tensor
_Reduction = Callable[[Tensor, list[int], bool], Tensor]


def _reduction(axes_as_input_since: int, reduce: _Reduction) -> Callable[..., Tensor]:
    def run(call: Call, x: Tensor, axes: Tensor | None = None) -> Tensor:
        given = axes if call.version >= axes_as_input_since else call.get("axes")
        which = None if given is None else ints(given)
        if not which:
            if call.get("noop_with_empty_axes", 0):
                # Axes alone are a no-op: what is done to each element is done all the same.
                return reduce(x.unsqueeze(0), [0], False)
            which = list(range(x.dim()))
        keep = bool(call.get("keepdims", 1))
        if not x.dim():
            return reduce(x.reshape(1), [0], False)
        return reduce(x, which, keep)

    return run


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((a % x.dim() for a in axes), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def _in_type(reduce: _Reduction) -> _Reduction:
    """torch sums small integers in int64; ONNX keeps the type."""
    return lambda x, axes, keep: reduce(x, axes, keep).to(x.dtype)


def _mean(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    if x.is_floating_point():
        return x.mean(axes, keepdim=keep)
    return torch.div(x.sum(axes, keepdim=keep), _count(x, axes), rounding_mode="trunc")


def _count(x: Tensor, axes: list[int]) -> int:
    count = 1
    for axis in axes:
        count *= x.shape[axis]
    return count


def _extreme(name: str) -> _Reduction:
    find = torch.amax if name == "max" else torch.amin

    def run(x: Tensor, axes: list[int], keep: bool) -> Tensor:
        if all(x.shape[a] for a in axes):
            if x.dtype is torch.bool:
                return find(x.to(torch.uint8), axes, keep).bool()
            return find(x, axes, keep)
        # Of no elements: the limit of the type.
        shape = [1 if i in {a % x.dim() for a in axes} else s for i, s in enumerate(x.shape)]
        if x.is_floating_point():
            limit: float = float("-inf") if name == "max" else float("inf")
        elif x.dtype is torch.bool:
            limit = name != "max"
        else:
            info = torch.iinfo(x.dtype)
            limit = info.min if name == "max" else info.max
        full = torch.full(shape, limit, dtype=x.dtype)
        return full if keep else full.squeeze(axes)

    return run


def _l2(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    wide = x if x.is_floating_point() else x.double()
    norm: Tensor = torch.linalg.vector_norm(wide, 2, axes, keepdim=keep)
    return norm.to(x.dtype)


def _log_sum_exp(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    wide = x if x.is_floating_point() else x.double()
    return torch.logsumexp(wide, axes, keepdim=keep).to(x.dtype)


def _float(x: Tensor) -> Tensor:
    return x if x.is_floating_point() else x.double()


for _name, _since, _reduce in (
    ("ReduceSum", 13, lambda x, a, k: x.sum(a, keepdim=k)),
    ("ReduceMean", 18, _mean),
    ("ReduceMax", 18, _extreme("max")),
    ("ReduceMin", 18, _extreme("min")),
    ("ReduceProd", 18, _product),
    ("ReduceL1", 18, lambda x, a, k: x.abs().sum(a, keepdim=k)),
    ("ReduceL2", 18, _l2),
    ("ReduceSumSquare", 18, lambda x, a, k: (x * x).sum(a, keepdim=k)),
    ("ReduceLogSum", 18, lambda x, a, k: _float(x).sum(a, keepdim=k).log()),
    ("ReduceLogSumExp", 18, _log_sum_exp),
):
    operator(_name)(_reduction(_since, _in_type(_reduce)))


@operator("CumSum", since=11)
def cumulative_sum(call: Call, x: Tensor, axis: Tensor) -> Tensor:
    """Running sum; without the element itself (exclusive), from the end (reverse)."""
    return _cumulative(call, x, int(number(axis)), torch.cumsum, 0)


@operator("CumProd", since=26)
def cumulative_product(call: Call, x: Tensor, axis: Tensor) -> Tensor:
    """Running product, with the same options."""
    return _cumulative(call, x, int(number(axis)), torch.cumprod, 1)


def _cumulative(
    call: Call, x: Tensor, axis: int, run: Callable[..., Tensor], neutral: int
) -> Tensor:
    backwards = bool(call.get("reverse", 0))
    x = x.flip(axis) if backwards else x
    if call.get("exclusive", 0):
        first = torch.full_like(x.narrow(axis, 0, 1), neutral)
        x = torch.cat([first, x.narrow(axis, 0, x.shape[axis] - 1)], axis)
    y = run(x, axis).to(x.dtype)
    return y.flip(axis) if backwards else y

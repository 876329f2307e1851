"""What goes into a weight and what comes out of it, whatever code multiplies them.

Like the probe's tap this stands below autograd and modules: a linear layer, ``F.linear``, a
script and an exported program all arrive as ``aten.addmm`` or ``aten.convolution``, with the
parameter's own memory among the arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

_aten = torch.ops.aten


@dataclass(frozen=True)
class Use:
    """One product of a weight with an input.

    Attributes:
        weight: name of the parameter.
        bias: name of the one that is added, if there is one.
        rows: makes the input as (rows, fan_in), so that z = rows @ W.flatten(1).T + b.
        z: what came out, as (rows, units).
    """

    weight: str
    bias: str | None
    rows: Callable[[], torch.Tensor]
    z: torch.Tensor


class Capture(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While active, appends a :class:`Use` for each product with a wanted parameter.

    Args:
        tensors: parameters by name; those of which a part is used are not seen.
        wanted: names of the weights to look at; None: all.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor], wanted: str | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.uses: list[Use] = []
        self._names = {_address(t): name for name, t in tensors.items() if t.numel()}
        self._wanted = wanted

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        packet = func.overloadpacket
        if packet is _aten.addmm:
            self._linear(args[2], args[1], args[0], result)
        elif packet is _aten.mm:
            self._linear(args[1], args[0], None, result)
        elif packet is _aten.linear:
            bias = args[2] if len(args) > 2 else None
            self._linear(args[1].T, args[0].flatten(0, -2), bias, result.flatten(0, -2))
        elif packet is _aten.convolution:
            self._convolution(args, result)
        return result

    def _name(self, tensor: Any) -> str | None:
        is_tensor = isinstance(tensor, torch.Tensor) and tensor.numel()
        return self._names.get(_address(tensor)) if is_tensor else None

    def _linear(
        self, turned: torch.Tensor, x: torch.Tensor, bias: Any, result: torch.Tensor
    ) -> None:
        name = self._name(turned)
        if name is not None and self._wanted in (None, name) and turned.T.is_contiguous():
            self.uses.append(Use(name, self._name(bias), x.detach, result.detach()))

    def _convolution(self, args: tuple[Any, ...], result: torch.Tensor) -> None:
        x, weight, bias, stride, padding, dilation, transposed, _, groups = args[:9]
        name = self._name(weight)
        if name is None or self._wanted not in (None, name) or transposed or groups != 1:
            return
        flat = result.detach().flatten(2).transpose(1, 2).flatten(0, 1)

        def rows() -> torch.Tensor:
            return _unfolded(x.detach(), weight, stride, padding, dilation)

        self.uses.append(Use(name, self._name(bias), rows, flat))


def _address(tensor: torch.Tensor) -> tuple[int, int]:
    return tensor.data_ptr(), tensor.numel()


def _unfolded(
    x: torch.Tensor,
    weight: torch.Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> torch.Tensor:
    """Patches of 1-d, 2-d or 3-d images as (images * places, channels * patch)."""
    for axis, (size, pad) in enumerate(zip(weight.shape[2:], padding, strict=True)):
        x = F.pad(x, [0, 0] * (x.dim() - 3 - axis) + [pad, pad])
        span = dilation[axis] * (size - 1) + 1
        x = x.unfold(2 + axis, span, stride[axis])[..., :: dilation[axis]]
    n = weight.dim() - 2
    places = tuple(range(2, 2 + n))
    patch = tuple(range(2 + n, 2 + 2 * n))
    return x.permute(0, *places, 1, *patch).flatten(0, n).flatten(1)

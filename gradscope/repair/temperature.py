"""Temperature: queries and keys of saturated attention scaled down.

Per module, r = RMS of the logits q k^T / sqrt(d), centred over the keys, which is what a softmax
sees. Where r > 2, the rows of q and k in the packed projection, and their biases, are multiplied by
sqrt(2 / r) each. The order of the keys stays, so most of what was learned does.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gradscope.repair.base import Case, Remedy, Result, Tensors

_aten = torch.ops.aten
_SOFTMAX = (_aten._softmax, _aten._safe_softmax)
_WEIGHT, _BIAS = "in_proj_weight", "in_proj_bias"

WORKING = 2.0
"""Key-centred logits of attention that has learned: 1.4 to 2.8 in six encoders on digits. Cooled to
1 after queries and keys were multiplied by 10, these lost up to .035 of what they could; cooled to
2, .005 at most."""


class Temperature(Remedy):
    """Attention with one projection for q, k and v, as ``torch.nn.MultiheadAttention`` has, in
    whole modules, scripts, exported programs and state_dicts."""

    name: ClassVar[str] = "temperature"
    summary: ClassVar[str] = "queries and keys of saturated attention scaled down"

    def requires(self, case: Case) -> str | None:
        """An attention layer of torch's."""
        some = _weights(case)
        return None if some else "no torch.nn.MultiheadAttention with in_proj_weight was found"

    def apply(self, case: Case) -> Result:
        """In the order of the model, each after those before it."""
        changed: dict[str, torch.Tensor] = {}
        said = []
        for weight in _weights(case):
            path = weight.removesuffix(_WEIGHT).removesuffix(".")
            with case.with_tensors(changed):
                r = _spread(case, weight)
            if r is None:
                said.append(f"{path} left as it is: its queries and keys were not seen")
            if r is None or r <= WORKING:
                continue
            for name in (weight, weight.removesuffix(_WEIGHT) + _BIAS):
                if name in case.tensors:
                    value = case.tensors[name].detach().clone()
                    value[: 2 * (len(value) // 3)] *= (WORKING / r) ** 0.5
                    changed[name] = value
            said.append(f"{path}: logits of {r:.3g} rms to {WORKING:g}")
        return Result(changed, tuple(said))


def _weights(case: Case) -> list[str]:
    """Names of packed projections, (3 E, E)."""
    return [
        name for name, t in case.tensors.items()
        if name.rpartition(".")[2] == _WEIGHT and t.dim() == 2 and t.shape[0] == 3 * t.shape[1]
    ]  # fmt: skip


def _spread(case: Case, weight: str) -> float | None:
    """Root mean square of the key-centred logits over the training samples; None if not seen."""
    squares: list[torch.Tensor] = []
    case.trainee.set_training(False)
    for batch in case.data.once():
        # With gradients: without them torch runs all of the attention as one operation.
        with torch.enable_grad(), _Logits(case.tensors, weight) as seen:
            case.trainee.call(batch)
        squares += seen.squares
    return float(torch.stack(squares).mean().sqrt()) if squares else None


class _Logits(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While active, keeps the mean square of the logits of one attention layer: what enters the
    softmax after a product with its projection."""

    def __init__(self, tensors: Tensors, wanted: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.squares: list[torch.Tensor] = []
        self._wanted, self._last = wanted, ""
        self._spans = [
            (t.data_ptr(), t.data_ptr() + t.nbytes, name) for name, t in tensors.items() if t.nbytes
        ]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        packet = func.overloadpacket
        if packet in (_aten.addmm, _aten.mm, _aten.linear):
            self._note(args[1] if packet is _aten.linear else args[-1])
        elif self._last == self._wanted and "scaled_dot_product" in packet.__name__:
            q, k = (t.detach().double() for t in args[:2])
            scale = (kwargs or {}).get("scale") or q.shape[-1] ** -0.5
            self._take(q @ k.transpose(-1, -2) * scale)
        elif self._last == self._wanted and packet in _SOFTMAX:
            self._take(args[0].detach().double())
        return func(*args, **(kwargs or {}))

    def _note(self, weight: torch.Tensor) -> None:
        at = weight.data_ptr()
        found = next((name for low, high, name in self._spans if low <= at < high), None)
        self._last = found or self._last

    def _take(self, logits: torch.Tensor) -> None:
        seen = torch.isfinite(logits)  # masked keys have none
        count = seen.sum(dim=-1, keepdim=True).clamp_min(1)
        kept = torch.where(seen, logits, 0.0)
        centred = torch.where(seen, kept - kept.sum(dim=-1, keepdim=True) / count, 0.0)
        self.squares.append(centred.square().sum().cpu() / seen.sum().clamp_min(1).cpu())
        self._last = ""

"""Temperature: queries and keys of saturated attention scaled down.

Per module, r = RMS of the logits q k^T / sqrt(d), centred over the keys, which is what a softmax
sees. Where r > 2, the rows of q and k in the packed projection, and their biases, are multiplied by
sqrt(2 / r) each. The order of the keys stays, so most of what was learned does.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from gradscope.repair.base import Case, Remedy, Result

WORKING = 2.0
"""Key-centred logits of attention that has learned: 1.4 to 2.8 in six encoders on digits. Cooled to
1 after queries and keys were multiplied by 10, these lost up to .035 of what they could; cooled to
2, .005 at most."""


class Temperature(Remedy):
    """``torch.nn.MultiheadAttention`` with one projection for q, k and v."""

    name: ClassVar[str] = "temperature"
    summary: ClassVar[str] = "queries and keys of saturated attention scaled down"

    def requires(self, case: Case) -> str | None:
        """An attention layer of torch's."""
        some = _modules(case)
        return None if some else "no torch.nn.MultiheadAttention with in_proj_weight was found"

    def apply(self, case: Case) -> Result:
        """In the order of the model, each after those before it."""
        changed: dict[str, torch.Tensor] = {}
        said = []
        for path, module in _modules(case):
            with case.with_tensors(changed):
                r = _spread(case, module)
            if r is None:
                said.append(f"{path} left as it is: its queries and keys were not seen")
            if r is None or r <= WORKING:
                continue
            for own in ("in_proj_weight", "in_proj_bias"):
                name = f"{path}.{own}" if path else own
                if name in case.tensors:
                    value = case.tensors[name].detach().clone()
                    value[: 2 * module.embed_dim] *= (WORKING / r) ** 0.5
                    changed[name] = value
            said.append(f"{path}: logits of {r:.3g} rms to {WORKING:g}")
        return Result(changed, tuple(said))


def _modules(case: Case) -> list[tuple[str, torch.nn.MultiheadAttention]]:
    return [
        (path, m)
        for path, m in case.trainee.module.named_modules()
        if isinstance(m, torch.nn.MultiheadAttention)
        and (f"{path}.in_proj_weight" if path else "in_proj_weight") in case.tensors
    ]


def _spread(case: Case, module: torch.nn.MultiheadAttention) -> float | None:
    """Root mean square of the key-centred logits over the training samples; None if not seen."""
    squares: list[torch.Tensor] = []

    def hook(_: Any, args: tuple[Any, ...]) -> None:
        if len(args) > 1 and args[0].dim() == 3 and not args[0].is_nested:
            squares.append(_logits(module, args[0], args[1]).square().mean().cpu())

    # Without keywords: the flag that asks for them is state, which every call puts back.
    handle = module.register_forward_pre_hook(hook)
    try:
        case.trainee.set_training(False)
        for batch in case.data.once():
            with torch.no_grad():
                case.trainee.call(batch)
    finally:
        handle.remove()
    return float(torch.stack(squares).mean().sqrt()) if squares else None


def _logits(
    module: torch.nn.MultiheadAttention, query: torch.Tensor, key: torch.Tensor
) -> torch.Tensor:
    """(samples, heads, queries, keys), each row centred, float64."""
    e, heads = module.embed_dim, module.num_heads
    bias = module.in_proj_bias
    parts = []
    for i, x in enumerate((query, key)):
        rows = slice(i * e, (i + 1) * e)
        own = None if bias is None else bias.detach()[rows]
        y = F.linear(x.detach(), module.in_proj_weight.detach()[rows], own).double()
        y = y if module.batch_first else y.transpose(0, 1)
        parts.append(y.reshape(*y.shape[:2], heads, e // heads).transpose(1, 2))
    logits = parts[0] @ parts[1].transpose(-1, -2) / (e // heads) ** 0.5
    centred: torch.Tensor = logits - logits.mean(dim=-1, keepdim=True)
    return centred

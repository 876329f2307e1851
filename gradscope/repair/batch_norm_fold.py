"""Batch-norm-fold: large weights before a batch norm to unit size, the norm's statistics with them.

Per channel c = RMS(W) sqrt(fan_in): W, b and running_mean / c, running_var / c^2. The function
stays, but a step of the optimiser is no longer lost in weights whose scale means nothing. Where the
norm's own scale and shift saturate what follows, both are shrunk as kappa would; where nothing has
been learned they become what polar makes of a matrix: the orthogonal factor of diag(gamma) is its
signs, and the shift is 0. Channels of which most are nearly off would learn less.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gradscope.repair.base import Case, Remedy, Result, followed
from gradscope.repair.capture import Capture
from gradscope.repair.kappa import KINDS, Kappa, least_alpha
from gradscope.repair.plan import LEARNED

_aten = torch.ops.aten
_NORMS = (
    _aten.native_batch_norm, _aten._native_batch_norm_legit, _aten.cudnn_batch_norm,
    _aten._native_batch_norm_legit_no_training, _aten.miopen_batch_norm,
    _aten._batch_norm_with_update,
)  # fmt: skip

_NORMAL = 999  # quantiles that stand for a standard normal

DRIFT = 1e-3
"""Change of the outputs, over their own size, up to which a fold counts as exact."""


@dataclass(frozen=True)
class Fold:
    """A weight with a bias; the statistics of the norm that takes their result, and its scale and
    shift where it has them."""

    weight: str
    bias: str | None
    mean: str
    variance: str
    scale: str | None
    shift: str | None


class _Norms(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While active, notes which product enters which batch norm."""

    def __init__(self, capture: Capture, known: Mapping[str, torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[Fold] = []
        self._capture = capture
        self._product = -1  # where the last product lies
        self._names = {t.data_ptr(): name for name, t in known.items() if t.numel()}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func.overloadpacket in _NORMS and len(args) >= 5:
            scale, shift, mean, variance = (self._names.get(_pointer(t)) for t in args[1:5])
            if self._product == _pointer(args[0]) and mean and variance:
                use = self._capture.uses[-1]
                self.found.append(Fold(use.weight, use.bias, mean, variance, scale, shift))
        seen = len(self._capture.uses)
        result = func(*args, **(kwargs or {}))
        if len(self._capture.uses) > seen:
            self._product = _pointer(result)
        return result


class BatchNormFold(Remedy):
    """Fold, then kappa on what the norms give and on the rest of the chain."""

    name: ClassVar[str] = "batch-norm-fold"
    summary: ClassVar[str] = "large weights before batch norms to unit size, exactly, then kappa"

    def requires(self, case: Case) -> str | None:
        """A large weight directly before a batch norm."""
        some = any(bool((_size(case, f) > 1).any()) for f in find_folds(case))
        return None if some else "no large weight stands directly before a batch norm"

    def apply(self, case: Case) -> Result:
        """Each norm by itself; what would change the function is left."""
        changed: dict[str, torch.Tensor] = {}
        said = []
        before = _outputs(case, {})
        for fold in find_folds(case):
            more = _folded(case, fold)
            if not more:
                continue
            after = _outputs(case, changed | more)
            drift = float((after - before).norm() / before.norm().clamp_min(1e-30))
            if not drift < DRIFT:
                said.append(f"{fold.weight} left as it is: folding changes the outputs")
                continue
            changed |= more
            said.append(f"{fold.weight}: folded into {fold.mean.rpartition('.')[0]}")
        scaled = _norms_shrunk(case)
        said += [f"{name}: shrunk" for name in scaled]
        if not _has_learned(case):
            signs = _signs(case)
            said += [f"{name}: nothing learned, its signs" for name in signs if name in scaled]
            scaled |= signs
        return followed(case, Result(changed | scaled, tuple(said)), Kappa())


def find_folds(case: Case) -> list[Fold]:
    """Weights whose product enters a batch norm with running statistics, and nothing else."""
    case.trainee.set_training(False)
    batch = next(case.data.once(), None)
    if batch is None:
        return []
    known = {**case.buffers, **case.tensors}
    with torch.no_grad(), Capture(case.tensors) as capture, _Norms(capture, known) as norms:
        case.trainee.call(batch)
    uses = [use.weight for use in capture.uses]
    return [f for f in norms.found if uses.count(f.weight) == 1]


def _folded(case: Case, fold: Fold) -> dict[str, torch.Tensor]:
    size = _size(case, fold).clamp_min(1.0)
    if not bool((size > 1).any()):
        return {}
    weight = case.tensors[fold.weight].detach()
    found = {fold.weight: _over(weight, size.reshape(-1, *[1] * (weight.dim() - 1)))}
    if fold.bias is not None:
        found[fold.bias] = _over(case.tensors[fold.bias].detach(), size)
    found[fold.mean] = _over(case.buffers[fold.mean], size)
    found[fold.variance] = _over(case.buffers[fold.variance], size.square())
    return found


def _size(case: Case, fold: Fold) -> torch.Tensor:
    """RMS(W) sqrt(fan_in) of each channel: the norm of its weights, float64."""
    norm: torch.Tensor = case.tensors[fold.weight].detach().double().flatten(1).norm(dim=1)
    return norm


def _over(tensor: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
    return (tensor.double() / size).to(tensor.dtype)


def _norms_shrunk(case: Case) -> dict[str, torch.Tensor]:
    """Scale and shift of norms that saturate what they feed: while training a norm gives the same
    whatever comes before it, so what was measured holds after the fold."""
    found = {}
    for site in case.measured.sites:
        alone = all(n in case.tensors and case.tensors[n].dim() == 1 for n in site.parameters)
        if not site.parameters or not alone or site.kind not in KINDS:
            continue
        if site.shrink is not None and site.shrink > 1:
            for name in site.parameters:
                found[name] = case.tensors[name].detach() / site.shrink
    return found


def _has_learned(case: Case) -> bool:
    skill = case.measured.skill
    return skill is not None and skill.value is not None and skill.value > LEARNED


def _signs(case: Case) -> dict[str, torch.Tensor]:
    """Scales to their signs over the alpha of a standard normal, shifts to 0."""
    found = {}
    normal = torch.special.ndtri(torch.linspace(0, 1, _NORMAL + 2, dtype=torch.float64)[1:-1])
    bounded = [s for s in case.measured.sites if s.saturated_fraction is not None]
    kinds = {name: site.kind for site in bounded for name in site.parameters}
    for fold in find_folds(case):
        if fold.scale is None or fold.shift is None:
            continue
        kind = KINDS.get(kinds.get(fold.scale, ""))
        alpha = least_alpha(normal, kind) if kind is not None else 1.0
        found[fold.scale] = case.tensors[fold.scale].detach().sign() / alpha
        found[fold.shift] = torch.zeros_like(case.tensors[fold.shift])
    return found


def _outputs(case: Case, changed: dict[str, torch.Tensor]) -> torch.Tensor:
    case.trainee.set_training(False)
    batch = next(case.data.once())
    with case.with_tensors(changed), torch.no_grad():
        output = case.trainee.call(batch)
    return output.double() if output is not None else torch.zeros(1)


def _pointer(tensor: Any) -> int:
    return tensor.data_ptr() if isinstance(tensor, torch.Tensor) else 0

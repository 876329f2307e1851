"""Std restore: weights that are too large for their shape back to the usual size; data-free."""

from __future__ import annotations

from typing import ClassVar

from gradscope.repair.base import Case, Remedy, Result


class StdRestore(Remedy):
    """W and b times min(1, sqrt(2 / (in + out)) / sd W), for residual and normalised networks,
    where layers cannot be shrunk one by one."""

    name: ClassVar[str] = "std-restore"
    summary: ClassVar[str] = "oversized weights back to the standard deviation of their shape"

    def requires(self, case: Case) -> str | None:
        """Some matrix."""
        some = any(p.fan_in for p in case.measured.parameters)
        return None if some else "no weight matrix was found"

    def apply(self, case: Case) -> Result:
        """Each weight by itself."""
        changed, said = {}, []
        for p in case.measured.parameters:
            if p.fan_in is None or len(p.shape) < 2 or p.name not in case.tensors:
                continue
            weight = case.tensors[p.name].detach()
            fan_out = weight.shape[0] * (p.numel // (weight.shape[0] * weight.shape[1]))
            usual = (2.0 / (p.fan_in + fan_out)) ** 0.5
            spread = float(weight.double().std())
            if spread <= usual:
                continue
            factor = usual / spread
            changed[p.name] = weight * factor
            said.append(f"{p.name}: x {factor:.3g}")
            for q in case.measured.parameters:
                mine = q.layer == p.layer and q.name in case.tensors
                if mine and len(q.shape) == 1 and "bias" in q.name:
                    changed[q.name] = case.tensors[q.name].detach() * factor
        return Result(changed, tuple(said))

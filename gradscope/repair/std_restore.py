"""Std restore: weights that are too large for their shape back to the usual size; data-free."""

from __future__ import annotations

from typing import ClassVar

from gradscope.repair.base import Case, Remedy, Result
from gradscope.repair.suspects import suspects_of


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
        matrices = [p for p in case.measured.parameters if p.fan_in and len(p.shape) >= 2]
        found = suspects_of(case.measured, {p.name for p in matrices})
        biases = {v.name for v in found.vectors if not v.start and v.name in case.tensors}
        for p in matrices:
            if p.name not in case.tensors or p.fan_in is None or p.numel < 2:
                continue
            weight = case.tensors[p.name].detach()
            units, inputs = weight.shape[:2]
            if weight.dim() == 2 and units == p.fan_in != inputs:  # ONNX holds units in columns
                units, inputs = inputs, units
            fan_out = units * (p.numel // (units * inputs))
            usual = (2.0 / (p.fan_in + fan_out)) ** 0.5
            spread = float(weight.double().std())
            if spread <= usual:
                continue
            factor = usual / spread
            changed[p.name] = weight * factor
            said.append(f"{p.name}: x {factor:.3g}")
            for q in case.measured.parameters:
                if q.layer == p.layer and q.name in biases:
                    changed[q.name] = case.tensors[q.name].detach() * factor
        return Result(changed, tuple(said))

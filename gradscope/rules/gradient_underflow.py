"""GS106: gradients too small for half precision."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from gradscope.findings import Finding, Severity
from gradscope.measurements import GradientStats, Measurements, Parameter, State
from gradscope.places import listed, plural
from gradscope.rules.base import Remedy, Rule, Threshold
from gradscope.rules.examples import measured, parameter, site

_TYPES = {"float16": "fp16_underflow_fraction", "bfloat16": "bf16_underflow_fraction"}


class GradientUnderflow(Rule):
    """Counts gradient elements that are not 0 here and would be in float16 or bfloat16."""

    code = "GS106"
    name = "gradient-underflow"
    summary = "Much of a gradient would round to 0 in half precision."
    explanation = (
        "In float16 everything below 3e-8 is 0, in bfloat16 below 5e-41. Counted is the loss "
        "gradient where there are labels, else the loss-free one. Information for those who train "
        "in mixed precision, which loss scaling makes harmless. A gradient that is measured in "
        "one of these types (--dtype, or a model stored in it) is not counted for it: what it "
        "loses is 0 already, and counted among its zeros."
    )
    thresholds: ClassVar = {
        "share": Threshold(0.5, "share", "half of a parameter's elements would not be updated"),
    }
    remedy = Remedy(
        "Scale the loss (torch.amp.GradScaler), keep float32 master weights, or train in bfloat16."
    )

    def check(self, measured: Measurements) -> Iterator[Finding]:
        limit = self.limit("share")
        for dtype in _TYPES:
            found = [(p, s) for p in measured.parameters if (s := _share(p, dtype)) > limit]
            if not found:
                continue
            worst = max(share for _, share in found)
            message = (
                f"up to {worst:.0%} of the gradient would be 0 in {dtype} (limit {limit:.0%}), "
                f"{plural(len(found), 'parameter')}"
            )
            where = listed([p.name for p, _ in found])
            yield self.finding(
                Severity.INFORMATION, where, message, value=worst, threshold=limit, about=dtype
            )

    @staticmethod
    def passes() -> tuple[Measurements, ...]:
        return (measured(site("0/tanh"), parameters=(parameter("0.weight"),)),)

    @staticmethod
    def fails() -> tuple[Measurements, ...]:
        tiny = GradientStats(State.VALUE, 64, 1e-8, 1e-9, 1e-8, fp16_underflow_fraction=0.97)
        return (measured(site("0/tanh"), parameters=(parameter("0.weight", gradient=tiny),)),)


def _share(parameter: Parameter, dtype: str) -> float:
    stats = parameter.loss_gradient or parameter.gradient
    return 0.0 if stats is None else getattr(stats, _TYPES[dtype]) or 0.0

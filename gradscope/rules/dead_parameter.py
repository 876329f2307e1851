"""GS303: parameters whose gradient is exactly zero."""

from __future__ import annotations

from collections.abc import Iterator

from gradscope.findings import Finding, Severity
from gradscope.measurements import GradientStats, Measurements, Parameter, State
from gradscope.places import listed, plural
from gradscope.rules.base import Remedy, Rule
from gradscope.rules.examples import measured, parameter, site


class DeadParameter(Rule):
    """A path leads to the parameter, and nothing comes through it."""

    code = "GS303"
    name = "dead-parameter"
    summary = "The gradient of whole parameters is exactly zero."
    explanation = (
        "A path leads from the output to the parameter, but every element of its gradient is 0 "
        "for every sample and every random cotangent: it will not change. Behind it stand dead "
        "ReLU units, a factor that is 0, or a value that cancels (a bias before a normalisation "
        "of the same samples). A warning for trainable weights, information for vectors and "
        "frozen parameters."
    )
    remedy = Remedy(
        "Look at what stands between the parameter and the output: dead units (GS203), a scale or "
        "weight that is exactly 0."
    )
    eased = True

    def check(self, measured: Measurements) -> Iterator[Finding]:
        dead = [p for p in measured.parameters if _dead(p)]
        grave = [p for p in dead if p.trainable and len(p.shape) >= 2]
        for found, severity in (
            (grave, Severity.WARNING),
            ([p for p in dead if p not in grave], Severity.INFORMATION),
        ):
            if found:
                message = f"gradient exactly 0 in {plural(len(found), 'parameter')} (limit 0)"
                where = listed([p.name for p in found])
                yield self.finding(
                    severity, where, message, value=float(len(found)), threshold=0.0,
                    about=severity.value,
                )  # fmt: skip

    @staticmethod
    def passes() -> tuple[Measurements, ...]:
        lost = parameter("1.weight", gradient=GradientStats(State.NO_PATH))
        return (measured(site("0/tanh"), parameters=(parameter("0.weight"), lost)),)

    @staticmethod
    def fails() -> tuple[Measurements, ...]:
        zero = GradientStats(State.ZERO, 64, 0.0, 0.0, 0.0)
        bias = parameter("0.bias", gradient=zero, shape=(8,), fan_in=None)
        return (
            measured(site("0/tanh"), parameters=(parameter("0.weight", gradient=zero),)),
            measured(site("0/tanh"), parameters=(bias,)),
        )


def _dead(parameter: Parameter) -> bool:
    stats = parameter.gradient
    return stats is not None and stats.state is State.ZERO and parameter.numel > 0

"""GS103: parameters that the model uses and that no gradient reaches."""

from __future__ import annotations

from collections.abc import Iterator

from gradscope.findings import Finding, Severity
from gradscope.measurements import GradientStats, Measurements, Parameter, State
from gradscope.places import listed, plural
from gradscope.rules.base import Remedy, Rule
from gradscope.rules.examples import measured, parameter, site


class NoGradientPath(Rule):
    """Tells cut paths from unused parameters."""

    code = "GS103"
    name = "no-gradient-path"
    summary = "No gradient path leads from an output to some trainable parameters."
    explanation = (
        "A parameter that the forward pass uses, but that no gradient reaches, was cut off: by "
        "detach(), no_grad(), an argmax or a conversion to integers. It will never change. That is "
        "a warning. Parameters that the forward pass does not use (another head, a position table "
        "that is too long) and frozen ones are information."
    )
    remedy = Remedy(
        "Look for detach(), .data, no_grad(), argmax or integer conversions between the layer and "
        "the output; set requires_grad=False where the cut is meant.",
        "--format json",
    )

    def check(self, measured: Measurements) -> Iterator[Finding]:
        lost = [p for p in measured.parameters if _unreached(p)]
        chosen = bool(measured.run.outputs)
        cut = [p for p in lost if p.used and p.trainable and not chosen]
        rest = [p for p in lost if chosen or not (p.used and p.trainable)]
        why = "no path from the chosen output" if chosen else "unused or frozen: no gradient path"
        for found, severity, what in (
            (cut, Severity.WARNING, "in use, but no gradient path leads to"),
            (rest, Severity.INFORMATION, f"{why} leads to"),
        ):
            if found:
                names = listed([p.name for p in found])
                message = f"{what} {plural(len(found), 'parameter')} (limit 0)"
                yield self.finding(
                    severity, names, message, value=float(len(found)), threshold=0.0,
                    about=severity.value,
                )  # fmt: skip

    @staticmethod
    def passes() -> tuple[Measurements, ...]:
        return (measured(site("0/tanh"), parameters=(parameter("0.weight"),)),)

    @staticmethod
    def fails() -> tuple[Measurements, ...]:
        lost = GradientStats(State.NO_PATH)
        return (
            measured(site("0/tanh"), parameters=(parameter("a", gradient=lost, used=True),)),
            measured(site("0/tanh"), parameters=(parameter("a", gradient=lost, used=False),)),
        )


def _unreached(parameter: Parameter) -> bool:
    return parameter.gradient is not None and parameter.gradient.state is State.NO_PATH

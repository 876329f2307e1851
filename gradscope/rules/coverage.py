"""GS901: what could not be measured."""

from __future__ import annotations

from collections.abc import Iterator

from gradscope.findings import Finding, Severity, Skipped
from gradscope.measurements import GradientStats, Measurements, State
from gradscope.rules.base import Rule
from gradscope.rules.examples import measured, parameter, site


class Coverage(Rule):
    """Says which parameters no gradient reaches, and that something was left out."""

    code = "GS901"
    name = "coverage"
    summary = "Part of the model was not measured."
    explanation = (
        "A number that was not measured is null in the report, with its reason under skipped. "
        "Information only: what matters is that it is not passed over in silence."
    )

    def check(self, measured: Measurements) -> Iterator[Finding]:
        unreached = [
            p.name
            for p in measured.parameters
            if p.gradient is not None and p.gradient.state is State.NO_PATH
        ]
        if unreached:
            shown = ", ".join(unreached[:3]) + (", ..." if len(unreached) > 3 else "")
            message = f"no gradient path from the output to {len(unreached)} parameters"
            yield self.finding(
                Severity.INFORMATION, shown, message, value=float(len(unreached)), threshold=0.0
            )
        if measured.skipped:
            count = len(measured.skipped)
            message = f"{count} thing{'s' if count > 1 else ''} not measured, see skipped"
            first = measured.skipped[0].what
            yield self.finding(
                Severity.INFORMATION, first, message, value=float(count), threshold=0.0
            )

    @staticmethod
    def passes() -> tuple[Measurements, ...]:
        return (measured(site("0/tanh"), parameters=(parameter("0.weight"),)),)

    @staticmethod
    def fails() -> tuple[Measurements, ...]:
        lost = parameter("0.weight", gradient=GradientStats(State.NO_PATH))
        return (
            measured(site("0/tanh"), parameters=(lost,)),
            measured(site("0/tanh"), skipped=(Skipped("gates", "fused"),)),
        )

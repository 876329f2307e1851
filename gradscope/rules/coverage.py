"""GS901: what could not be measured."""

from __future__ import annotations

from collections.abc import Iterator

from gradscope.findings import Finding, Severity, Skipped
from gradscope.measurements import Measurements
from gradscope.places import listed, plural
from gradscope.rules.base import Remedy, Rule
from gradscope.rules.examples import measured, parameter, site


class Coverage(Rule):
    """Says that something was left out."""

    code = "GS901"
    name = "coverage"
    summary = "Part of the model was not measured."
    explanation = (
        "A number that was not measured is null in the report, with its reason under skipped. "
        "Information only: what matters is that it is not passed over in silence. Parameters that "
        "no gradient reaches are GS103's."
    )
    remedy = Remedy(
        "Read the reasons; most name the option or the format that would make it measurable."
    )

    def check(self, measured: Measurements) -> Iterator[Finding]:
        if measured.skipped:
            count = len(measured.skipped)
            message = f"{plural(count, 'thing')} not measured, see skipped (limit 0)"
            where = listed([s.what for s in measured.skipped], 2)
            yield self.finding(
                Severity.INFORMATION, where, message, value=float(count), threshold=0.0
            )

    @staticmethod
    def passes() -> tuple[Measurements, ...]:
        return (measured(site("0/tanh"), parameters=(parameter("0.weight"),)),)

    @staticmethod
    def fails() -> tuple[Measurements, ...]:
        return (measured(site("0/tanh"), skipped=(Skipped("gates", "fused"),)),)

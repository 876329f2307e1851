"""GS901: what could not be measured."""

from __future__ import annotations

from collections.abc import Iterator

from gradscope.findings import Finding, Severity, Skipped
from gradscope.measurements import Measurements, Role
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
        if all(_is_ratio_of_few(measured, s) for s in measured.skipped):
            return
        count = len(measured.skipped)
        were = "was" if count == 1 else "were"
        message = f"{plural(count, 'thing')} {were} not measured (listed under Not measured)"
        where = listed([s.what for s in measured.skipped], 2)
        yield self.finding(Severity.INFORMATION, where, message, value=float(count), about="model")

    @staticmethod
    def passes() -> tuple[Measurements, ...]:
        short = measured(site("0/tanh"), skipped=(Skipped("total of output", "too few"),))
        return (measured(site("0/tanh"), parameters=(parameter("0.weight"),)), short)

    @staticmethod
    def fails() -> tuple[Measurements, ...]:
        gates, total = Skipped("gates", "fused"), Skipped("total of output", "every gradient is 0")
        return (
            measured(site("0/tanh"), skipped=(gates,)),
            measured(site("0/tanh"), skipped=(gates, total)),
            measured(site("0/tanh"), site("2/tanh"), skipped=(total,)),
        )


def _is_ratio_of_few(measured: Measurements, skipped: Skipped) -> bool:
    """Whether it is a ratio along the network where fewer than two activations lie: nothing that
    could be measured."""
    hidden = sum(s.role in (Role.HIDDEN, Role.PART) for s in measured.sites)
    return hidden < 2 and skipped.what in {f"total of {h.name}" for h in measured.heads}

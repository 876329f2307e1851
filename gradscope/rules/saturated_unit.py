"""GS202: single units that are saturated for nearly every sample."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from gradscope.attribution import bounded_hidden
from gradscope.findings import Finding, Severity
from gradscope.measurements import Measurements, Role, Units
from gradscope.places import indexed
from gradscope.rules.base import Remedy, Rule, Threshold
from gradscope.rules.examples import measured, site


class SaturatedUnit(Rule):
    """Counts units that are saturated for more than 95 % of the samples."""

    code = "GS202"
    name = "saturated-unit"
    summary = "Some units of a hidden activation are saturated for nearly every sample."
    explanation = (
        "Such a unit is nearly a constant with a nearly dead gradient. A few are common in working "
        "networks, so this is information, and a warning only where most of a layer is concerned."
    )
    thresholds: ClassVar = {
        "warning": Threshold(0.5, "share of units", "half of a layer does not learn"),
    }
    remedy = Remedy(
        "Subtract the unit's mean pre-activation from its bias; shrink its row of weights."
    )
    eased = True

    def check(self, measured: Measurements) -> Iterator[Finding]:
        limit = self.limit("warning")
        for found in bounded_hidden(measured):
            units = found.units
            if units is None or not units.saturated_count:
                continue
            share = units.saturated_count / units.count
            severity = Severity.WARNING if share > limit else Severity.INFORMATION
            where = indexed(found.id, units.saturated_indices, units.saturated_count)
            message = (
                f"{share:.0%} of its units ({units.saturated_count} of {units.count}), in over 95% "
                f"of samples (limit {limit:.0%})"
            )
            yield self.finding(
                severity, where, message, value=share, threshold=limit, about=found.id
            )

    @staticmethod
    def passes() -> tuple[Measurements, ...]:
        units = Units(8, (1.0,) * 8, 8, None, tuple(range(8)))
        return (measured(site("0/tanh")), measured(site("0/forget", role=Role.GATE, units=units)))

    @staticmethod
    def fails() -> tuple[Measurements, ...]:
        units = Units(8, (1.0, *(0.0,) * 7), 1, None, (0,))
        most = Units(8, (1.0,) * 6 + (0.0,) * 2, 6, None, tuple(range(6)))
        return (measured(site("0/tanh", units=units)), measured(site("0/tanh", units=most)))

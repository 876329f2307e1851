"""GS302: single weights or units far larger than the rest of their tensor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from gradscope.attribution import bounded_hidden
from gradscope.findings import Finding, Severity
from gradscope.measurements import Measurements, Outlier, Parameter, Units
from gradscope.rules.base import Remedy, Rule, Threshold
from gradscope.rules.examples import measured, parameter, site, weight


class OutlierWeight(Rule):
    """Names single weights and units by index."""

    code = "GS302"
    name = "outlier-weight"
    summary = "Single weights or units are far larger than the rest of their tensor."
    explanation = (
        "An element is compared with the median magnitude of its tensor (robust z), a unit with "
        "the median root mean square of all units. Trained networks have outliers and work with "
        "them, so this is information; a warning where the unit that it feeds is saturated for "
        "nearly every sample while most of its layer is not."
    )
    thresholds: ClassVar = {
        "element": Threshold(100.0, "robust z", "normal: 5.5 in 1e7; trained nets: up to 57"),
        "unit": Threshold(10.0, "ratio", "469 healthy nets: up to 3.7"),
    }
    remedy = Remedy(
        "Draw the named weight or row anew, or clip it to the largest of the others; look for the "
        "sample or the step that made it (gradient clipping)."
    )
    eased = True

    def check(self, measured: Measurements) -> Iterator[Finding]:
        saturated = _saturated_units(measured)
        for found in measured.parameters:
            for outlier in found.weight.outliers:
                unit = _is_unit(outlier)
                limit = self.limit("unit" if unit else "element")
                if outlier.score <= limit or _covered(found, outlier, self.limit("unit")):
                    continue
                harmful = _unit(found, outlier) in saturated.get(found.name, ())
                severity = Severity.WARNING if harmful else Severity.INFORMATION
                what = "root mean square " if unit else ""
                message = (
                    f"{what}{outlier.value:.3g}: {outlier.score:.0f} x the typical size "
                    f"(limit {limit:.0f})"
                )
                message += "; its unit is saturated" if harmful else ""
                yield self.finding(
                    severity, f"{found.name}{outlier.place}", message, value=outlier.score,
                    threshold=limit,
                )  # fmt: skip

    @staticmethod
    def passes() -> tuple[Measurements, ...]:
        usual = weight(outliers=(Outlier("[1,2]", 1.1, 4.0), Outlier("[1,:]", 0.5, 1.4)))
        return (measured(site("0/tanh"), parameters=(parameter("0.weight", weight=usual),)),)

    @staticmethod
    def fails() -> tuple[Measurements, ...]:
        single = weight(outliers=(Outlier("[3,2]", 40.0, 150.0),))
        row = weight(outliers=(Outlier("[3,:]", 30.0, 60.0), Outlier("[3,0]", 40.0, 70.0)))
        stuck = site("0/tanh", units=Units(8, (0.0,) * 8, 1, None, (3,)))
        return (
            measured(site("0/tanh"), parameters=(parameter("0.weight", weight=single),)),
            measured(stuck, parameters=(parameter("0.weight", weight=row),)),
        )


def _is_unit(outlier: Outlier) -> bool:
    return ":" in outlier.place


def _unit(parameter: Parameter, outlier: Outlier) -> int:
    """Which unit it is, or is of."""
    return int(outlier.place[1:-1].split(",")[_axis(parameter)])


def _axis(parameter: Parameter) -> int:
    """On which its units lie, as the places of its largest ones tell."""
    return int(any(o.place.startswith("[:,") for o in parameter.weight.outliers))


def _covered(parameter: Parameter, outlier: Outlier, limit: float) -> bool:
    """Named by another finding already: an element of a unit that is large as a whole, or a unit
    that only one of its elements makes large."""
    mine = _unit(parameter, outlier)
    same = [o for o in parameter.weight.outliers if _unit(parameter, o) == mine]
    units = [o for o in same if _is_unit(o) and o.score > limit]
    alone = any(_is_most_of(parameter, o, u) for u in units for o in same if o is not u)
    if _is_unit(outlier):
        return alone
    return bool(units) and not alone


def _is_most_of(parameter: Parameter, element: Outlier, unit: Outlier) -> bool:
    """Whether an element has more than half of its unit's sum of squares."""
    size = parameter.numel / max(parameter.shape[_axis(parameter)], 1)
    return element.value**2 > 0.5 * unit.value**2 * size


def _saturated_units(measured: Measurements) -> dict[str, set[int]]:
    """Parameter -> saturated units of what it feeds, where most of that layer is not saturated."""
    found: dict[str, set[int]] = {}
    for hidden in bounded_hidden(measured):
        units = hidden.units
        if units is None or not units.saturated_count or units.saturated_count * 2 > units.count:
            continue
        for name in hidden.parameters:
            found.setdefault(name, set()).update(units.saturated_indices)
    return found

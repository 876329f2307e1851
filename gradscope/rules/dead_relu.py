"""GS203: ReLU units that are off for every sample."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from gradscope.attribution import DEAD_LAYER, zero_matrices
from gradscope.findings import Cause, Finding, Severity
from gradscope.measurements import Measurements, Role, SampleInfo, Site, Units
from gradscope.places import indexed
from gradscope.rules.base import Remedy, Rule, Threshold
from gradscope.rules.examples import measured, parameter, poor_skill, site, weight


class DeadRelu(Rule):
    """Counts units whose output is 0 for every sample and position."""

    code = "GS203"
    name = "dead-relu"
    summary = "ReLU units are off for every sample: they pass no gradient and cannot recover."
    explanation = (
        "Some dead units are common in trained networks, so few of them are information. Where "
        "most of a layer is dead it is a warning, and an error if labelled data show that the "
        "model does not work: the few others are all that it has. Where all of it is dead it is "
        "an error in any case: no gradient comes through. Neither holds where a skip connection "
        "leads around it. Where the weights that feed a layer are all 0 they are the cause. Too "
        "few samples make live units look dead; below the limit nothing is said above "
        "information."
    )
    thresholds: ClassVar = {
        "error": Threshold(DEAD_LAYER, "share of units", "no gradient comes through the layer"),
        "warning": Threshold(
            0.8, "share of units", "healthy nets: up to .44 of a layer; stuck: .81 and .94"
        ),
        "samples": Threshold(32, "samples", "a unit that is on for 1 in 10 shows itself"),
    }
    causes = (Cause.DEAD_UNITS, Cause.SMALL_WEIGHTS)
    remedy = Remedy(
        "Subtract the median pre-activation of the dead units from their biases; lower the "
        "learning rate; use a leaky ReLU or a normalisation layer."
    )
    eased = True

    def check(self, measured: Measurements) -> Iterator[Finding]:
        enough = measured.sample.samples >= self.limit("samples")
        around, zeros = _bypassed(measured), zero_matrices(measured)
        for found in measured.sites:
            units = found.units
            if units is None or not units.dead_count or found.role is not Role.HIDDEN:
                continue
            share = units.dead_count / units.count
            severity, limit = self._severity(measured, share, enough and found.id not in around)
            where = indexed(found.id, units.dead_indices, units.dead_count)
            message = (
                f"{share:.0%} of its units ({units.dead_count} of {units.count}) are 0 for all "
                f"{measured.sample.samples:,} samples (limit {limit:.0%})"
            )
            yield self.finding(
                severity, where, message, value=share, threshold=limit,
                cause=_cause(found, zeros), about=found.id,
            )  # fmt: skip

    def _severity(
        self, measured: Measurements, share: float, enough: bool
    ) -> tuple[Severity, float]:
        if enough and share >= self.limit("error"):
            return Severity.ERROR, self.limit("error")
        warned = enough and share >= self.limit("warning")
        severity = self.graver(measured) if warned else Severity.INFORMATION
        return severity, self.limit("warning")

    @staticmethod
    def passes() -> tuple[Measurements, ...]:
        return (measured(_relu(0)), measured(site("0/tanh")))

    @staticmethod
    def fails() -> tuple[Measurements, ...]:
        few = SampleInfo("data.npz", 4, 4, False, False)
        return (
            measured(_relu(1)), measured(_relu(7)), measured(_relu(8)),
            measured(_relu(7), skill=poor_skill()),
            measured(_relu(8), sample=few),
            measured(_relu(8), parameters=(parameter("0.weight", weight=weight(init_ratio=0.0)),)),
        )  # fmt: skip


def _cause(found: Site, zeros: Sequence[str]) -> Cause:
    """Weights that are all 0 are what kills the units behind them."""
    return Cause.SMALL_WEIGHTS if set(found.parameters) & set(zeros) else Cause.DEAD_UNITS


def _bypassed(measured: Measurements) -> set[str]:
    """Sites of blocks around which another path leads: what is dead there stops nothing."""
    entries = measured.ledger.entries if measured.ledger is not None else ()
    return {b.site for e in entries if e.bypass for b in e.branches}


def _relu(dead: int) -> Site:
    units = Units(8, None, None, dead, (), tuple(range(dead)))
    return site("0/relu", kind="relu", saturated_fraction=None, units=units)

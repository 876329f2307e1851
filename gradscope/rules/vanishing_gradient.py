"""GS101: the gradient is lost on its way from the output to the first layer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

from gradscope.attribution import (
    LONE,
    attenuation_causes,
    is_scored,
    lone_layer,
    saturation_cause,
    zero_matrices,
)
from gradscope.findings import Cause, Finding, Severity
from gradscope.measurements import Head, Ledger, LedgerEntry, Measurements, Role, Site, State
from gradscope.rules.base import TRIAL, Remedy, Rule, Threshold
from gradscope.rules.examples import chain, measured, parameter, poor_skill, site, weight
from gradscope.typical import typical_gain


class VanishingGradient(Rule):
    """Compares g = min(total, median) of the ledger, in decades."""

    code = "GS101"
    name = "vanishing-gradient"
    summary = "The gradient shrinks by orders of magnitude between the output and the first layer."
    explanation = (
        "g is the smaller of two gains from the last hidden activation to the first, in decades: "
        "the root mean square over samples, and the median. It is measured with random cotangents "
        "at the output, so it says nothing about how far the loss has come down. The ledger of "
        "the report says at which layer the decades are lost, and whether to the weights, the "
        "slope of the activation or its derivative. Lost to the weights of a single layer it is a "
        "warning: that layer's own gradient is not small, so it usually recovers; so it is with a "
        "single matrix of zeros, and information where that is the last one, as some networks "
        "start. Converged networks lose gradient too, and "
        "work: without labels it is a warning. Every head is judged by itself, and named; that "
        "the first one works acquits no other. On a chain the layers are also taken by "
        "themselves: where a signal spread over all directions would pass them, padding and "
        "pooling make g small, and it is a warning; where it would be lost as well, less is an "
        "error."
    )
    thresholds: ClassVar = {
        "total": Threshold(
            -3.0, "decades", "tanh nets of 20 layers: -2.1 trains to .88, -3.1 to .73 (of .96)"
        ),
        "agreed": Threshold(
            0.5, "decades less", "where typical directions are lost, too: 5 nets, all of them stuck"
        ),
        "typical": Threshold(
            -2.0, "decades", "fresh deep softsign CNNs: g -2.7, typical -.7, and they train"
        ),
        "warning": Threshold(-2.0, "decades", "nets of 3 layers with small weights, which recover"),
        "alone": Threshold(
            LONE,
            "share of the loss",
            "one layer's small weights grow back: 12 of 16 such recovered",
        ),
    }
    causes = (
        Cause.DEPTH_GAIN, Cause.SMALL_WEIGHTS, Cause.FLAT_SLOPE, Cause.DEPTH_DERIVATIVE,
        Cause.LARGE_PARAMETERS, Cause.LARGE_INPUTS, Cause.DEAD_UNITS,
    )  # fmt: skip
    remedy = Remedy(
        "Start again with Xavier or orthogonal weights (He for ReLU), a normalisation layer or "
        "skip connections; replace the logistic function by tanh.",
        TRIAL,
    )
    eased = True

    def check(self, measured: Measurements) -> Iterator[Finding]:
        gone = _without_any(measured)
        if gone is not None:
            limit = self.limit("total")
            zeros = zero_matrices(measured)
            single = len(zeros) == 1  # its own gradient is not 0: it grows
            fresh = single and _is_head(measured, zeros[0])
            decides = is_scored(measured) and not single
            severity = Severity.ERROR if decides else Severity.WARNING
            severity = Severity.INFORMATION if fresh else severity
            message = f"no gradient at all arrives here, of any sample (limit {limit:.1f} decades)"
            yield self.finding(
                severity, gone.id, message, threshold=limit,
                cause=_cause_of_nothing(measured, gone), hinges=not fresh, about="no gradient",
            )  # fmt: skip
        yield from self._dead_heads(measured)
        for head in measured.heads:
            g = head.ledger.gain
            error, warning = self._limit(measured, head), self.limit("warning")
            if g is None or g >= max(warning, error):
                continue
            alone = g < error and lone_layer(head.ledger, self.limit("alone"))
            decides = is_scored(measured) and not alone
            severity = Severity.ERROR if g < error and decides else Severity.WARNING
            limit = error if g < error else warning
            entries = [e.label for e in head.ledger.entries]
            where = f"{entries[-1]} ... {entries[0]}" if len(entries) > 1 else head.name
            which = f" for {head.name}" if len(measured.heads) > 1 else ""
            message = f"{g:.1f} decades{which} (limit {limit:.1f})"
            message += f", most of them to the weights of {alone}" if alone else ""
            causes = () if alone else attenuation_causes(measured, head.ledger)
            cause = next(iter(causes), None)
            yield self.finding(
                severity, where, message, value=g, threshold=limit, cause=cause,
                hinges=True, about=head.name,
            )  # fmt: skip

    def _dead_heads(self, measured: Measurements) -> Iterator[Finding]:
        """Heads behind the first one from which no gradient at all comes back."""
        sites = {s.id: s for s in measured.sites}
        for head in measured.heads[1:]:
            known = (sites.get(e.site) for e in head.ledger.entries)
            mine = [s for s in known if s is not None]
            silent = [s for s in mine if s.gradient_state is State.ZERO]
            if head.input_gain is not None or head.ledger.total is not None or not silent:
                continue
            limit = self.limit("total")
            severity = Severity.ERROR if is_scored(measured) else Severity.WARNING
            message = f"no gradient at all comes back from {head.name} (limit {limit:.1f} decades)"
            yield self.finding(
                severity, silent[0].id, message, threshold=limit,
                cause=_cause_of_nothing(measured, silent[0]), hinges=True, about=head.name,
            )  # fmt: skip

    def _limit(self, measured: Measurements, head: Head) -> float:
        """Of g for an error; on the first head's way by what the layers by themselves lose."""
        typical = typical_gain(measured) if head is measured.heads[0] else None
        if typical is None:
            return self.limit("total")
        agreed = typical.total < self.limit("typical")
        return self.limit("total") + self.limit("agreed") if agreed else -math.inf

    @staticmethod
    def passes() -> tuple[Measurements, ...]:
        return (measured(site("0/tanh"), total=-1.9), measured(site("0/tanh"), total=None))

    @staticmethod
    def fails() -> tuple[Measurements, ...]:
        lost = replace(_ENTRY, weight=-4.8, gain=-4.9)
        zeros = parameter("0.weight", weight=weight(init_ratio=0.0))
        head = parameter("9.weight", weight=weight(init_ratio=0.0))
        silent = site("0/tanh", gradient_state=State.ZERO, saturated_fraction=1.0)
        return (
            measured(silent, total=None, skill=poor_skill()),
            measured(silent, total=None, parameters=(zeros,), skill=poor_skill()),
            measured(silent, total=None, parameters=(head,), skill=poor_skill()),
            measured(site("0/tanh"), total=-5.8, skill=poor_skill()),
            measured(site("0/tanh"), total=-5.8),
            measured(site("0/tanh"), total=-2.3),
            measured(silent, heads=_heads(None), skill=poor_skill()),
            measured(site("0/tanh"), heads=_heads(-6.0), skill=poor_skill()),
            chain(0.58, total=-2.7, skill=poor_skill()),
            chain(1.0, total=-3.7, skill=poor_skill()),
            measured(
                site("0/tanh"),
                total=-5.0,
                weight=-4.9,
                entries=(_ENTRY, _ENTRY, lost),
                skill=poor_skill(),
            ),
        )


def _heads(total: float | None) -> tuple[Head, ...]:
    """A head that loses nothing, and one that loses this much."""
    entries = (_ENTRY, replace(_ENTRY, site="2/tanh"))
    found = []
    for name, g in (("output[0]", -0.5), ("output[1]", total)):
        ledger = Ledger(g, 0.02, g, g, 0.0, g, 400, 0, 9, entries, ())
        found.append(Head(name, (100, 10), 0, None, g, ledger))
    return tuple(found)


def _without_any(measured: Measurements) -> Site | None:
    """The first hidden activation, if its gradient is exactly 0 and the ledger has none either."""
    first = next((s for s in measured.sites if s.role is Role.HIDDEN), None)
    if first is None or not measured.heads or measured.heads[0].input_gain is not None:
        return None
    return first if first.gradient_state is State.ZERO else None


def _is_head(measured: Measurements, name: str) -> bool:
    """Whether a matrix feeds no activation, as the last one."""
    return not any(name in s.parameters for s in measured.sites)


def _cause_of_nothing(measured: Measurements, first: Site) -> Cause:
    """Weights that are all 0, saturation to the last bit, else dead units."""
    if zero_matrices(measured):
        return Cause.SMALL_WEIGHTS
    if first.saturated_fraction is None:
        return Cause.DEAD_UNITS
    return saturation_cause(measured, first) or Cause.DEPTH_DERIVATIVE


_ENTRY = LedgerEntry("0/tanh", "0/tanh", "tanh", -0.1, -0.1, 0.0, 0.0, -0.1, -0.1)

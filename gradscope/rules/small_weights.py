"""GS304: weights so small that the signal fades layer after layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from gradscope.attribution import (
    LOST_IN_TIME,
    SMALL_WEIGHT_DECADES,
    is_at_chance,
    recurrent_matrices,
)
from gradscope.findings import Cause, Finding, Severity
from gradscope.measurements import LedgerEntry, Measurements, Parameter, Role
from gradscope.places import listed, plural
from gradscope.rules.base import TRIAL, Remedy, Rule, Threshold
from gradscope.rules.examples import (
    at_chance,
    measured,
    parameter,
    poor_skill,
    site,
    time_ledger,
    weight,
)


class SmallWeights(Rule):
    """Compares weights with a usual start, and the ledger with what they cost."""

    code = "GS304"
    name = "small-weights"
    summary = "The weights are too small: signal and gradient fade layer after layer."
    explanation = (
        "init_ratio is the weights' root mean square over that of a usual start (1 / "
        "sqrt(fan_in), times sqrt 2 before ReLU). Judged are weights that feed hidden "
        "activations; a warning where most of them are small and the ledger shows what it costs: "
        "decades lost to the weights at every layer. Small weights before a normalisation, or in "
        "one layer alone, are information at most. A ledger over skips loses nothing, whatever "
        "the branches do: there it is a warning where hardly anything arrives at their "
        "activations and labelled data show nothing but chance, for the network is then the "
        "identity. Where recurrent matrices alone are small the signal fades in time, which GS104 "
        "finds. In a recurrent layer whose gradient dies in time small weights are an error where "
        "labelled data show that the model does not work."
    )
    thresholds: ClassVar = {
        "init_ratio": Threshold(0.3, "ratio", "torch's own default start has .58 (.41 for ReLU)"),
        "decades": Threshold(
            -SMALL_WEIGHT_DECADES,
            "decades a layer",
            "N(0, .05) loses .9, the default start .28",
        ),
        "share": Threshold(0.5, "share", "of the weights that feed hidden activations"),
        "time": Threshold(LOST_IN_TIME, "decades", "through time, as GS104's total"),
        "signal": Threshold(
            0.1, "root mean square", "of z: N(0, .01) without norms .02; fresh residual nets .4 up"
        ),
    }
    causes = (Cause.SMALL_WEIGHTS,)
    remedy = Remedy(
        "Start again with Xavier or orthogonal weights (He for ReLU); take weight decay away until "
        "the model has learned.",
        TRIAL,
    )
    eased = True

    def check(self, measured: Measurements) -> Iterator[Finding]:
        feeding = _feeding(measured)
        limit = self.limit("init_ratio")
        small = [p for p in feeding if (p.weight.init_ratio or 0.0) < limit]
        if not small or len(small) < self.limit("share") * len(feeding):
            return
        if {p.name for p in small} <= recurrent_matrices(measured):
            return  # what comes in passes; what fades fades in time, which GS104 finds
        lost = _per_layer(measured)
        layers = lost is not None and lost < self.limit("decades")
        idle = is_at_chance(measured) and _idle_branches(measured, self.limit("signal"))
        costly = layers or idle or _dies_in_time(measured, self.limit("time"))
        severity = Severity.WARNING if costly else Severity.INFORMATION
        if costly and not layers and not idle:
            severity = self.graver(measured)
        ratios = sorted(p.weight.init_ratio or 0.0 for p in small)
        middle = ratios[len(ratios) // 2]
        count = plural(len(feeding), "weight matrix")
        message = f"{middle:.2g} x the usual size (limit {limit:.2g}) in {len(small)} of {count}"
        if lost is not None:
            message += f"; {lost:+.2f} decades a layer (limit {self.limit('decades'):.2f})"
        yield self.finding(
            severity,
            listed([p.name for p in small]), message, value=middle, threshold=limit,
            cause=Cause.SMALL_WEIGHTS if costly else None, about="model",
        )  # fmt: skip

    @staticmethod
    def passes() -> tuple[Measurements, ...]:
        return (measured(site("0/tanh"), parameters=(parameter("0.weight"),)),)

    @staticmethod
    def fails() -> tuple[Measurements, ...]:
        gone = time_ledger(total=-22.0)
        tiny = parameter("0.weight", weight=weight(rms=0.05, init_ratio=0.14))
        around = LedgerEntry("0/gelu", "0/gelu", "gelu", 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, bypass=True)
        branch = site("0/gelu", kind="gelu", saturated_fraction=None, pre_activation_rms=0.02)
        return (
            measured(site("0/tanh"), parameters=(tiny,), total=-17.0, weight=-17.0, layers=20),
            measured(site("0/tanh"), parameters=(tiny,), total=None),
            measured(
                site("0/tanh"), parameters=(tiny,), total=None, time=(gone,), skill=poor_skill()
            ),
            measured(branch, parameters=(tiny,), entries=(around, around), skill=at_chance()),
        )


def _feeding(measured: Measurements) -> list[Parameter]:
    """Matrices that feed hidden activations."""
    carrying = (Role.HIDDEN, Role.GATE)
    names = {n for s in measured.sites if s.role in carrying for n in s.parameters}
    matrices = (p for p in measured.parameters if p.weight.init_ratio is not None)
    return [p for p in matrices if p.name in names]


def _idle_branches(measured: Measurements, limit: float) -> bool:
    """Whether a skip leads around every activation of the ledger, and z is tiny at all of them."""
    entries = measured.ledger.entries if measured.ledger is not None else ()
    hidden = [s.pre_activation_rms for s in measured.sites if s.role is Role.HIDDEN]
    around = bool(entries) and all(e.bypass for e in entries)
    return around and bool(hidden) and all(z is not None and z < limit for z in hidden)


def _per_layer(measured: Measurements) -> float | None:
    """Decades that the weights cost at each layer of the ledger."""
    ledger = measured.ledger
    if ledger is None or ledger.weight is None or len(ledger.entries) < 2:
        return None
    return ledger.weight / (len(ledger.entries) - 1)


def _dies_in_time(measured: Measurements, limit: float) -> bool:
    """Whether a recurrent layer loses its gradient on the way back through time."""
    ledgers = measured.ledger.time if measured.ledger is not None else ()
    return any(
        (t.total is None and t.output_at[1] > 0) or (t.total is not None and t.total < limit)
        for t in ledgers
    )

"""GS204: all samples look alike to a layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from gradscope.attribution import lone_layer
from gradscope.findings import Cause, Finding, Severity
from gradscope.measurements import LedgerEntry, Measurements, Role, Site
from gradscope.rules.base import TRIAL, Remedy, Rule, Threshold
from gradscope.rules.examples import measured, site


class ForwardCollapse(Rule):
    """Compares the variance between samples with the mean square of an activation."""

    code = "GS204"
    name = "forward-collapse"
    summary = "An activation is the same for every sample: what follows has nothing to tell apart."
    explanation = (
        "Between-sample variance over mean square of the activation's output, both averaged over "
        "its units. Where it is next to nothing the biases have drowned the input, and the layers "
        "behind see a constant. An error where the activation next to the output is concerned (a "
        "warning where the weights of one layer alone did it: they usually grow back); else "
        "information, since another path may lead around. Unlike a ratio of gradients it "
        "cannot be talked away by moving scale from one layer to the next."
    )
    thresholds: ClassVar = {
        "ratio": Threshold(1e-8, "ratio", "healthy nets 8e-6 and above; deep default starts 1e-11"),
    }
    causes = (Cause.FORWARD_COLLAPSE,)
    remedy = Remedy(
        "Set the biases to 0 and start the weights again with Xavier or orthogonal ones (He for "
        "ReLU); add a normalisation or skip connections.",
        TRIAL,
    )
    eased = True

    def check(self, measured: Measurements) -> Iterator[Finding]:
        limit = self.limit("ratio")
        hidden = [s for s in measured.sites if s.role is Role.HIDDEN]
        low = [s for s in hidden if s.sample_variance_ratio is not None]
        low = [s for s in low if (s.sample_variance_ratio or 0.0) < limit]
        if not low:
            return
        last = _last(measured, hidden)
        through = last is not None and last.id in {s.id for s in low}
        value = last.sample_variance_ratio if through and last else low[0].sample_variance_ratio
        message = f"variance between samples {value:.0e} of the mean square (limit {limit:.0e})"
        if through and last is not None and last.id != low[0].id:
            message += f" at {last.id}; it begins here"
        severity = Severity.INFORMATION
        if through:
            lone = measured.ledger is not None and lone_layer(measured.ledger)
            severity = Severity.WARNING if lone else Severity.ERROR
        yield self.finding(
            severity, low[0].id, message, value=value, threshold=limit,
            cause=Cause.FORWARD_COLLAPSE if through else None, about="model",
        )  # fmt: skip

    @staticmethod
    def passes() -> tuple[Measurements, ...]:
        return (
            measured(site("0/tanh")),
            measured(site("0/tanh", sample_variance_ratio=None)),
        )

    @staticmethod
    def fails() -> tuple[Measurements, ...]:
        low = {"sample_variance_ratio": 1e-9}
        entry = LedgerEntry("2/tanh", "2/tanh", "tanh", None, None, None, None, 0.0, 0.0)
        lost = LedgerEntry("0/tanh", "0/tanh", "tanh", -5.0, -4.9, 0.0, -0.1, -5.0, -5.0)
        tail = (entry, entry, lost)
        return (
            measured(site("0/tanh"), site("2/tanh", **low), entries=(entry, entry)),
            measured(site("0/tanh"), site("2/tanh", **low), entries=tail, total=-5.0),
            measured(site("0/tanh", **low), site("2/tanh"), entries=(entry, entry)),
        )


def _last(measured: Measurements, hidden: list[Site]) -> Site | None:
    """The hidden activation next to the output: by the ledger, else by execution order."""
    entries = measured.ledger.entries if measured.ledger is not None else ()
    if entries:
        return next((s for s in hidden if s.id == entries[0].site), None)
    return hidden[-1] if hidden else None

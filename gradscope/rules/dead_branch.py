"""GS107: a branch that passes next to no gradient beside one that does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from gradscope.findings import Finding, Severity
from gradscope.measurements import LedgerEntry, LocalEntry, Measurements, State
from gradscope.rules.base import Remedy, Rule, Threshold
from gradscope.rules.examples import measured, parameter, site
from gradscope.rules.examples import weight as a_weight


class DeadBranch(Rule):
    """Compares, within one block, the gain into each branch with the block's output."""

    code = "GS107"
    name = "dead-branch"
    summary = "A branch gets next to no gradient beside a live one."
    explanation = (
        "Inside a block with parallel paths the gradient at each branch's activation is compared "
        "with the gradient at the block's output. A dead branch beside a skip connection or a live "
        "sibling does not stop training, but it does not take part in it. Branches that are shut "
        "on purpose (a weight that is exactly 0 at the start) are information."
    )
    thresholds: ClassVar = {
        "gain": Threshold(-3.0, "decades", "healthy residual blocks: -.6 and above"),
    }
    remedy = Remedy(
        "Start the branch again; check the scale of its last weight (or LayerScale) and whether "
        "its activations are dead."
    )
    eased = True

    def check(self, measured: Measurements) -> Iterator[Finding]:
        limit = self.limit("gain")
        for entry in measured.ledger.entries if measured.ledger is not None else ():
            if not _has_live_path(entry, limit):
                continue
            for branch in entry.branches:
                if branch.gain is not None and branch.gain >= limit:
                    continue
                shut = branch.gain is None and _shut_by_design(measured)
                severity = Severity.INFORMATION if shut else Severity.WARNING
                lost = "no gradient" if branch.gain is None else f"{branch.gain:.1f} decades"
                message = f"{lost} beside a live path (limit {limit:.1f})"
                yield self.finding(
                    severity, branch.site, message, value=branch.gain, threshold=limit
                )

    @staticmethod
    def passes() -> tuple[Measurements, ...]:
        live = LocalEntry("a/tanh", -1.1, -0.2, 0.0)
        return (measured(site("a/tanh"), entries=(_entry(live),)),)

    @staticmethod
    def fails() -> tuple[Measurements, ...]:
        dead, gone = LocalEntry("a/tanh", -6.0, -0.2, 0.0), LocalEntry("a/tanh", None, None, 0.0)
        zero = parameter("b.weight", weight=a_weight(state=State.ZERO))
        return (
            measured(site("a/tanh"), entries=(_entry(dead),)),
            measured(site("a/tanh"), entries=(_entry(gone),), parameters=(zero,)),
        )


def _entry(branch: LocalEntry) -> LedgerEntry:
    return LedgerEntry(
        "a/tanh", "a/tanh", "tanh", 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, (branch,), bypass=True
    )


def _has_live_path(entry: LedgerEntry, limit: float) -> bool:
    """A way around the branches, or a branch that is alive."""
    return entry.bypass or any(b.gain is not None and b.gain >= limit for b in entry.branches)


def _shut_by_design(measured: Measurements) -> bool:
    """Some matrix or scale is exactly 0, as zero-initialised branches are."""
    return any(
        p.weight.state is State.ZERO and p.name.endswith("weight") for p in measured.parameters
    )

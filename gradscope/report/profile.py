"""The ledger as rows of a bar profile, alike neighbours folded. Knows no terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gradscope.measurements import Ledger, LedgerEntry

FOLD_FROM = 16  # rows that fit a screen without folding
_KEEP = 2  # rows shown at each end
_ALIKE = 0.35  # decades by which neighbours may differ and still be called alike


@dataclass(frozen=True)
class Row:
    """One row: an entry, or a run of entries that are alike.

    Attributes:
        label: place in the model.
        left: decades left at its input side.
        weight, slope, activation: decades lost so far to each, not below 0.
        gain: of this entry alone.
        folded: number of entries that this row stands for; 0 for a plain one.
    """

    label: str
    left: float | None
    weight: float
    slope: float
    activation: float
    gain: float | None
    folded: int = 0
    note: str = ""


def rows(ledger: Ledger, *, fold: bool) -> list[Row]:
    """Rows from the output's side to the input's.

    What is left is shown for the root mean square or for the median sample, whichever lost more:
    the one that the verdict reads.
    """
    median = ledger.median is not None and ledger.median == ledger.gain
    plain = _accumulate(ledger.entries, median=median)
    if not fold or len(plain) <= FOLD_FROM:
        return plain
    return _fold(plain)


def _accumulate(entries: Sequence[LedgerEntry], *, median: bool) -> list[Row]:
    lost = [0.0, 0.0, 0.0]
    found = []
    for entry in entries:
        for i, part in enumerate((entry.weight, entry.slope, entry.activation)):
            lost[i] -= _bounded(part)
        notes = ["skip connection"] if entry.bypass else []
        if len(entry.branches) > 1:
            notes.append(f"{len(entry.branches)} branches")
        w, s, a = (max(v, 0.0) for v in lost)
        note = ", ".join(notes)
        left = entry.cumulative_median if median else entry.cumulative
        found.append(Row(entry.label, left, w, s, a, entry.gain, note=note))
    return found


def _bounded(decades: float | None) -> float:
    """A part that can be drawn: no float spans more than some 600 decades."""
    known = decades is not None and math.isfinite(decades)
    return min(max(decades or 0.0, -700.0), 700.0) if known else 0.0


def _fold(plain: list[Row]) -> list[Row]:
    """Both ends, what stands out, and the rest by the run."""
    middle = plain[_KEEP:-_KEEP]
    gains = sorted(r.gain for r in middle if r.gain is not None)
    typical = gains[len(gains) // 2] if gains else 0.0
    odd = sorted(
        (r for r in middle if r.gain is not None and abs(r.gain - typical) > _ALIKE),
        key=lambda r: -abs((r.gain or 0.0) - typical),
    )[: FOLD_FROM - 2 * _KEEP - 4]
    found: list[Row] = list(plain[:_KEEP])
    run: list[Row] = []
    for row in middle:
        if any(row is o for o in odd):
            found += _run(run)
            run = []
            found.append(row)
        else:
            run.append(row)
    return [*found, *_run(run), *plain[-_KEEP:]]


def _run(run: list[Row]) -> list[Row]:
    if len(run) < 2:
        return run
    known = [r.gain for r in run if r.gain is not None]
    mean = sum(known) / len(known) if known else None
    last = run[-1]
    label = f"{len(run)} layers alike"
    lost = (last.weight, last.slope, last.activation)
    return [Row(label, last.left, *lost, gain=mean, folded=len(run))]

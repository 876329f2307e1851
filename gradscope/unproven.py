"""Why a repair without labels wrote nothing, and what would help. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

RANK = {"unhealthy": 0, "undetermined": 1, "warning": 2, "healthy": 3}
"""Of verdicts, the worst first."""

TRAINED = ("restart", "standardise")
"""Remedies that are nothing without training: weights drawn anew, and an input standardised while
it is trained on and folded back afterwards."""


@dataclass(frozen=True)
class Tried:
    """One rescaling of a model without labels.

    Attributes:
        remedy: its name.
        drift: of the outputs.
        verdict: afterwards.
    """

    remedy: str
    drift: float
    verdict: str

    def is_better_than(self, verdict: str) -> bool:
        """Whether it is judged better."""
        return RANK[self.verdict] > RANK[verdict]


def why_not(tried: Sequence[Tried], needing: Sequence[str], verdict: str, limit: float) -> str:
    """What was tried, why none of it was written, and the option that helps.

    Args:
        tried: rescalings, none of which is both better and within the limit.
        needing: remedies of the plan that need training.
        verdict: before.
        limit: ``--max-drift``.
    """
    said = ["Not improved: nothing was written."]
    said += [_one(t, verdict, limit) for t in tried]
    if needing:
        said.append(f"{_listed(needing)} would help only with training.")
    elif not tried:
        said.append("No rescaling fits the diagnosis.")
    said.append("Labels in --data let it be trained, and proven on held-out samples.")
    far = [t for t in tried if t.is_better_than(verdict) and limit < t.drift < math.inf]
    if far:
        least = min(far, key=lambda t: t.drift)
        needed = f"{math.ceil(least.drift * 100) / 100:g}"
        said.append(f"--max-drift {needed} writes {least.remedy} as it is, unproven.")
    return " ".join(said)


def _one(t: Tried, verdict: str, limit: float) -> str:
    if not math.isfinite(t.drift):
        return f"{t.remedy} leaves outputs that are not finite."
    moved = f"{t.remedy} moves the outputs by {t.drift:.2g} of their size"
    if t.drift > limit:
        more = f" and would turn {verdict} into {t.verdict}" if t.is_better_than(verdict) else ""
        return f"{moved}, more than {limit:g} (--max-drift){more}."
    return f"{moved}, and the verdict is {t.verdict} after {verdict}: no better."


def _listed(names: Sequence[str]) -> str:
    return " and ".join(names)

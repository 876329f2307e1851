"""Alpha: the activation alpha phi(z / alpha) of Ven and Lederer (arXiv 2106.02260), folded exactly.

With the same alpha everywhere the inner weights of a chain stay: the first W is divided by alpha,
every hidden bias too, and the last W multiplied by it; the file needs no new operator. In sums of
branches, before norms and with shared weights it is folded where the equations of a scale that
passes through have a solution. Elsewhere it stands in the file by itself, or the place is named.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from gradscope.repair.base import Case, Remedy, RemedyError, Result
from gradscope.repair.fold import acted_on, drift_of, fold

DRIFT = 1e-4
"""Difference to alpha phi(z / alpha) over the outputs' size up to which it is rounding."""


@dataclass(frozen=True)
class Alpha(Remedy):
    """Bounded activations of hidden units, wherever their scale can go."""

    alpha: float = 2.0

    name: ClassVar[str] = "alpha"
    summary: ClassVar[str] = "phi to alpha phi(z / alpha), exactly, as in the paper"

    def requires(self, case: Case) -> str | None:
        """A bounded activation."""
        return None if acted_on(case) else "there is no bounded hidden activation, on which it acts"

    def apply(self, case: Case) -> Result:
        """All activations whose scale has a place.

        Raises:
            RemedyError: none has, or what comes out is not what was meant.
        """
        found = fold(case, self.alpha)
        where = f"--method {self.name}"
        if not found.wanted:
            first = found.places[0]
            raise RemedyError(f"cannot be applied: {first.where}: {first.how}", where=where)
        drift = drift_of(case, found)
        if not drift < DRIFT:
            what = f"the outputs would be {drift:.2g} of their size from what they are to be"
            raise RemedyError(what, where=where)
        said = [f"alpha {self.alpha:g} for {len(found.wanted)} activations"]
        # What is not the common case first.
        order = sorted(found.places, key=lambda p: p.state == "folded")
        said += [f"{p.where} {p.state}: {p.how}" for p in order]
        return Result(found.changed, tuple(said), found.places, found.products)

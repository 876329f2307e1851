"""Which remedies fit a diagnosis, the first choice first. Imports no torch.

The table is that of what was measured: a shrink on data for saturated chains, with a refit where
something has been learned; orthogonal factors for what is attenuated and near chance, never for
what has learned; the usual standard deviation where branches or norms forbid a shrink layer by
layer. A restart stands last everywhere: a repair that cannot beat it is none.
"""

from __future__ import annotations

from gradscope.findings import Cause
from gradscope.measurements import Measurements
from gradscope.repair.chain import find_chain
from gradscope.treatment import Planned

LEARNED = 0.1
"""Skill from which there is something to keep."""

_ATTENUATED = (
    Cause.SMALL_WEIGHTS, Cause.DEPTH_GAIN, Cause.DEPTH_DERIVATIVE, Cause.FLAT_SLOPE,
    Cause.FORWARD_COLLAPSE, Cause.VANISHING_THROUGH_TIME, Cause.EXPLODING,
)  # fmt: skip


def make_plan(m: Measurements, causes: tuple[Cause, ...]) -> tuple[Planned, ...]:
    """Remedies to be tried against one another.

    Args:
        m: measured.
        causes: of the diagnosis.
    """
    found: list[Planned] = []
    learned = m.skill is not None and m.skill.value is not None and m.skill.value > LEARNED
    chain = find_chain(m)
    if Cause.LARGE_INPUTS in causes:
        found.append(Planned("standardise", "the scale of the input saturates the first layer"))
    if Cause.LARGE_PARAMETERS in causes:
        if chain.hidden and len(chain.hidden) >= len(chain.outside):
            why = "large weights saturate layers that stand one after the other"
            if learned:
                found.append(Planned("kappa-refit", f"{why}; what was learned is kept"))
            found.append(Planned("kappa", f"{why}; nothing to keep" if not learned else why))
        if chain.outside:
            why = "weights that are large for their shape, behind norms or in branches"
            found.append(Planned("std-restore", why))
    attenuated = [c.value for c in causes if c in _ATTENUATED]
    if attenuated and not learned and chain.links:
        found.append(Planned("polar", f"{attenuated[0]}, and nothing has been learned"))
    found.append(Planned("restart", "what any repair has to beat"))
    return tuple(found)

"""Which remedies fit a diagnosis, the first choice first. Imports no torch.

The table is that of what was measured: a shrink on data for saturated chains, with a refit where
something has been learned; orthogonal factors for what is attenuated and near chance, never for
what has learned; the usual standard deviation where branches or norms forbid a shrink layer by
layer; numbers that are lost and units that are off are replaced; biases that saturate are centred;
gates are shrunk one by one. A restart stands last everywhere: a repair that cannot beat it is none.
"""

from __future__ import annotations

from collections.abc import Iterator

from gradscope.config import FixSettings
from gradscope.errors import OptionError
from gradscope.findings import Cause
from gradscope.measurements import Measurements, Parameter, Role
from gradscope.repair.chain import Link, find_chain
from gradscope.treatment import Planned

LEARNED = 0.1
"""Skill from which there is something to keep."""

_ATTENUATED = (
    Cause.SMALL_WEIGHTS, Cause.DEPTH_GAIN, Cause.DEPTH_DERIVATIVE, Cause.FLAT_SLOPE,
    Cause.FORWARD_COLLAPSE, Cause.VANISHING_THROUGH_TIME, Cause.EXPLODING,
)  # fmt: skip


MOST = 4
"""Remedies that are tried against one another, beside those of :data:`PREPARED`."""

PREPARED = ("standardise", "tanh")
"""What is done first, so that the others work on what it leaves."""

_OFFSET = 0.6
"""Root mean square of a bias over that of its layer's pre-activations from which it may be the bias
that saturates; the remedy itself looks at the data."""

_SHARP = 0.7
"""Share of saturated rows of attention, as in GS207."""

_LARGE = 3.0
"""Times its usual size from which a projection may saturate its attention."""


_RECURRENT = ("LSTM", "GRU", "RNN")

DECAY = 1.0
"""Decoupled decay from which training was measured to end in weights that are too small."""

PULL = 1e-3
"""L2 from which weights that are too small already are not let grow."""


def warnings_of(causes: tuple[Cause, ...], repair: FixSettings) -> tuple[str, ...]:
    """Choices of the user's that were measured to harm such a model."""
    found = []
    strong = f"--regularize {repair.regularize} --strength {repair.strength:g}"
    small = Cause.SMALL_WEIGHTS in causes or Cause.DEPTH_GAIN in causes
    if repair.regularize in ("l2", "l1") and repair.strength >= PULL and small:
        found.append(f"{strong} pulls weights down that are too small already; 1e-4 does not.")
    if repair.regularize == "adamw" and repair.strength >= DECAY:
        found.append(f"{strong} over-shrinks sooner or later under Adam; 1e-2 does not.")
    return tuple(found)


def make_plan(
    m: Measurements, causes: tuple[Cause, ...], rescale: bool = False
) -> tuple[Planned, ...]:
    """Remedies to be tried against one another.

    Args:
        m: measured.
        causes: of the diagnosis.
        rescale: without the restart.

    Raises:
        OptionError: no rescaling fits.
    """
    found: list[Planned] = []
    learned = m.skill is not None and m.skill.value is not None and m.skill.value > LEARNED
    if Cause.NONFINITE in causes:
        found.append(Planned("revive", "numbers that are not finite; the others are kept"))
    elif Cause.DEAD_UNITS in causes:
        found.append(Planned("revive", "units that are off for every sample"))
    if Cause.LARGE_INPUTS in causes:
        found.append(Planned("standardise", "the scale of the input saturates the first layer"))
    if any(s.kind == "sigmoid" and s.role is Role.HIDDEN for s in m.sites):
        found.append(Planned("tanh", "hidden logistic units, whose slope is 1/4 at most"))
    most = MOST + sum(p.remedy in PREPARED for p in found)
    # What was learned on such inputs keeps its saturated layers when these are standardised.
    if Cause.LARGE_PARAMETERS in causes or (Cause.LARGE_INPUTS in causes and learned):
        found += _shrinks(m, learned)
    attenuated = [c.value for c in causes if c in _ATTENUATED]
    if attenuated and not learned:
        if _recurs(m):
            why = f"{attenuated[0]} in a recurrent net, and nothing has been learned"
            found.append(Planned("identity", why))
        elif find_chain(m).links:
            found.append(Planned("polar", f"{attenuated[0]}, and nothing has been learned"))
    if rescale and not found:
        hint = "Name one with --method, or leave --rescale out."
        raise OptionError("no rescaling fits the diagnosis", where="--rescale", hint=hint)
    if rescale:
        return tuple(found[:most])
    return (
        *found[: most - 1],
        Planned("restart", "weights drawn anew: what any repair has to beat"),
    )


def _shrinks(m: Measurements, learned: bool) -> Iterator[Planned]:
    """What makes large parameters smaller, by where they stand."""
    chain = find_chain(m)
    if any(_offset(m, k) for k in chain.hidden):
        yield Planned("centre", "biases as large as all that they are added to saturate a layer")
    if any("BatchNorm" in layer.kind for layer in m.layers):
        yield Planned("batch-norm-fold", "large weights before norms, which hide their scale")
    if _recurs(m):
        yield Planned("kappa-gates", "large weights saturate gates")
    if _is_sharp(m) or any(_attends(p) for p in m.parameters):
        yield Planned("temperature", "large projections saturate attention")
    if chain.hidden and len(chain.hidden) >= len(chain.outside):
        why = "large weights in layers that stand one after the other"
        unknown = m.skill is None
        if learned or unknown:
            kept = "what it computes" if unknown else "what was learned"
            yield Planned("kappa-refit", f"{why}; {kept} is kept")
        yield Planned("kappa", why if learned or unknown else f"{why}; nothing to keep")
    if chain.outside:
        why = "weights that are large for their shape, behind norms or in branches"
        yield Planned("std-restore", why)


def _recurs(m: Measurements) -> bool:
    """By names of weights, which ONNX does not keep, or by the kind of a node."""
    named = any("weight_hh" in p.name for p in m.parameters)
    return named or any(layer.kind in _RECURRENT for layer in m.layers)


def _is_sharp(m: Measurements) -> bool:
    """Whether attention looks at one key nearly everywhere."""
    rows = sum(a.rows for a in m.attention)
    return bool(rows) and sum(a.rows * a.saturated_fraction for a in m.attention) / rows > _SHARP


def _attends(p: Parameter) -> bool:
    ratio = p.weight.init_ratio
    return p.name.endswith("in_proj_weight") and ratio is not None and ratio > _LARGE


def _offset(m: Measurements, link: Link) -> bool:
    site = link.site
    if link.bias is None or site is None or site.pre_activation_rms is None:
        return False
    bias = next((p.weight.rms for p in m.parameters if p.name == link.bias), None)
    return bias is not None and bias > _OFFSET * site.pre_activation_rms

"""Which layers are to blame, read from the measurements. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from gradscope.findings import Cause
from gradscope.measurements import Measurements, Parameter, Role, Site

CHANCE = 0.1
"""Skill below which there is nothing to lose: then the whole network starts again."""

SUSPECT = 0.7
"""Saturated or dead share of an activation from which what feeds it is suspect."""

_WHOLE = frozenset(
    {
        Cause.SMALL_WEIGHTS, Cause.DEPTH_GAIN, Cause.DEPTH_DERIVATIVE, Cause.FLAT_SLOPE,
        Cause.FORWARD_COLLAPSE, Cause.EXPLODING, Cause.VANISHING_THROUGH_TIME,
    }
)  # fmt: skip
"""Causes that lie in all layers together and in none alone."""


@dataclass(frozen=True)
class Feeding:
    """What a weight leads to and what comes into it.

    Attributes:
        parameter: the weight.
        kind: of the activation that it feeds; None for a layer that feeds none, as the last one.
        behind: kind of the hidden activation before it; None for the first layer.
    """

    parameter: Parameter
    kind: str | None
    behind: str | None


@dataclass(frozen=True)
class Vector:
    """A bias, or the scale of a norm, and the number that it starts at."""

    name: str
    start: float


@dataclass(frozen=True)
class Suspects:
    """What a restart would start again.

    Attributes:
        feeding: the weights, in the order of the model.
        vectors: what stands beside them in their layers.
        layers: names of the layers that own them.
        whole: whether these are all layers.
        inputs: whether the scale of the input is to blame.
    """

    feeding: tuple[Feeding, ...]
    vectors: tuple[Vector, ...]
    layers: tuple[str, ...]
    whole: bool
    inputs: bool


def find_suspects(m: Measurements, causes: tuple[Cause, ...]) -> Suspects:
    """The layers whose weights saturate or kill what they feed; all of them where the cause lies in
    all, where nothing has been learned, or where no layer stands out.

    Args:
        m: measured on the model as it is.
        causes: of the first diagnosis.
    """
    matrices = [p for p in m.parameters if len(p.shape) >= 2]
    named = {name for s in _bad(m) for name in s.parameters}
    at_chance = m.skill is None or m.skill.value is None or m.skill.value < CHANCE
    whole = at_chance or bool(_WHOLE & set(causes)) or not named
    kept = frozenset(p.name for p in matrices if whole or p.name in named)
    return suspects_of(m, kept, whole, Cause.LARGE_INPUTS in causes)


def suspects_of(
    m: Measurements, names: Collection[str], whole: bool = False, inputs: bool = False
) -> Suspects:
    """What has to start again with some weights.

    Args:
        m: measured on the model as it is.
        names: of the weights.
        whole: whether these are all layers: then all vectors start again.
        inputs: whether the scale of the input is to blame.
    """
    feeds, kinds = _feeds(m), {layer.name: layer.kind for layer in m.layers}
    kept = [p for p in m.parameters if p.name in names]
    layers = tuple(dict.fromkeys(p.layer for p in kept))
    vectors, seen = [], set[str]()
    for p in m.parameters:
        if len(p.shape) == 1 and (whole or p.layer in layers):
            kind = kinds.get(p.layer, "")
            vectors.append(Vector(p.name, _start(p, kind, first=p.layer not in seen)))
            seen.add(p.layer)
    feeding = tuple(Feeding(p, *feeds.get(p.name, (None, None))) for p in kept)
    return Suspects(feeding, tuple(vectors), layers, whole, inputs)


def _start(p: Parameter, kind: str, first: bool) -> float:
    """Of a bias 0, of a slope that is trained torch's 1/4, of the scale of a norm 1: by its name,
    or in ONNX, which may keep none, as the first of its node."""
    own = p.name.rpartition(".")[2]
    if kind.lower() == "prelu":
        return 0.25
    named = own.startswith("weight") or own in ("gamma", "scale")
    return float(named or (first and (kind == "Mul" or kind.endswith("Normalization"))))


def _bad(m: Measurements) -> Iterator[Site]:
    for site in m.sites:
        hidden = site.role is Role.HIDDEN
        saturated = hidden and (site.saturated_fraction or 0.0) > SUSPECT
        if saturated or (site.role in (Role.HIDDEN, Role.GATE) and _dead(site) > SUSPECT):
            yield site


def _dead(site: Site) -> float:
    units = site.units
    if units is None or not units.count or units.dead_count is None:
        return 0.0
    return units.dead_count / units.count


def _feeds(m: Measurements) -> dict[str, tuple[str | None, str | None]]:
    """name of a weight -> (kind of the activation that it feeds, kind of the one before)."""
    found: dict[str, tuple[str | None, str | None]] = {}
    before: str | None = None
    for site in m.sites:
        if site.role is Role.OUTPUT:
            continue
        for name in site.parameters:
            found.setdefault(name, (site.kind, before))
        if site.role is Role.HIDDEN:
            before = site.kind
    for parameter in m.parameters:
        found.setdefault(parameter.name, (None, before))
    return found

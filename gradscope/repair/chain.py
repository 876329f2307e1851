"""The layers of a model as remedies see them: a weight, its bias, the activation that it feeds."""

from __future__ import annotations

from dataclasses import dataclass

from gradscope.measurements import Measurements, Parameter, Role, Site


@dataclass(frozen=True)
class Link:
    """One layer.

    Attributes:
        weight: name of the matrix or the filters.
        bias: name of the vector that is added; None if there is none.
        site: the hidden activation that it alone feeds; None for a layer that feeds none.
    """

    weight: str
    bias: str | None
    site: Site | None


@dataclass(frozen=True)
class Chain:
    """The layers in the order of the model.

    Attributes:
        links: with one weight each, directly before its activation, and the last ones before none.
        outside: weights that are not so, and why: sums of branches, norms in between, recurrence.
    """

    links: tuple[Link, ...]
    outside: tuple[tuple[str, str], ...]

    @property
    def hidden(self) -> tuple[Link, ...]:
        """Those that feed an activation."""
        return tuple(link for link in self.links if link.site is not None)

    @property
    def last(self) -> tuple[Link, ...]:
        """Those that feed none: the model's outputs."""
        return tuple(link for link in self.links if link.site is None)


def find_chain(m: Measurements) -> Chain:
    """What of a model can be repaired layer by layer."""
    parameters = {p.name: p for p in m.parameters}
    matrices = [p for p in m.parameters if len(p.shape) >= 2 and p.fan_in is not None]
    feeds: dict[str, list[Site]] = {p.name: [] for p in matrices}
    for site in m.sites:
        for name in site.parameters:
            if name in feeds:
                feeds[name].append(site)
    links, outside = [], []
    for p in sorted(matrices, key=lambda p: _place(m, feeds[p.name])):
        reason = _reason(p, feeds[p.name], parameters)
        if reason is not None:
            outside.append((p.name, reason))
            continue
        fed = feeds[p.name][0] if feeds[p.name] else None
        links.append(Link(p.name, _bias(p, parameters), fed))
    return Chain(tuple(links), tuple(outside))


def _place(m: Measurements, sites: list[Site]) -> int:
    order = {s.id: i for i, s in enumerate(m.sites)}
    return min((order[s.id] for s in sites), default=len(order))


def _reason(p: Parameter, sites: list[Site], parameters: dict[str, Parameter]) -> str | None:
    """Why a weight is no link; None if it is one."""
    if not sites:
        return None
    if len(sites) > 1:
        return "feeds several activations"
    site = sites[0]
    if site.role is not Role.HIDDEN:
        return f"feeds a {site.role.value}"
    others = [n for n in site.parameters if n != p.name and n != _bias(p, parameters)]
    if any(len(parameters[n].shape) >= 2 for n in others if n in parameters):
        return "is not alone before its activation"
    if others:
        return f"has {others[0]} between it and its activation"
    return None


def _bias(p: Parameter, parameters: dict[str, Parameter]) -> str | None:
    owned = [
        q.name
        for q in parameters.values()
        if q.layer == p.layer and len(q.shape) == 1 and q.shape[0] == p.shape[0]
    ]
    return owned[0] if len(owned) == 1 and "bias" in owned[0].lower() else None

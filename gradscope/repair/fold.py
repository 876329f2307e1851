"""Scales at activations folded into the parameters around them, exactly, as far as that goes.

Every bounded hidden activation phi is to run as alpha phi(z / alpha). Where the equations of
``exponents`` allow it, 1/alpha and alpha go into parameters; where they do not, they stand in the
file as products of their own if its form can hold them, and else the activation stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from torch.utils._pytree import tree_leaves

from gradscope.fusion import switched_off_fusion
from gradscope.measurements import Role, Site
from gradscope.repair.base import Case, Tensors
from gradscope.repair.exponents import Solution, Sum, plus
from gradscope.repair.homogeneous import ACTS
from gradscope.repair.scale_flow import Flow, ScaleFlow, switches_of
from gradscope.treatment import Placed

FEW = 8
"""Samples on which a model is read."""

CHECKED = 64
"""Samples on which the folded model is compared with the one that it is to be."""

_NAMES = 3

Factors = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Folded:
    """A scale at every activation that can have one.

    Attributes:
        changed: parameters and running statistics by name.
        places: what became of each activation.
        wanted: site -> (1/alpha, alpha) of all that have a scale now.
        explicit: site -> what of it stands in the file as a product of its own.
        products: the same, by the nodes of the file.
    """

    changed: Tensors
    places: tuple[Placed, ...]
    wanted: dict[str, tuple[float, float]]
    explicit: dict[str, tuple[float, float]]
    products: dict[str, tuple[float, float]]


def acted_on(case: Case) -> list[Site]:
    """Bounded activations of hidden units, in the order of the model."""
    kinds = {*ACTS.values(), "relu6", "softsign"}
    return [
        s for s in case.measured.sites
        if s.role is Role.HIDDEN and s.saturated_fraction is not None and s.kind in kinds
    ]  # fmt: skip


def read_flow(case: Case, apart: frozenset[str] = frozenset()) -> Flow:
    """How scales pass through the model; ``apart`` as in :class:`ScaleFlow`."""
    flow = _run(case, FEW, apart).flow
    own = {*case.tensors, *case.buffers}
    for name in flow.uses.keys() - own:
        flow.equations.add({name: Fraction(1)}, f"{name} is to stay as it is")
    seen = {name for name, _ in flow.seen}
    for site in acted_on(case):
        if site.id in seen:
            flow.equations.switches += dict.fromkeys(switches_of(site.id, site.id in apart))
    return flow


def fold(case: Case, alpha: float) -> Folded:
    """alpha phi(z / alpha) for all activations that can have it."""
    nodes = _run(case, FEW).nodes if case.explicit is not None else {}
    flow = read_flow(case, frozenset(nodes))
    solution = flow.equations.solve()
    found = Folded(_values(case, flow, solution, alpha), (), {}, {}, {})
    for site in acted_on(case):
        pair = switches_of(site.id, site.id in nodes)
        before, behind = (s in solution.switched for s in pair)
        how = _how(solution, pair, alpha)
        if site.id in nodes and not (before and behind):
            rest = (1.0 if before else 1 / alpha, 1.0 if behind else alpha)
            found.explicit[site.id] = rest
            found.products.update(dict.fromkeys(nodes[site.id], rest))
            why = _why(flow, solution, pair)
            products = " and ".join(_number(f) for f in rest if f != 1)
            how = f"times {products} as a product of its own, for {why}" + (how and f"; {how}")
        if (before and behind) or site.id in nodes:
            found.wanted[site.id] = (1 / alpha, alpha)
        state = "folded" if before and behind else "explicit" if site.id in nodes else "left"
        how = how if state != "left" else _why(flow, solution, pair)
        found = replace(found, places=(*found.places, Placed(site.id, state, how)))
    return found


def drift_of(case: Case, found: Folded) -> float:
    """By how much of their size the outputs of the folded model are from alpha phi(z / alpha)."""
    meant = _run(case, CHECKED, factors=found.wanted).outputs
    with case.with_tensors(found.changed):
        made = _run(case, CHECKED, factors=found.explicit).outputs
    pairs = list(zip(meant, made, strict=True))
    off = sum(float((b.double() - a.double()).square().sum()) for a, b in pairs)
    size = sum(float(a.double().square().sum()) for a, _ in pairs)
    return float((off / max(size, 1e-30)) ** 0.5)


@dataclass(frozen=True)
class _Seen:
    """One call: how scales pass, what came out, and which nodes of the file an activation is."""

    flow: Flow
    outputs: list[torch.Tensor]
    nodes: dict[str, list[str]]


def _run(
    case: Case,
    samples: int,
    apart: frozenset[str] = frozenset(),
    factors: Factors | None = None,
) -> _Seen:
    module, batch = case.trainee.module, case.data.few(samples)
    every = dict(module.named_parameters()), dict(module.named_buffers())
    sites = {(s.kind, frozenset(s.parameters)): s.id for s in acted_on(case)}
    reader = ScaleFlow(*every, sites, apart, factors)
    case.trainee.set_training(False)
    result = None
    # With gradients: without them attention runs as one operation.
    with torch.enable_grad(), switched_off_fusion(), _nodes(case, reader) as nodes:
        if batch is not None:
            with reader:
                result = case.trainee.whole(batch)
    leaves = [t for t in tree_leaves(result) if isinstance(t, torch.Tensor)]
    outputs = [t.detach() for t in leaves if t.is_floating_point()]
    return _Seen(reader.ends(leaves), outputs, nodes)


@contextmanager
def _nodes(case: Case, reader: ScaleFlow) -> Iterator[dict[str, list[str]]]:
    """Site -> the nodes that it is, where a file has nodes; filled inside."""
    found: dict[str, list[str]] = {}
    if case.explicit is None:
        yield found
        return

    claimed: set[int] = set()

    def told(where: str, output: torch.Tensor) -> None:
        site, place = reader.site_of(output), output.untyped_storage().data_ptr()
        if site is None or place in claimed:  # what only looks at it comes later
            return
        claimed.add(place)
        if where not in found.setdefault(site, []):
            found[site].append(where)

    case.explicit.watch(told)
    try:
        yield found
    finally:
        case.explicit.watch(None)


def _values(case: Case, flow: Flow, solution: Solution, alpha: float) -> dict[str, torch.Tensor]:
    """Parameters and running statistics times the powers of alpha that they take."""
    powers = solution.powers
    changed = {}
    for name in powers.keys() & {*case.tensors, *case.buffers}:
        own = case.own(name).detach()
        changed[name] = (own.double() * alpha ** float(powers[name])).to(own.dtype)
    for norm in flow.norms:
        if norm.mean in powers:
            own = case.buffers[norm.variance].detach()
            factor = alpha ** float(2 * powers[norm.mean])
            changed[norm.variance] = ((own.double() + norm.eps) * factor - norm.eps).to(own.dtype)
    return changed


def _how(solution: Solution, pair: tuple[str, str], alpha: float) -> str:
    """Into what the scale of one activation goes: ``1/2 into a, b; 2 into c``."""
    share: Sum = {}
    for switch in dict.fromkeys(pair):
        share = plus(share, solution.shares.get(switch, {}))
    groups: dict[Fraction, list[str]] = {}
    for name, power in share.items():
        groups.setdefault(power, []).append(name)
    if not groups and set(pair) & solution.switched:
        return "with another activation of the same scale"
    return "; ".join(
        f"{_number(alpha ** float(power))} into {_some(names)}"
        for power, names in sorted(groups.items())
    )


def _some(names: list[str]) -> str:
    real = [n for n in names if not n.startswith("zeros ")]
    more = f" and {len(real) - _NAMES} more" if len(real) > _NAMES else ""
    return ", ".join(real[:_NAMES]) + more


def _number(value: float) -> str:
    return f"1/{1 / value:g}" if value < 1 and abs(1 / value - round(1 / value)) < 1e-9 else \
        f"{value:.4g}"  # fmt: skip


def _why(flow: Flow, solution: Solution, pair: tuple[str, str]) -> str:
    """What kept a scale from being folded."""
    if not any(s in flow.equations.switches for s in pair):
        return "its operation was not recognised"
    found = [w for s in dict.fromkeys(pair) for w in solution.why.get(s, ())]
    what = ", ".join(dict.fromkeys(found)) or "the parameters that it shares with others"
    return f"no weight can take its scale: {what}"

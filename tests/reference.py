"""Every measured quantity again, from its definition: naive autograd in float64, sample by sample.

Shares nothing with the probe but the random cotangents. A model says itself what its activations
are, by calling :meth:`Tape.act` wherever it applies one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from gradscope.probe.cotangents import unit_cotangent
from gradscope.probe.layout import BatchLayout

SLOPES = {
    "sigmoid": 0.25, "hardsigmoid": 1 / 6, "erf": 2 / math.sqrt(math.pi),
    "selu": 1.0507009873554805 * 1.6732632423543772,
}  # fmt: skip
RELU_LIKE = {"relu", "relu6", "leaky_relu", "gelu", "silu", "mish", "hardswish", "threshold"}
BOUNDED = {"tanh", "sigmoid", "softsign", "atan", "erf", "hardtanh", "hardsigmoid"}


@dataclass
class Act:
    """One call of an activation: pre-activation and output, both in the graph."""

    site: str
    kind: str
    z: torch.Tensor
    a: torch.Tensor


@dataclass
class Tape:
    """Writes down activations as a model runs."""

    acts: list[Act] = field(default_factory=list)

    def act(
        self, site: str, kind: str, f: Callable[[torch.Tensor], torch.Tensor], z: torch.Tensor
    ) -> torch.Tensor:
        """Apply ``f`` to a private copy of ``z``: its gradient is that of this use alone."""
        own = z.clone()
        own.retain_grad()
        a = f(own)
        a.retain_grad()
        self.acts.append(Act(site, kind, own, a))
        return a


def phi_prime(act: Act) -> torch.Tensor:
    """phi'(z) by autograd, elementwise."""
    z = act.z.detach().clone().requires_grad_()
    fn = {
        "tanh": torch.tanh, "sigmoid": torch.sigmoid, "softsign": torch.nn.functional.softsign,
        "atan": torch.atan, "erf": torch.erf, "hardtanh": torch.nn.functional.hardtanh,
        "hardsigmoid": torch.nn.functional.hardsigmoid, "relu": torch.relu,
    }[act.kind]  # fmt: skip
    return torch.autograd.grad(fn(z).sum(), z)[0]


@dataclass
class Reference:
    """Norms per sample and draw, by site: ``pre`` = |dL/dz|, ``out`` = |dL/da|, shape (n, K)."""

    tape: Tape
    pre: dict[str, np.ndarray]
    out: dict[str, np.ndarray]
    kinds: dict[str, str]
    gradients: dict[str, torch.Tensor]
    samples: int
    draws: int


Model = Callable[[torch.Tensor, Tape], torch.Tensor]


def run(
    model: Model,
    parameters: dict[str, torch.nn.Parameter],
    x: torch.Tensor,
    *,
    draws: int = 4,
    layout: BatchLayout | None = None,
) -> Reference:
    """Gradients of every draw, one backward pass each; per-sample norms by plain slicing."""
    n = len(x)
    sites: dict[str, list[int]] = {}
    pre: dict[str, np.ndarray] = {}
    out: dict[str, np.ndarray] = {}
    totals = {name: torch.zeros_like(p) for name, p in parameters.items()}
    tape = Tape()
    for draw in range(draws):
        tape = Tape()
        y = model(x, tape)
        v = unit_cotangent(
            tuple(y.shape), layout or BatchLayout(0), seed=0, head=0, draw=draw, start=0, samples=n
        ).to(y.dtype)
        for p in parameters.values():
            p.grad = None
        (y * v).sum().backward()
        for name, p in parameters.items():
            if p.grad is not None:
                totals[name] += p.grad
        sites = {}
        for i, act in enumerate(tape.acts):
            sites.setdefault(act.site, []).append(i)
        for site, calls in sites.items():
            pre.setdefault(site, np.zeros((n, draws)))
            out.setdefault(site, np.zeros((n, draws)))
            for s in range(n):
                pre[site][s, draw] = math.sqrt(
                    sum(float(tape.acts[i].z.grad[s].square().sum()) for i in calls)
                )
                out[site][s, draw] = math.sqrt(
                    sum(float(tape.acts[i].a.grad[s].square().sum()) for i in calls)
                )
    scale = 1 / math.sqrt(n * draws)
    gradients = {name: t * scale for name, t in totals.items()}
    kinds = {a.site: a.kind for a in tape.acts}
    return Reference(tape, pre, out, kinds, gradients, n, draws)


@dataclass(frozen=True)
class Chain:
    """The ledger of a chain, straight from its definition."""

    total: float
    total_error: float
    median: float
    weight: list[float]
    slope: list[float]
    activation: list[float]
    cumulative: list[float]


def _median(over: np.ndarray, under: np.ndarray) -> float:
    """Median of log10 ratios; 0 over something is -inf and takes part, 0 below does not."""
    known = under > 0
    with np.errstate(divide="ignore"):
        return float(np.median(np.log10(over[known] / under[known])))


def chain(reference: Reference, order: list[str]) -> Chain:
    """``order``: sites from the first (input's side) to the last."""
    pre, out = reference.pre, reference.out
    first, last = pre[order[0]], pre[order[-1]]
    usable = last > 0  # a sample whose last site is dead has no ratio
    gain = np.where(usable, first / np.where(usable, last, 1), np.nan)
    per_draw = 0.5 * np.log10(np.nanmean(gain**2, axis=0))
    w, s, a, c = [], [], [], []
    for here, nearer in zip(order[-2::-1], order[:0:-1], strict=True):
        slope = SLOPES.get(reference.kinds[here], 1.0)
        shift = math.log10(math.sqrt(2)) if reference.kinds[here] in RELU_LIKE else 0.0
        w.append(_median(out[here][usable], pre[nearer][usable]) - shift)
        s.append(math.log10(slope))
        a.append(_median(pre[here][usable], slope * out[here][usable]) + shift)
        ratio = pre[here][usable] / last[usable]
        c.append(float(0.5 * np.log10((ratio**2).mean())))
    return Chain(
        float(0.5 * np.log10(np.nanmean(gain**2))),
        float(per_draw.std(ddof=1) / math.sqrt(reference.draws)),
        _median(first[usable], last[usable]),
        w, s, a, c,
    )  # fmt: skip


def saturated(act: Act) -> torch.Tensor:
    """Where the relative derivative is below a tenth."""
    return phi_prime(act) / SLOPES.get(act.kind, 1.0) < 0.1


def variance_ratio(a: torch.Tensor) -> float:
    """Between-sample variance over mean square."""
    return float(a.var(dim=0, correction=0).mean() / a.square().mean())

"""A sweep over the sample: forward, K backward passes, and what they show, merged over batches."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.autograd.graph import GradientEdge

from gradscope.model import Batch, Sample
from gradscope.probe.arriving import Take, taken_by
from gradscope.probe.backward import Listener, joint, scaled
from gradscope.probe.calibrate import Axes
from gradscope.probe.cotangents import unit_cotangent
from gradscope.probe.elements import ElementPlan, below_has_parameters
from gradscope.probe.engine import accumulate
from gradscope.probe.forward import ForwardPass, run_forward
from gradscope.probe.inputs import add_batch
from gradscope.probe.layout import BatchLayout, guess
from gradscope.probe.ledger import RELU_SHARE, Branch, Element, Trace
from gradscope.probe.places import check_places
from gradscope.probe.plans import HeadPlan
from gradscope.probe.sites import SiteInfo
from gradscope.probe.stats import ForwardStats, PerSample
from gradscope.probe.subject import Subject, models_code
from gradscope.probe.sums import SiteSums, Sums
from gradscope.probe.targets import PAYS_FROM, activation_targets
from gradscope.progress import Progress

_TOGETHER = 256  # calls whose gradients are summed up at once


class Sweep:
    """Runs a model over a sample; gathers :class:`Sums`, and parameter gradients in ``.grad``.

    Args:
        subject: the model, gradients required.
        axes: from the calibration.
        draws: which random cotangents.
        seed: of the cotangents.
        take: gets the parameters' gradients instead of ``.grad``, if one pass makes them; only for
            samples of one batch.
    """

    def __init__(
        self,
        subject: Subject,
        axes: Axes,
        *,
        draws: Sequence[int],
        seed: int,
        take: Take | None = None,
    ) -> None:
        self._subject, self._axes = subject, axes
        self._draws, self._seed, self._take = draws, seed, take
        self._structure = axes.structure
        self.sums = Sums()

    def over(self, sample: Sample, progress: Progress) -> Sums:
        """All batches.

        Raises:
            ScatteredError: samples do not lie where they were found to lie.
        """
        for batch in sample.batches():
            self.batch(batch)
            progress.advance(batch.size)
        self.sums.settle()
        return self.sums

    def batch(self, batch: Batch) -> None:
        """One batch."""
        run = run_forward(
            self._subject,
            batch,
            self._axes.plan_of(batch.size),
            measure=True,
            known=self._structure,
        )
        self._structure = run.structure
        if not self._axes.coupled:
            check_places(run, self._axes, batch)
        sums = self.sums
        sums.shapes = sums.shapes or [tuple(head.shape) for head in run.heads]
        sums.first = sums.first or batch.size
        sums.samples += batch.size
        sums.batches += 1
        sums.forward_passes += 1
        channels = bool(run.sites) and run.sites[0].unit_axis != -1
        add_batch(sums.inputs, batch, channels=channels)
        plans = run.structure.plans
        targets = self._targets(run, plans)
        listeners = [
            self._backward(run, plans, head, batch, targets) for head in range(len(run.heads))
        ]
        if targets is not None:
            self._to_parameters(run, batch)
        self._subject.make_gradients_dense()
        self._gather_sites(run, listeners)
        for head, (plan, listener) in enumerate(zip(plans, listeners, strict=True)):
            trace = _trace(run, plan, listener)
            if head < len(sums.traces):
                sums.traces[head] = sums.traces[head].merge(trace)
            else:
                sums.traces.append(trace)

    def _independent(self, batch: Batch) -> int:
        """Samples that can be told apart."""
        return 1 if self._axes.coupled else batch.size

    def _targets(self, run: ForwardPass, plans: Sequence[HeadPlan]) -> list[GradientEdge] | None:
        """Where the passes of the draws may end; None if they go on to the parameters."""
        if len(self._draws) < PAYS_FROM or not self._parameters():
            return None
        return activation_targets(run, (cut for plan in plans for cut in plan.cuts))

    def _backward(
        self,
        run: ForwardPass,
        plans: Sequence[HeadPlan],
        head: int,
        batch: Batch,
        targets: list[GradientEdge] | None,
    ) -> Listener:
        n = self._independent(batch)
        listener = Listener(run.graph, n, self._layouts(run, n))
        listener.listen(run.record_of, plans[head].cuts)
        wanted = targets or self._wanted(run)
        only = len(self._draws) == len(run.heads) == 1  # this pass makes all of the gradients
        take = self._take if only and targets is None else None
        try:
            for draw in self._draws:
                last = draw == self._draws[-1] and head == len(run.heads) - 1
                cotangent = self._cotangent(run, head, draw, batch)
                keep = not last or targets is not None
                with taken_by(take, self._subject.names.tensors):
                    self._pass(run, {head: cotangent}, wanted, keep=keep)
                listener.end_draw()
        finally:
            listener.close()
        listener.settle()
        return listener

    def _to_parameters(self, run: ForwardPass, batch: Batch) -> None:
        """All heads and draws in one pass."""
        sums = {
            head: sum(self._cotangent(run, head, draw, batch).double() for draw in self._draws)
            for head in range(len(run.heads))
        }
        with taken_by(self._take, self._subject.names.tensors):
            self._pass(run, sums, self._parameters(), keep=False)

    def _pass(
        self, run: ForwardPass, cotangents: Mapping[int, Any], wanted: Sequence[Any], *, keep: bool
    ) -> None:
        """One backward pass from some heads."""
        edges = [run.heads[head].edge for head in cotangents]
        metas = [edge.node._input_metadata[edge.output_nr] for edge in edges]
        values = [
            v.to(meta.dtype).to(meta.device)
            for v, meta in zip(cotangents.values(), metas, strict=True)
        ]
        with models_code("the backward pass failed"):
            accumulate(edges, values, wanted, keep=keep)
        self.sums.backward_passes += 1

    def _cotangent(self, run: ForwardPass, head: int, draw: int, batch: Batch) -> torch.Tensor:
        shape, n = run.heads[head].shape, self._independent(batch)
        if self._axes.single:
            return torch.ones(shape)
        layout = self._head_layout(head, shape, n)
        return unit_cotangent(
            shape, layout, seed=self._seed, head=head, draw=draw, start=batch.start, samples=n
        )

    def _parameters(self) -> list[torch.Tensor]:
        return [p for p in self._subject.names.tensors.values() if p.requires_grad and p.is_leaf]

    def _wanted(self, run: ForwardPass) -> list[torch.Tensor]:
        """Where gradients must arrive: parameters; the input only if an activation stands before
        all of them, since its gradient costs a product that training does not need."""
        wanted = self._parameters()
        if any(not below_has_parameters(run.graph, node) for node in run.record_of):
            wanted += list(run.leaves)
        return wanted or list(run.leaves)

    def _head_layout(self, head: int, shape: tuple[int, ...], n: int) -> BatchLayout:
        known = self._axes.heads[head] if head < len(self._axes.heads) else None
        fitted = known.refit(shape, n) if known is not None and not self._axes.coupled else None
        return fitted or guess(shape, n) or BatchLayout(0)

    def _layouts(self, run: ForwardPass, n: int) -> Any:
        by_node = {
            call.node: self._axes.sites.get(site.id) for site in run.sites for call in site.calls
        }

        fitted: dict[tuple[BatchLayout, tuple[int, ...]], BatchLayout | None] = {}

        def layout(node: int, shape: tuple[int, ...]) -> BatchLayout | None:
            known = by_node.get(node)
            if known is None or self._axes.coupled:
                return None
            if (known, shape) not in fitted:
                fitted[known, shape] = known.refit(shape, n)
            return fitted[known, shape]

        return layout

    def _gather_sites(self, run: ForwardPass, listeners: Sequence[Listener]) -> None:
        loops = run.structure.loops
        arrived = [
            [joint(at.pre(call.node) for at in listeners) for call in site.calls]
            for site in run.sites
        ]
        energies = iter(_energies([part for parts in arrived for part in parts]))
        for site, parts in zip(run.sites, arrived, strict=True):
            every = [run.records[run.record_of[call.node]].stats for call in site.calls]
            mine = add_forward(self.sums, site, every, loops=site.id in loops)
            for i in range(len(parts)):
                _put(mine.energy, i, next(energies), operator.add)
            _add_squares(mine, parts, apart=not self._axes.coupled)


def _energies(arrived: Sequence[PerSample | None]) -> list[float]:
    """Sum over samples and draws of each, 0 where nothing arrived; many at a time, not all."""
    found = [0.0] * len(arrived)
    known = [(i, part.whole()) for i, part in enumerate(arrived) if part is not None]
    for start in range(0, len(known), _TOGETHER):
        some = known[start : start + _TOGETHER]
        sums = torch.stack([squares for _, squares in some]).sum(dim=(1, 2)).tolist()
        for (i, _), value in zip(some, sums, strict=True):
            found[i] = value
    return found


def _add_squares(mine: SiteSums, arrived: Sequence[PerSample | None], *, apart: bool) -> None:
    """The gradients of one more batch, one entry a call; ``apart``: samples can be told apart."""
    known = [part.whole() for part in arrived if part is not None]
    if not known:
        return
    mine.reached = True
    mine.count += known[0].numel()
    if apart:
        mine.squares = mine.squares.merge(PerSample((sum(known[1:], known[0]),)))


def add_forward(
    sums: Sums, site: SiteInfo, calls: Sequence[ForwardStats], *, loops: bool
) -> SiteSums:
    """What the calls of a site showed in one more batch; returns all that is known of the site."""
    mine = sums.sites.setdefault(site.id, SiteSums(site))
    mine.loops = mine.loops or loops
    alone = len(calls) == 1 and _is_only(mine)
    for i, stats in enumerate(calls):
        _put(mine.calls, i, stats, ForwardStats.merge)
    if alone:  # what its only call showed is what it showed
        mine.forward = mine.calls[0]
    else:
        mine.forward = mine.forward.merge(ForwardStats.over_calls(calls))
    return mine


def _is_only(mine: SiteSums) -> bool:
    return not mine.calls or (len(mine.calls) == 1 and mine.calls[0] is mine.forward)


def _put(into: list[Any], index: int, value: Any, merge: Any) -> None:
    if index < len(into):
        into[index] = merge(into[index], value)
    else:
        into.append(value)


def _trace(run: ForwardPass, plan: HeadPlan, listener: Listener) -> Trace:
    """Elements of one head in one batch; those without a gradient are left out."""
    site_of = {call.node: site for site in run.sites for call in site.calls}
    elements: dict[str, Element] = {}
    seen: dict[str, int] = {}
    for planned in plan.elements:
        element = _element(planned, site_of, listener)
        if element is not None:
            seen[element.site] = seen.get(element.site, 0) + 1
            elements[f"{element.site}@{seen[element.site]}"] = element
    return Trace(elements, plan.counted)


def _element(
    plan: ElementPlan, site_of: Mapping[int, SiteInfo], listener: Listener
) -> Element | None:
    if len(plan.sites) == 1 and not plan.carried and plan.ends is None:
        return _single(plan, site_of, listener)
    sites = [site_of[n] for n in plan.sites]
    pre = joint([*(listener.pre(n) for n in plan.sites), *(listener.pre(n) for n in plan.carried)])
    carried = [listener.pre(n) for n in plan.carried]
    out = joint([*(listener.out(n) for n in plan.sites), *carried])
    slopes = [scaled(listener.out(n), site_of[n].kind.slope) for n in plan.sites]
    sloped = joint([*slopes, *carried])
    if plan.ends is not None:
        start, end = plan.ends
        pre = (listener.cut(start) if start is not None else None) or pre
        out = listener.cut(end) or out
    if pre is None or out is None or sloped is None:
        return None
    names = sorted({s.id for s in sites})  # whichever branch ran first
    kinds = {s.kind.name for s in sites}
    relu = [s.kind.relu_like for s in sites]
    single = len(names) == 1 and plan.ends is None
    return Element(
        site=names[0],
        label=_label(names),
        kind=kinds.pop() if single or len(kinds) == 1 else "block",
        inner=pre,
        outer=out,
        sloped=sloped,
        relu_share=RELU_SHARE if all(relu) and plan.ends is None else 0.0,
        attributable=plan.ends is None,
        branches=_branches(plan, site_of, listener) if not single else (),
        bypass=plan.bypass,
    )


def _single(
    plan: ElementPlan, site_of: Mapping[int, SiteInfo], listener: Listener
) -> Element | None:
    """Of one activation that stands alone, as on a chain."""
    (node,) = plan.sites
    site, pre, out = site_of[node], listener.pre(node), listener.out(node)
    sloped = scaled(out, site.kind.slope)
    if pre is None or out is None or sloped is None:
        return None
    share = RELU_SHARE if site.kind.relu_like else 0.0
    return Element(site.id, site.id, site.kind.name, pre, out, sloped, share, bypass=plan.bypass)


def _label(names: Sequence[str]) -> str:
    shown = " + ".join(names[:2])
    return shown if len(names) <= 2 else f"{shown} + {len(names) - 2} more"


def _branches(
    plan: ElementPlan, site_of: Mapping[int, SiteInfo], listener: Listener
) -> tuple[Branch, ...]:
    """One local entry a site; calls of a recurrent site together."""
    calls: dict[str, list[int]] = {}
    for node in plan.sites:
        calls.setdefault(site_of[node].id, []).append(node)
    found = []
    for name, nodes in sorted(calls.items()):
        pre = joint(listener.pre(n) for n in nodes)
        out = joint(listener.out(n) for n in nodes)
        if pre is not None and out is not None:
            found.append(Branch(name, site_of[nodes[0]].kind.slope, pre, out))
    return tuple(found)

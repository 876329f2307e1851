"""A small first pass that finds out where samples and units lie in every tensor.

The cotangent test: a cotangent on one sample makes a gradient with 1/n support on the batch axis of
every tensor; full support exposes coupling between samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from gradscope.model import Batch
from gradscope.probe.activations import Kind
from gradscope.probe.engine import gradients
from gradscope.probe.forward import ForwardPass, Structure, run_forward
from gradscope.probe.heads import HeadRoot
from gradscope.probe.inputs import tensors_of
from gradscope.probe.layout import BatchLayout, Plan, from_support, guess
from gradscope.probe.shards import part
from gradscope.probe.subject import Subject, models_code

SCATTERED = "have no fixed place inside the model, where their values choose the rows"
_SAMPLES = 3
_PICK = 1


@dataclass(frozen=True)
class Axes:
    """Where samples and units lie.

    Attributes:
        coupled: what makes samples influence one another, or hides which is which; then no
            statistic is per sample. None where each stands by itself.
        heads: layout of each head's cotangent.
        sites: site id -> layout of its gradient.
        plans: per activation in execution order: kind and how to read it.
        structure: of the small pass, reused by the large ones.
        shapes: of one sample's inputs, in the small pass.
        known: ids of the sites that the small pass met.
        single: a pass yields a single number (a loss): then there is but one cotangent, 1.
    """

    coupled: str | None
    heads: tuple[BatchLayout, ...]
    sites: Mapping[str, BatchLayout]
    plans: tuple[tuple[str, Plan], ...]
    structure: Structure
    shapes: tuple[tuple[int, ...], ...] = ()
    known: frozenset[str] = frozenset()
    single: bool = False

    def plan_of(self, samples: int) -> Callable[[int, Kind, tuple[int, ...]], Plan]:
        """For :class:`gradscope.probe.tap.ActivationTap`, with ``samples`` in the batch."""

        def plan(index: int, kind: Kind, shape: tuple[int, ...]) -> Plan:
            if index < len(self.plans) and self.plans[index][0] == kind.name:
                known = self.plans[index][1]
                layout = known.layout.refit(shape, samples) if known.layout else None
                return Plan(layout or guess(shape, samples), known.unit_axis)
            return Plan(guess(shape, samples))

        return plan


def calibrate(
    subject: Subject, batch: Batch, samples: int, *, whole: bool
) -> tuple[Axes, ForwardPass]:
    """Axes of everything, from a pass over the first few samples of ``batch``.

    Args:
        subject: the model.
        batch: the first one.
        samples: in all batches.
        whole: all of ``batch``, since the model takes no other number of samples.
    """
    small = batch if whole else part(batch, 0, min(_SAMPLES, batch.size))
    n = small.size
    run = run_forward(subject, small, lambda *_: Plan(None), measure=False)
    sites: dict[int, BatchLayout | None] = {}
    heads: list[BatchLayout] = []
    alone, scattered = True, False
    for i, head in enumerate(run.heads):
        last = i == len(run.heads) - 1
        layout, found, free = _test_head(run, head, n, keep=not last)
        heads.append(layout)
        sites.update({k: v for k, v in found.items() if sites.get(k) is None})
        alone, scattered = alone and free, scattered or (free and None in found.values())
    coupled = _coupling(run, alone=alone, scattered=scattered)
    by_site, by_record = _by_site(run, sites)
    plans = tuple(
        (r.kind.name, by_record.get(i, Plan(guess(r.shape, n)))) for i, r in enumerate(run.records)
    )
    single = (coupled or samples == 1) and all(h.tensor.numel() == 1 for h in run.heads)
    known = frozenset(site.id for site in run.sites)
    shapes = shapes_of(batch)
    return Axes(coupled, tuple(heads), by_site, plans, run.structure, shapes, known, single), run


def shapes_of(batch: Batch) -> tuple[tuple[int, ...], ...]:
    """Shapes of one sample's inputs."""
    return tuple(tuple(t.shape[1:]) for t in tensors_of(batch))


def _test_head(
    run: ForwardPass, head: HeadRoot, n: int, *, keep: bool
) -> tuple[BatchLayout, dict[int, BatchLayout | None], bool]:
    """(layout of the head, layouts at activation nodes, whether samples are independent).

    Independent samples may all the same have no place of their own inside the model, where data
    choose the rows: then some layouts are None.
    """
    options = _options(head.shape, n)
    if n == 1:
        return options[0], {}, True
    best: tuple[int, BatchLayout, dict[int, BatchLayout | None]] = (-1, options[0], {})
    for option in options:
        entering, found = _propagate(run, head, option, n, keep=True)
        whole = None not in found.values()
        free = None not in entering if entering else whole
        rank = 2 * free + whole if entering or found else 3
        if rank > best[0]:
            best = (rank, option, found)
        if rank == 3:
            break
    return best[1], best[2], best[0] >= 2


def _options(shape: tuple[int, ...], n: int) -> list[BatchLayout]:
    """Possible layouts of an output, likeliest first."""
    if n == 1:
        return [guess(shape, 1) or BatchLayout(0)]
    plain = [BatchLayout(axis) for axis, size in enumerate(shape) if size == n]
    flat = []
    if shape and shape[0] % n == 0 and shape[0] > n:
        flat = [BatchLayout(0, inner=shape[0] // n), BatchLayout(0, outer=shape[0] // n)]
    return [*plain, *flat] or [BatchLayout(0)]


def _propagate(
    run: ForwardPass, head: HeadRoot, option: BatchLayout, n: int, *, keep: bool
) -> tuple[list[BatchLayout | None], dict[int, BatchLayout | None]]:
    """Layouts of inputs and activations under a cotangent on one sample of the head."""
    if not option.fits(head.shape, n):
        return [None], {}
    found: dict[int, BatchLayout | None] = {}
    looked_up: list[BatchLayout | None] = []

    def listen(node: int) -> Any:
        def hook(grad_inputs: Any, grad_outputs: Any) -> None:
            found.update((node, layout) for layout in _layouts(grad_outputs[:1], n))

        return hook

    def listen_source(grad_outputs: Any) -> None:
        looked_up.extend(_layouts(grad_outputs, n))

    cotangent = _on_one_sample(head, option, n)
    handles = [run.graph.nodes[i].register_hook(listen(i)) for i in run.record_of]
    inner = [i for i in run.graph.sources if run.graph.inputs[i]]
    handles += [run.graph.nodes[i].register_prehook(listen_source) for i in inner]
    wanted = [*run.leaves, *_embedding_weights(run)]
    try:
        with models_code("the backward pass failed"):
            arrived = gradients([head.edge], [cotangent], wanted, keep=keep)
    finally:
        for handle in handles:
            handle.remove()
    entering = list(_layouts(arrived[: len(run.leaves)], n))
    # A table that all samples read alike (positions) says nothing, beside one that they do not.
    entering += [layout for layout in looked_up if layout is not None]
    return entering or looked_up, found


def _on_one_sample(head: HeadRoot, option: BatchLayout, n: int) -> torch.Tensor:
    """A random cotangent of the picked sample; 0 for the others."""
    meta = head.edge.node._input_metadata[head.edge.output_nr]
    rows = torch.zeros(n, max(1, int(torch.Size(head.shape).numel()) // n))
    rows[_PICK] = torch.randn(rows.shape[1], generator=torch.Generator().manual_seed(0))
    return option.arrange(rows, head.shape, n).to(meta.dtype).to(meta.device)


def _layouts(arrived: Iterable[torch.Tensor | None], n: int) -> Iterator[BatchLayout | None]:
    """Of the gradients that tell where the picked sample lies."""
    for gradient in arrived:
        if gradient is not None:
            layout, known = from_support(gradient, n, _PICK)
            if known:
                yield layout


def _embedding_weights(run: ForwardPass) -> list[torch.Tensor]:
    """Leaves that make the engine go down to the sources that are no leaves themselves."""
    found = []
    for i in run.graph.sources:
        for edge in run.graph.inputs[i]:
            variable = getattr(run.graph.nodes[edge.node], "variable", None) if edge else None
            if variable is not None:
                found.append(variable)
    return found


def _by_site(
    run: ForwardPass, layouts: Mapping[int, BatchLayout | None]
) -> tuple[dict[str, BatchLayout], dict[int, Plan]]:
    by_site: dict[str, BatchLayout] = {}
    by_record: dict[int, Plan] = {}
    for site in run.sites:
        for call in site.calls:
            layout = layouts.get(call.node)
            if layout is not None:
                by_site.setdefault(site.id, layout)
    for site in run.sites:
        for call in site.calls:
            layout = layouts.get(call.node) or by_site.get(site.id)
            by_record[run.record_of[call.node]] = Plan(layout, site.unit_axis)
    return by_site, by_record


def _coupling(run: ForwardPass, *, alone: bool, scattered: bool) -> str | None:
    """What couples samples or scatters them, for the report; None if nothing does."""
    names = run.graph.names
    if any(n in _PACKING for n in names):
        return "lie in packed sequences, where they have no fixed place"
    if alone and not scattered:
        return None
    if alone:
        return SCATTERED
    batch = any("BatchNorm" in n for n in names)
    return f"are coupled by {'batch statistics' if batch else 'operations of the model'}"


_PACKING = frozenset({"PackPaddedSequenceBackward"})

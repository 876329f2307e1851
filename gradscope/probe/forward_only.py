"""A sweep without gradients: what activations show on the way forward.

Which activation is which was found with gradients, on a few samples; here each is known by its
place in the order of execution. Recurrent layers run fused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_map

from gradscope.findings import Skipped
from gradscope.model import Batch, Sample
from gradscope.probe.calibrate import Axes
from gradscope.probe.forward import ForwardPass, run_forward
from gradscope.probe.fused_gates import CALLS, NotFusedError, run
from gradscope.probe.inputs import add_batch
from gradscope.probe.state import visible_operations
from gradscope.probe.subject import Subject
from gradscope.probe.sums import Sums
from gradscope.probe.sweep import add_forward
from gradscope.probe.tap import ActivationTap, Record
from gradscope.progress import Progress


class FusedGates(torch.overrides.TorchFunctionMode):
    """Runs recurrent layers whole and tells the tap their gates.

    Within ``visible_operations``, which runs the others step by step: ``reasons`` gets why.
    """

    def __init__(self, tap: ActivationTap, reasons: dict[str, None]) -> None:
        super().__init__()
        self._tap, self._reasons = tap, reasons

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        op = CALLS.get(func)
        if op is None:
            return func(*args, **(kwargs or {}))
        try:
            if kwargs:
                raise NotFusedError("arguments by name")
            result, cells = run(op, args)
        except NotFusedError as error:
            self._reasons[f"{op} of {error}"] = None
            return func(*args, **(kwargs or {}))
        with _disable_current_modes():  # the tap need not look at its own statistics
            for cell in cells:
                self._tap.add_steps([(g.kind, g.inputs, g.outputs) for g in cell])
        return result


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Without gradients torch would take a path of its own, in which no activation is seen."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def forward_sums(
    subject: Subject, axes: Axes, first: ForwardPass, sample: Sample, progress: Progress
) -> tuple[Sums, list[Skipped]]:
    """Sums over all batches, without any gradient, and which recurrent layers ran step by step.

    Args:
        subject: the model.
        axes, first: from the calibration.
        sample: what to run it on.
        progress: told about the batches.
    """
    sums, reasons = Sums(), dict[str, None]()
    kinds = _kinds(first.records)
    channels = bool(first.sites) and first.sites[0].unit_axis != -1
    for batch in sample.batches():
        records, told = _run(subject, axes, batch)
        passed: ForwardPass = first
        if _kinds(records) != kinds:
            # Longer sequences, another branch: the graph has to be read anew.
            known = first.structure
            passed = run_forward(
                subject, batch, axes.plan_of(batch.size), measure=True, known=known
            )
            records = passed.records
            sums.forward_passes += 1
        reasons |= told
        for site in passed.sites:
            calls = [records[passed.record_of[c.node]].stats for c in site.calls]
            add_forward(sums, site, calls, loops=site.id in passed.structure.loops)
        sums.samples += batch.size
        sums.batches += 1
        sums.forward_passes += 1
        add_batch(sums.inputs, batch, channels=channels)
        progress.advance(batch.size)
    sums.settle()
    steps = [Skipped("the quick pass", f"an {reason} runs step by step") for reason in reasons]
    return sums, steps


def _kinds(records: Sequence[Record]) -> list[str]:
    return [r.kind.name for r in records]


def _run(subject: Subject, axes: Axes, batch: Batch) -> tuple[Sequence[Record], Mapping[str, None]]:
    reasons: dict[str, None] = {}
    tap = ActivationTap(axes.plan_of(batch.size), batch.size, scratch=subject.scratch)

    def enter(value: Any) -> Any:
        return value.to(subject.device).clone() if isinstance(value, torch.Tensor) else value

    where = f"samples {batch.start}..{batch.start + batch.size - 1}"
    with torch.no_grad(), _plain_attention(), visible_operations(), FusedGates(tap, reasons), tap:
        subject(tree_map(enter, batch.args), tree_map(enter, dict(batch.kwargs)), where)
    return tap.finish(), reasons

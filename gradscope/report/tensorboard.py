"""An inspection as TensorBoard shows it: scalars, and histograms as they were measured.

Written with the package tensorboard alone, so that none of this needs torch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from gradscope.diagnosis import Inspection
from gradscope.measurements import GradientStats, Histogram, Measurements, Octaves, Parameter

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary

_DECADES_PER_OCTAVE = math.log10(2)
_HELD = (("skill", "value"), ("loss", "loss"), ("accuracy", "accuracy"))


def write_events(inspection: Inspection, folder: str) -> None:
    """One file of events in ``folder``, which is made if need be: one run, all of it at step 0.

    Raises:
        OSError: it cannot be written.
    """
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    m = inspection.measurements
    values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars(m)]
    values += histograms(m)
    writer = EventFileWriter(folder)
    try:
        writer.add_event(Event(wall_time=time.time(), step=0, summary=Summary(value=values)))
    finally:
        writer.close()


def scalars(m: Measurements) -> Iterator[tuple[str, float]]:
    """(tag, number) of everything that was measured; what was not has no tag."""
    for tag, value in _every_scalar(m):
        if value is not None and math.isfinite(value):
            yield tag, value


def _every_scalar(m: Measurements) -> Iterator[tuple[str, float | None]]:
    if m.ledger is not None:
        yield "ledger/total", m.ledger.total
        yield "ledger/median", m.ledger.median
        for entry in m.ledger.entries:
            yield f"decades-left/{entry.label}", entry.cumulative
    yield "saturated/hidden", m.hidden_saturation
    for site in m.sites:
        yield f"saturated/{site.id}", site.saturated_fraction
    if m.skill is not None:
        for name, field in _HELD:
            yield f"score/{name}", getattr(m.skill, field)
    for parameter in m.parameters:
        yield f"weight-rms/{parameter.name}", parameter.weight.rms
        for kind, stats in _gradients(parameter):
            yield f"{kind}-rms/{parameter.name}", stats.rms
            yield f"{kind}-norm/{parameter.name}", stats.norm


def histograms(m: Measurements) -> Iterator[Summary.Value]:
    """Weights in their bins; gradients as log10 of their magnitude, in bins of a factor of two."""
    for parameter in m.parameters:
        if parameter.weight.histogram is not None:
            yield _linear(f"weight/{parameter.name}", parameter.weight.histogram)
        for kind, stats in _gradients(parameter):
            if stats.octaves is not None:
                yield _magnitudes(f"log10-{kind}/{parameter.name}", stats.octaves)


def _gradients(parameter: Parameter) -> Iterator[tuple[str, GradientStats]]:
    for kind, stats in (
        ("gradient", parameter.gradient),
        ("loss-gradient", parameter.loss_gradient),
    ):
        if stats is not None:
            yield kind, stats


def _linear(tag: str, histogram: Histogram) -> Summary.Value:
    low, high, n = histogram.low, histogram.high, len(histogram.counts)
    edges = [low + (high - low) * i / n for i in range(n)] + [high]
    return _histogram(tag, edges, histogram.counts)


def _magnitudes(tag: str, octaves: Octaves) -> Summary.Value:
    n = len(octaves.counts) + 1
    edges = [(octaves.lowest + i) * _DECADES_PER_OCTAVE for i in range(n)]
    return _histogram(tag, edges, octaves.counts)


def _histogram(tag: str, edges: list[float], counts: tuple[int, ...]) -> Summary.Value:
    """Bin i lies between edges i and i + 1. Sums are those of the bins' middles."""
    from tensorboard.compat.proto.histogram_pb2 import HistogramProto
    from tensorboard.compat.proto.summary_pb2 import Summary

    middles = [(a + b) / 2 for a, b in pairwise(edges)]
    pairs = list(zip(middles, counts, strict=True))
    proto = HistogramProto(
        min=edges[0], max=edges[-1], num=sum(counts),
        sum=sum(x * n for x, n in pairs), sum_squares=sum(x * x * n for x, n in pairs),
        # The first bucket reaches from minus infinity to the lowest edge, and is empty.
        bucket_limit=edges, bucket=[0, *counts],
    )  # fmt: skip
    return Summary.Value(tag=tag, histo=proto)

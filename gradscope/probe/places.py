"""Whether samples lie in a full batch where the small first pass found them.

Where values choose rows (a mixture of experts), a layer sees another number of rows in every batch,
and no row can be told to be a sample's.
"""

from __future__ import annotations

from gradscope.model import Batch
from gradscope.probe.calibrate import SCATTERED, Axes, shapes_of
from gradscope.probe.forward import ForwardPass
from gradscope.probe.graph import output_shape
from gradscope.probe.layout import BatchLayout, guess


class ScatteredError(Exception):
    """Samples have no fixed place: what was measured so far is to be measured anew, by batches."""

    reason = SCATTERED


def check_places(run: ForwardPass, axes: Axes, batch: Batch) -> None:
    """Compare the shapes of all activations with the layouts that were found.

    Raises:
        ScatteredError: one of them does not fit.
    """
    alike = shapes_of(batch) == axes.shapes
    seen: set[tuple[BatchLayout | None, tuple[int, ...]]] = set()
    for site in run.sites:
        known = axes.sites.get(site.id)
        if known is None and site.id in axes.known:
            continue  # no gradient, so no layout: an output
        for call in site.calls:
            shape = output_shape(run.graph.nodes[call.node])
            if (known, shape) in seen:
                continue
            seen.add((known, shape))
            if not _fits(known, shape, batch.size, alike=alike):
                raise ScatteredError


def _fits(known: BatchLayout | None, shape: tuple[int, ...], n: int, *, alike: bool) -> bool:
    if known is None:
        return guess(shape, n) is not None
    if alike:  # only the number of samples differs
        return known.fits(shape, n)
    return known.refit(shape, n) is not None

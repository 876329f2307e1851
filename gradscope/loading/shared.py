"""Inputs that all samples share: single numbers, and states that begin a sequence.

ONNX graphs declare them beside the input that has samples. They are no columns of rows: each is
taken whole out of the data file, or made up where it is not there.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch

from gradscope.errors import DataError
from gradscope.loading.rows import Source
from gradscope.model import Batch, Input, LoadedModel, Sample


def taken_out(model: LoadedModel, source: Source) -> tuple[Source, dict[str, torch.Tensor]]:
    """The source without the arrays that all samples share, and these.

    Raises:
        DataError: a single number that the model needs is not there, or an array does not fit.
    """
    values: dict[str, torch.Tensor] = {}
    for wanted in model.shared:
        if wanted.name in model.given:
            continue
        found = _whole(source, wanted.name)
        if found is not None:
            values[wanted.name] = _fitted(found, wanted, source.path)
        elif not wanted.shape:
            hint = (
                f"Give it as --input-value {wanted.name}=NUMBER, or save it beside the others: "
                f"numpy.savez(..., {wanted.name}=...)."
            )
            what = f"has no number for the model's input '{wanted.name}'"
            raise DataError(what, where=source.path, hint=hint)
    if not values:
        return source, values
    rest = copy.copy(source)
    rest.columns = {n: c for n, c in source.columns.items() if n not in values}
    rest.refused = {n: e for n, e in source.refused.items() if n not in values}
    return rest, values


def _whole(source: Source, name: str) -> torch.Tensor | None:
    if name in source.refused:
        return source.single(name)
    if name not in source.columns:
        return None
    reader = source.open([name])
    try:
        return reader.take(range(source.columns[name].shape[0]))[name]
    finally:
        reader.close()


def _fitted(value: torch.Tensor, wanted: Input, where: str) -> torch.Tensor:
    shape = wanted.shape
    if shape is not None and value.numel() == 1 and not shape:
        value = value.reshape(())
    fits = shape is None or (
        len(shape) == value.dim()
        and all(s in (None, v) for s, v in zip(shape, value.shape, strict=True))
    )
    if not fits:
        what = f"'{wanted.name}' is {tuple(value.shape)}, but the model's input is {shape}"
        raise DataError(what, where=where)
    return value if wanted.dtype is None else value.to(wanted.dtype)


def with_shared(model: LoadedModel, sample: Sample, values: Mapping[str, torch.Tensor]) -> Sample:
    """The sample with these values in every batch; a note for those that are made up."""
    values = {**model.given, **values}
    missing = [i.name for i in model.shared if i.name not in values]
    notes = [f"input '{name}' is not in the data: zeros" for name in missing]
    if not values:
        return replace(sample, notes=(*sample.notes, *notes)) if notes else sample

    def filled(found: Iterator[Batch]) -> Iterator[Batch]:
        for batch in found:
            yield replace(batch, kwargs={**batch.kwargs, **values})

    rows = sample.rows
    more = None if rows is None else lambda indices: filled(rows(indices))
    shapes = {**sample.inputs, **{n: tuple(v.shape) for n, v in values.items()}}
    return replace(
        sample, inputs=shapes, batches=lambda: filled(sample.batches()), rows=more,
        notes=(*sample.notes, *notes),
    )  # fmt: skip

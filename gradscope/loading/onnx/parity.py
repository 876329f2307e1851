"""No gradients of a model whose outputs are not those of onnxruntime."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from onnx import ModelProto
from torch.utils._pytree import tree_map

from gradscope.errors import LoadError, ProbeError
from gradscope.loading.onnx.execute import NodeError
from gradscope.loading.onnx.graph import Node
from gradscope.loading.onnx.module import OnnxModule
from gradscope.loading.onnx.session import ERRORS, VERSION, Session
from gradscope.measurements import Parity
from gradscope.model import Batch, Sample

RTOL, ATOL = 1e-3, 1e-5  # relative error alone fails honest models whose outputs are ~1e-6
_MAX_SAMPLES = 64  # rows of a batch that are compared
_ULP = 2.0**-23
_AMPLIFIED = 32.0
"""Roundings of a whole run, in changes of the output by a last bit of the input."""
_AT_MOST = 1e-2
"""Share of the largest output up to which amplified rounding explains a difference."""


@dataclass(frozen=True)
class Difference:
    """How far two outputs are apart; ``share`` of what is tolerated."""

    error: float
    share: float
    what: str = ""


_NONE = Difference(0.0, 0.0)


class ParityGate:
    """Compares a lowered graph with onnxruntime.

    Args:
        path: of the file, for messages.
        model: as it is run by both.
        module: the lowered graph.
    """

    def __init__(self, path: str, model: ModelProto, module: OnnxModule) -> None:
        self._path, self._model, self._module = path, model, module

    def __call__(self, sample: Sample) -> Parity:
        """Compare on the sample's first batch and on a second size where shapes allow.

        Raises:
            ProbeError: they differ; names the first node that does.
            LoadError: onnxruntime does not run the model.
        """
        try:
            session = Session(self._model)
        except ERRORS as error:
            what = f"onnxruntime does not open it: {_first_line(error)}"
            raise LoadError(what, where=self._path) from error
        batch = next(iter(sample.batches()))
        worst, sizes = _NONE, list[int]()
        for size in _sizes(min(batch.size, _MAX_SAMPLES)):
            found = self._compare(session, batch, size, required=not sizes)
            if found is not None:
                sizes.append(size)
                worst = max(worst, found, key=lambda d: d.share)
        return Parity(VERSION, tuple(sizes), worst.error, worst.share, RTOL, ATOL)

    def _compare(
        self, session: Session, batch: Batch, size: int, *, required: bool
    ) -> Difference | None:
        """None if this size does not fit the model."""
        args, kwargs = _resized(batch, size, self._module.shared)
        inputs = self._module.bound(args, kwargs)
        try:
            wanted = session.run(inputs)
        except ERRORS as error:
            if not required:
                return None
            what = f"onnxruntime does not run it on this input: {_first_line(error)}"
            raise LoadError(what, where=self._path) from error
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                got = self._module(*args, **kwargs)
        except NodeError as error:
            what = f"onnxruntime runs it on {size} samples, but here it fails: {error}"
            raise ProbeError(what, where=self._path) from error
        found = max((difference(got[n], w) for n, w in wanted.items()), key=lambda d: d.share)
        if found.share <= 1.0:
            return found
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            again = self._module(*_nudged(args), **_nudged(kwargs))
        amplified = (difference(got[n], w, _rounding(got[n], again[n])) for n, w in wanted.items())
        excused = max(amplified, key=lambda d: d.share)
        if not excused.share <= 1.0:
            self._fail(found, inputs)
        return excused

    def _fail(self, found: Difference, inputs: Mapping[str, Any]) -> None:
        node = first_difference(self._model, self._module, inputs)
        at = f"; {node[0]} is the first that differs ({node[1].what})" if node else ""
        what = f"its outputs are not those of {VERSION} ({found.what}){at}: no gradients"
        raise ProbeError(what, where=self._path, hint="Please report this model.")


def _sizes(first: int) -> Iterator[int]:
    yield first
    yield 2 if first == 1 else max(first // 2, 1)


def _resized(
    batch: Batch, size: int, shared: frozenset[str]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The first samples, or the only one several times."""

    def cut(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or not value.dim():
            return value
        if value.shape[0] != batch.size:
            return value
        if size > batch.size:
            return value.repeat(-(-size // batch.size), *[1] * (value.dim() - 1))[:size]
        return value[:size]

    kwargs = {k: v if k in shared else tree_map(cut, v) for k, v in batch.kwargs.items()}
    return tree_map(cut, batch.args), kwargs


def _nudged(values: Any) -> Any:
    """Numbers with another last bit, up and down in turn."""

    def nudge(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            return value
        up = torch.arange(value.numel(), device=value.device).reshape(value.shape) % 2
        return value * (1 + _ULP * (2 * up - 1).to(value.dtype))

    return tree_map(nudge, values)


def _rounding(got: Any, again: Any) -> float:
    """By how much two correct runs of a model in float32 may differ.

    Saturated recurrent layers double a difference step after step: what the last bit of the input
    does to the output tells what rounding does, in whatever order another runtime adds.
    """
    if not isinstance(got, torch.Tensor) or not isinstance(again, torch.Tensor):
        return 0.0
    if not got.is_floating_point() or not got.numel():
        return 0.0
    moved = float((again.detach().double() - got.detach().double()).abs().max())
    most = _AT_MOST * float(got.detach().double().abs().max())
    return min(_AMPLIFIED * moved, most) if moved < float("inf") > most else 0.0


def difference(got: Any, wanted: Any, slack: float = 0.0) -> Difference:
    """Largest difference of two outputs; NaN and infinities must stand in the same places.

    ``slack`` is tolerated beside the relative and the absolute error.
    """
    if isinstance(wanted, list):
        if not isinstance(got, list) or len(got) != len(wanted):
            return Difference(float("inf"), float("inf"), "sequences of different lengths")
        pairs = [difference(g, w, slack) for g, w in zip(got, wanted, strict=True)]
        return max(pairs, key=lambda d: d.share, default=_NONE)
    if wanted is None or not isinstance(wanted, torch.Tensor):
        return _NONE
    if not isinstance(got, torch.Tensor) or got.shape != wanted.shape:
        have = tuple(got.shape) if isinstance(got, torch.Tensor) else type(got).__name__
        text = f"the shape is {have} instead of {tuple(wanted.shape)}"
        return Difference(float("inf"), float("inf"), text)
    if not wanted.numel():
        return _NONE
    a, b = got.detach().cpu().double(), wanted.double()
    finite = torch.isfinite(b)
    same = torch.where(torch.isnan(b), torch.isnan(a), a == b)
    if not bool(same[~finite].all()) or not bool(torch.isfinite(a[finite]).all()):
        return Difference(float("inf"), float("inf"), "infinities or NaN in other places")
    if not bool(finite.any()):
        return _NONE
    error = (a[finite] - b[finite]).abs()
    share = float((error / (ATOL + slack + RTOL * b[finite].abs())).max())
    return Difference(float(error.max()), share, f"largest difference {float(error.max()):.3g}")


def first_difference(
    model: ModelProto, module: OnnxModule, inputs: Mapping[str, Any]
) -> tuple[Node, Difference] | None:
    """The first node, in execution order, whose output is not onnxruntime's.

    A copy of the model gives every tensor as an output; None if that cannot be run.
    """
    made: dict[str, tuple[Node, Any]] = {}

    def keep(node: Node, index: int, value: Any) -> None:
        if not node.path and isinstance(value, torch.Tensor):
            made[node.outputs[index]] = (node, value)

    with torch.no_grad():
        module.run((), dict(inputs), keep)
    copy = ModelProto()
    copy.CopyFrom(model)
    there = {o.name for o in copy.graph.output}
    copy.graph.output.extend(onnx.ValueInfoProto(name=n) for n in made if n not in there)
    try:
        wanted = Session(copy, optimise=False).run(inputs)
    except ERRORS:
        return None
    for name, (node, value) in made.items():
        found = difference(value, wanted.get(name))
        if not found.share <= 1.0:
            return node, found
    return None


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:300]

"""How sharp attention is: one more forward pass, only where a softmax stands inside the model.

A softmax is an attention if a product with other data takes its result. Fused attentions show no
weights: theirs are made again from queries and keys.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from gradscope.cutting import cut
from gradscope.measurements import Attention
from gradscope.model import Batch
from gradscope.probe.activations import SATURATED_BELOW
from gradscope.probe.forward import run_forward
from gradscope.probe.graph import Graph
from gradscope.probe.layout import Plan
from gradscope.probe.reparam import owner_of
from gradscope.probe.storages import address, readable
from gradscope.probe.subject import Subject
from gradscope.probe.tap import EagerMode

SAMPLES = 64
"""Samples that are looked at."""
_MOST = 1 << 24
"""Attention weights that are made again at once."""
_FAR_BELOW = -1e8
"""Scores from which on a key is masked, and not only unlikely."""

_aten = torch.ops.aten
_SOFTMAX = {_aten._softmax, getattr(_aten, "_safe_softmax", _aten._softmax)}
_PRODUCTS = {_aten.bmm, _aten.mm, _aten.baddbmm, _aten.matmul}
_FUSED = "_scaled_dot_product_"


@dataclass
class _Seen:
    """Sums over the rows of one attention."""

    rows: int = 0
    keys: float = 0.0
    saturated: float = 0.0
    relative: float = 0.0

    def add(self, weights: torch.Tensor, keys: torch.Tensor) -> None:
        """One call.

        Args:
            weights: probabilities, keys last.
            keys: per row, how many it may choose from.
        """
        rho = (1 - weights.double().square().sum(-1)) / (1 - 1 / keys.clamp_min(2))
        counts = (keys > 1) & rho.isfinite()
        self.rows += int(counts.sum())
        self.keys += float(keys[counts].sum())
        self.saturated += float((rho[counts] < SATURATED_BELOW).sum())
        self.relative += float(rho[counts].clamp(0, 1).sum())

    def result(self, layer: str) -> Attention:
        n = self.rows
        return Attention(layer, n, self.keys / n, self.saturated / n, self.relative / n)


@dataclass(frozen=True)
class _Pending:
    """A softmax whose result nothing has been multiplied with yet."""

    scores: torch.Tensor
    weights: torch.Tensor
    after: str


class _Watch(EagerMode):
    """Looks at the weights of every attention.

    Args:
        names: address of each parameter's storage -> its name.
    """

    def __init__(self, names: Mapping[int, str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: dict[str, _Seen] = {}
        self._names, self._after = names, ""
        self._pending: dict[int, _Pending] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs, packet = kwargs or {}, func.overloadpacket
        for value in tree_leaves((args, kwargs)):
            if readable(value):
                self._after = self._names.get(address(value), self._after)
        if packet in _PRODUCTS:
            self._multiplied(args)
        result = func(*args, **kwargs)
        if packet in _SOFTMAX and args[1] % args[0].dim() == args[0].dim() - 1:
            self._pending[address(result)] = _Pending(args[0], result, self._after)
        elif packet.__name__.startswith(_FUSED) and "backward" not in packet.__name__:
            given = dict(zip((a.name for a in func._schema.arguments), args, strict=False))
            self._fused({**given, **kwargs})
        return result

    def _multiplied(self, args: tuple[Any, ...]) -> None:
        for value in args:
            found = self._pending.pop(address(value), None) if readable(value) else None
            if found is not None:
                keys = _choices(found.scores)
                self._of(found.after).add(found.weights, keys)

    def _fused(self, given: Mapping[str, Any]) -> None:
        query, key = given["query"], given["key"]
        if not (readable(query) and readable(key)) or query.dim() != 4:
            return
        each = max(1, query.shape[1] * query.shape[2] * key.shape[2])
        count = max(1, min(len(query), _MOST // each))
        q, k = query[:count].float(), key[:count].float()
        if q.shape[1] != k.shape[1]:  # groups of heads share their keys
            k = k.repeat_interleave(max(1, q.shape[1] // k.shape[1]), dim=1)
        scale = given.get("scale")
        scores = q @ k.transpose(-1, -2) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
        mask = given.get("attn_mask", given.get("attn_bias"))
        if mask is not None:
            mask = mask[:count] if mask.dim() == 4 and len(mask) > 1 else mask
            off = ~mask if mask.dtype == torch.bool else None
            scores = scores + mask if off is None else scores.masked_fill(off, -math.inf)
        if given.get("is_causal"):
            upper = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
            scores = scores.masked_fill(upper, -math.inf)
        self._of(self._after).add(scores.softmax(-1), _choices(scores))

    def _of(self, after: str) -> _Seen:
        return self.seen.setdefault(after, _Seen())


def may_attend(graph: Graph) -> bool:
    """Whether a softmax or a fused attention stands in a graph."""
    return any("Softmax" in n or "ScaledDotProduct" in n for n in graph.names)


def find_attention(subject: Subject, batch: Batch, *, whole: bool) -> tuple[Attention, ...]:
    """Every attention that a forward pass over the first samples meets, in their order.

    Args:
        subject: the model.
        batch: the first one.
        whole: all of it, since the model takes no other number of samples.
    """
    watch = _Watch({address(t): name for name, t in subject.names.tensors.items()})
    if not whole and batch.size > SAMPLES:
        tree = (batch.args, dict(batch.kwargs), batch.labels)
        args, kwargs, labels = cut(tree, batch.size, 0, SAMPLES)
        batch = Batch(args, kwargs, labels, SAMPLES, batch.start)
    with watch:
        run_forward(subject, batch, lambda *_: Plan(None), measure=False)
    layers = subject.names.layers
    return tuple(
        seen.result(layers.get(after) or owner_of(after)[0])
        for after, seen in watch.seen.items()
        if seen.rows
    )


def _choices(scores: torch.Tensor) -> torch.Tensor:
    """Keys that are not masked, per row."""
    return (scores > _FAR_BELOW).sum(-1)

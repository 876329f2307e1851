"""Which parameters make the queries and the keys of each attention, whatever code it is.

Below autograd every attention is either one fused operation with queries, keys and values, or a
softmax of a product of two data, whose result a third is multiplied with. What feeds a tensor are
the parameters of the products before it; which rows of a packed projection those are, gradients
tell: entries that do not matter to it have none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_PRODUCTS = frozenset(("mm", "bmm", "matmul", "linear", "addmm", "baddbmm", "convolution"))
_SOFTMAX = frozenset(("_softmax", "_safe_softmax"))
_NORMS = frozenset(("native_layer_norm", "native_group_norm", "_fused_rms_norm"))
_PASSING = frozenset(
    [
        "view",
        "_unsafe_view",
        "reshape",
        "transpose",
        "permute",
        "expand",
        "clone",
        "mul",
        "div",
        "add",
        "sub",
        "_to_copy",
        "contiguous",
        "where",
        "masked_fill",
        "slice",
        "squeeze",
        "unsqueeze",
        "select",
        "t",
    ]
)
"""Between a product and its softmax: shapes, scales and masks."""


@dataclass
class Meeting:
    """One call of an attention.

    Attributes:
        square, count: of the logits, centred over the keys that may be chosen.
        query, key, value: as they enter it, with what feeds each.
    """

    square: float
    count: float
    query: _Fed
    key: _Fed
    value: _Fed | None = None

    @property
    def fed_by(self) -> frozenset[str]:
        """Parameters of its queries and keys."""
        return self.query.feeds | self.key.feeds


@dataclass(frozen=True)
class _Fed:
    tensor: torch.Tensor
    feeds: frozenset[str]


@dataclass(frozen=True)
class _Made:
    name: str
    args: tuple[Any, ...]
    feeds: frozenset[str]


class Attending(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While active, notes every attention. To be used with gradients on: without them a whole
    encoder is one operation.

    Args:
        tensors: all parameters by name.

    Attributes:
        meetings: in their order.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.meetings: list[Meeting] = []
        self._names = {t.untyped_storage().data_ptr(): n for n, t in tensors.items() if t.numel()}
        self._made: dict[int, _Made] = {}
        self._pending: dict[int, Meeting] = {}
        self._kept: list[torch.Tensor] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name, kwargs = func.overloadpacket.__name__, kwargs or {}
        tensors = _tensors((args, kwargs))
        if "scaled_dot_product" in name and "backward" not in name:
            given = dict(zip((a.name for a in func._schema.arguments), args, strict=False))
            self._fused({**given, **kwargs})
        elif name in _PRODUCTS:
            self._taken(tensors)
        feeds = self._feeds(name, tensors)
        result = func(*args, **kwargs)
        self._kept += tensors
        known = {_place(t) for t in tensors}
        for output in _tensors(result):
            self._kept.append(output)
            if _place(output) not in known or name.endswith("_"):
                self._made[_place(output)] = _Made(name.removesuffix("_"), args, feeds)
        if name in _SOFTMAX and args[1] % args[0].dim() == args[0].dim() - 1:
            self._soft(args[0], result)
        return result

    def _feeds(self, name: str, tensors: list[torch.Tensor]) -> frozenset[str]:
        """The nearest parameters: a product or a norm with some of its own ends the search."""
        own = frozenset(n for t in tensors if (n := self._names.get(_place(t))) is not None)
        behind = [self._of(t).feeds for t in tensors if _place(t) not in self._names]
        if own and (name in _PRODUCTS or name in _NORMS or name == "embedding"):
            return own
        if own and name == "mul":  # a gain, behind which a norm by hand has no scale of its own
            return own
        return own.union(*behind)

    def _of(self, tensor: torch.Tensor) -> _Made:
        return self._made.get(_place(tensor), _Made("", (), frozenset()))

    def _fed(self, tensor: torch.Tensor) -> _Fed:
        return _Fed(tensor, self._of(tensor).feeds)

    def _fused(self, given: Mapping[str, Any]) -> None:
        q, k = given["query"], given["key"]
        scale = given.get("scale") or q.shape[-1] ** -0.5
        keys = k.detach().double()
        if q.dim() == 4 and q.shape[1] != k.shape[1]:  # groups of heads share their keys
            keys = keys.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
        logits = q.detach().double() @ keys.transpose(-1, -2) * scale
        mask = given.get("attn_mask", given.get("attn_bias"))
        if isinstance(mask, torch.Tensor):
            off = ~mask if mask.dtype == torch.bool else mask < _FAR
            logits = logits.masked_fill(off, -math.inf)
        if given.get("is_causal"):
            logits = logits.masked_fill(
                torch.ones_like(logits, dtype=torch.bool).triu(1), -math.inf
            )
        self.meetings.append(Meeting(*_spread(logits), self._fed(q), self._fed(k),
                                     self._fed(given["value"])))  # fmt: skip

    def _soft(self, logits: torch.Tensor, result: torch.Tensor) -> None:
        """A softmax: an attention if a product of two data is what it takes."""
        made = self._of(logits)
        while made.name in _PASSING:
            data = [a for a in _tensors(made.args) if self._of(a).feeds]
            if not data:
                return
            made = self._of(data[0])
        factors = [a for a in _tensors(made.args)[-2:] if _place(a) not in self._names]
        if made.name in _PRODUCTS and len(factors) == 2:
            one, other = (self._fed(f) for f in factors)
            meeting = Meeting(*_spread(logits.detach().double()), one, other)
            self.meetings.append(meeting)
            self._pending[_place(result)] = meeting

    def _taken(self, tensors: list[torch.Tensor]) -> None:
        """A product with the result of a softmax: its other side are the values."""
        for tensor in tensors:
            origin = tensor
            while _place(origin) not in self._pending and self._of(origin).name in _PASSING:
                origin = _tensors(self._of(origin).args)[0]
            meeting = self._pending.pop(_place(origin), None)
            rest = [t for t in tensors if t is not tensor]
            if meeting is not None and rest:
                meeting.value = self._fed(rest[-1])


_FAR = -1e8
"""Logits from which on a key is masked, and not only unlikely."""


def entries(fed: _Fed, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Which entries of the parameters that feed a tensor matter to it, as masks by name."""
    names = [n for n in fed.feeds if n in tensors and tensors[n].requires_grad]
    if not names or not fed.tensor.requires_grad:
        return {}
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(fed.tensor.shape, generator=generator).to(fed.tensor)
    total = (fed.tensor * weights).sum()
    found = torch.autograd.grad(
        total, [tensors[n] for n in names], retain_graph=True, allow_unused=True
    )
    return {n: _rectangle(g != 0) for n, g in zip(names, found, strict=True) if g is not None}


def _rectangle(mask: torch.Tensor) -> torch.Tensor:
    """Whole rows and columns: a feature that is 0 in this sample belongs to them as well."""
    whole = torch.ones_like(mask)
    for axis in range(mask.dim()):
        rest = [i for i in range(mask.dim()) if i != axis]
        some = mask.any(dim=rest, keepdim=True) if rest else mask
        whole = whole & some
    return whole


def _spread(logits: torch.Tensor) -> tuple[float, float]:
    """(sum of squares, count) of logits centred over the keys that may be chosen."""
    seen = logits > _FAR
    count = seen.sum(dim=-1, keepdim=True).clamp_min(1)
    kept = torch.where(seen, logits, 0.0)
    centred = torch.where(seen, kept - kept.sum(dim=-1, keepdim=True) / count, 0.0)
    return float(centred.square().sum()), float(seen.sum())


def _place(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _tensors(value: Any) -> list[torch.Tensor]:
    return [t for t in tree_leaves(value) if isinstance(t, torch.Tensor)]

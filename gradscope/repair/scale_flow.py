"""How a scale passes through a model: one call of it, read operation by operation.

Like the probe this stands below autograd and modules, so that layers, functions, scripts, exported
programs and ONNX graphs are read alike. What an operation does to a scale stands in one table; one
that is not in it is not homogeneous, and then numbers enter and leave it as they are.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gradscope.repair.exponents import NOTHING, Equations, Sum, plus, times
from gradscope.repair.homogeneous import (
    ACTS,
    BATCH_NORMS,
    BIASED,
    FRESH,
    KEEPS,
    OTHERS,
    POWERS,
    PRODUCTS,
    SUMS,
    keeps,
)


@dataclass(frozen=True)
class BatchNorm:
    """Running statistics that take a scale: the variance with what is added to it.

    Attributes:
        mean, variance: names of the buffers.
        eps: what is added.
    """

    mean: str
    variance: str
    eps: float


@dataclass
class _Tensor:
    """What is known of a storage: its scale, the parameters that feed it, how it was made."""

    scale: Sum
    feeds: frozenset[str]
    made: tuple[str, tuple[Any, ...]] = ("", ())


@dataclass
class Flow:
    """What one call shows.

    Attributes:
        equations: between the powers of the parameters and the switches.
        seen: activations as they ran: site or None, and the kind.
        norms: batch norms with running statistics.
        uses: how often each parameter is multiplied or added.
    """

    equations: Equations = field(default_factory=Equations)
    seen: list[tuple[str | None, str]] = field(default_factory=list)
    norms: list[BatchNorm] = field(default_factory=list)
    uses: dict[str, int] = field(default_factory=dict)

    def called(self, site: str) -> int:
        """How often an activation ran."""
        return sum(name == site for name, _ in self.seen)


def switches_of(site: str, apart: bool) -> tuple[str, str]:
    """Names of the switches before and behind an activation; one where they go together."""
    return (f"{site} <", f"{site} >") if apart else (f"{site} <>",) * 2


class ScaleFlow(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While active, follows scales; and, where asked for, runs alpha phi(z / alpha) in phi's place.

    Args:
        parameters, buffers: by name.
        sites: an activation's kind and the parameters that feed it -> its name.
        apart: sites of which the scale before and the one behind may be folded apart.
        factors: site -> (before, behind): what z and phi are multiplied by, to be run so.
    """

    def __init__(
        self,
        parameters: Mapping[str, torch.Tensor],
        buffers: Mapping[str, torch.Tensor],
        sites: Mapping[tuple[str, frozenset[str]], str],
        apart: frozenset[str] = frozenset(),
        factors: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flow = Flow()
        self._sites, self._apart, self._factors = sites, apart, factors or {}
        self._spans = sorted(
            (t.data_ptr(), t.data_ptr() + t.nbytes, n)
            for n, t in {**buffers, **parameters}.items()
            if t.nbytes
        )
        self._named = frozenset(parameters)
        self._results: dict[int, str] = {}
        self._pending: dict[int, Sum] = {}
        self._known: dict[int, _Tensor] = {}
        self._kept: list[torch.Tensor] = []  # so that no storage is given out twice
        self._free = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name, kwargs = func.overloadpacket.__name__, kwargs or {}
        plain = name.removesuffix("_") if not name.endswith("__") else name
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        before = [self._of(t) for t in tensors]
        if plain in ACTS and tensors:
            return self._activation(func, ACTS[plain], name != plain, args, kwargs)
        if name == "div" and self._is_softsign(args):
            return self._activation(lambda z, _: F.softsign(z), "softsign", False, args, kwargs)
        result = func(*args, **kwargs)
        self._kept += tensors
        if name == plain and self._is_view(result, tensors):
            return result
        for own in {n for t in tensors if (n := self._name(t)) is not None}:
            self.flow.uses[own] = self.flow.uses.get(own, 0) + 1
        made = self._made(plain, args, kwargs, tensors, before)
        for output in _tensors(result):
            self._know(output, made)
        return result

    def ends(self, outputs: Any) -> Flow:
        """What was seen; the outputs must be what they are."""
        for output in _tensors(outputs):
            self.flow.equations.add(self._of(output).scale, "the model's output")
        for scale in self._pending.values():
            self.flow.equations.add(scale, "a constant that is added")
        return self.flow

    def _made(
        self, name: str, args: tuple[Any, ...], kwargs: Any, tensors: list[torch.Tensor],
        before: list[_Tensor],
    ) -> _Tensor:  # fmt: skip
        return _Tensor(
            self._scale(name, args, kwargs, tensors, before), self._feeds(name, tensors, before),
            (name, args),
        )  # fmt: skip

    def _scale(
        self, name: str, args: tuple[Any, ...], kwargs: Any, tensors: list[torch.Tensor],
        before: list[_Tensor],
    ) -> Sum:  # fmt: skip
        scales = [b.scale for b in before]
        real = [t.is_floating_point() for t in tensors]
        equations = self.flow.equations
        if name in FRESH or not any(real):
            return self._unknown() if "zeros" in name else NOTHING
        if name in KEEPS and keeps(name, args):
            return scales[0]
        if name == "pow" and len(args) > 1 and isinstance(args[1], int | float):
            return times(scales[0], Fraction(args[1]).limit_denominator(1000))
        if name in POWERS:
            return times(scales[0], POWERS[name])
        if name == "div":
            return plus(scales[0], scales[1], -1) if len(scales) > 1 else scales[0]
        if name in PRODUCTS:
            return plus(scales[0], scales[1]) if len(scales) > 1 else scales[0]
        if name == "_softmax" or name == "_log_softmax" or name == "_safe_softmax":
            equations.add(scales[0], "a softmax")
            return NOTHING
        if name in SUMS:
            return self._sum(name, args, tensors, scales)
        if name in BIASED:
            return self._biased(name, args)
        if name == "_prelu_kernel":
            equations.add(scales[1], "a slope that is trained")
            return scales[0]
        if name == "copy":
            equations.add(plus(scales[0], scales[-1], -1), "numbers written into one tensor")
            return scales[-1]
        if name == "embedding":
            return scales[0]
        if name in BATCH_NORMS:
            return self._batch_norm(name, args)
        if "scaled_dot_product" in name and "backward" not in name:
            equations.add(plus(scales[0], scales[1]), "a softmax")
            return scales[2]
        weighted = {"native_layer_norm": 2, "native_group_norm": 1, "_fused_rms_norm": 2}.get(name)
        if weighted is not None:
            return self._norm(name, args, weighted)
        for scale, is_real in zip(scales, real, strict=True):
            if is_real:
                equations.add(scale, f"the operation {name}")
        return NOTHING

    def _sum(
        self, name: str, args: tuple[Any, ...], tensors: list[torch.Tensor], scales: Sequence[Sum]
    ) -> Sum:
        summed = [s for t, s in zip(tensors, scales, strict=True) if t.dtype != torch.bool]
        why = {"cat": "tensors put side by side", "stack": "tensors put side by side"}
        for other in summed[1:]:
            self.flow.equations.add(plus(summed[0], other, -1), why.get(name, "a sum"))
        if len(summed) == 1 and any(isinstance(a, int | float) and a for a in args[:2]):
            if self._of(tensors[0]).made[0] == "abs":  # perhaps of a softsign
                self._pending[self._storage(tensors[0])] = summed[0]
            else:
                self.flow.equations.add(summed[0], "a constant that is added")
        return summed[0]

    def _biased(self, name: str, args: tuple[Any, ...]) -> Sum:
        added, one, other = (args[i] if i < len(args) else None for i in BIASED[name])
        assert isinstance(one, torch.Tensor)
        assert isinstance(other, torch.Tensor)
        product = plus(self._of(one).scale, self._of(other).scale)
        if isinstance(added, torch.Tensor):
            why = () if self._name(added) is not None else ("a sum",)
            self.flow.equations.add(plus(self._of(added).scale, product, -1), *why)
        return product

    def _batch_norm(self, name: str, args: tuple[Any, ...]) -> Sum:
        x, weight, bias, mean, variance = args[:5]
        names = [self._name(t) for t in (mean, variance)]
        scale = self._of(x).scale
        training = name in ("native_batch_norm", "_native_batch_norm_legit") and bool(args[5])
        if names[0] is None or names[1] is None or training:
            self.flow.equations.add(scale, "a norm without statistics of its own")
        else:
            self.flow.equations.add(plus({names[0]: Fraction(1)}, scale, -1))
            eps = [a for a in args if isinstance(a, float)][-1]
            self.flow.norms.append(BatchNorm(names[0], names[1], eps))
        return self._affine(weight, bias)

    def _norm(self, name: str, args: tuple[Any, ...], at: int) -> Sum:
        what = {"native_layer_norm": "a layer norm", "native_group_norm": "a group norm"}
        self.flow.equations.add(self._of(args[0]).scale, what.get(name, "an RMS norm"))
        return self._affine(args[at], args[at + 1] if name != "_fused_rms_norm" else None)

    def _affine(self, weight: Any, bias: Any) -> Sum:
        if not isinstance(weight, torch.Tensor):
            if isinstance(bias, torch.Tensor):
                self.flow.equations.add(self._of(bias).scale)
            return NOTHING
        scale = self._of(weight).scale
        if isinstance(bias, torch.Tensor):
            self.flow.equations.add(plus(self._of(bias).scale, scale, -1))
        return scale

    def _activation(
        self, func: Any, kind: str, in_place: bool, args: tuple[Any, ...], kwargs: Any
    ) -> Any:
        z = args[0]
        made = self._site(kind, z)
        before, behind = self._factors.get(self.flow.seen[-1][0] or "", (1.0, 1.0))
        if (before, behind) == (1.0, 1.0):
            result = func(*args, **kwargs)
        else:
            # In place too: what is written over is the argument.
            out = func((z * before).clone(), *args[1:], **kwargs) * behind
            result = z.copy_(out) if in_place else out
        self._kept.append(z)
        self._know(result, made)
        site = self.flow.seen[-1][0]
        if site is not None:
            self._results[self._storage(result)] = site
        return result

    def site_of(self, output: torch.Tensor) -> str | None:
        """The activation that made a tensor."""
        return self._results.get(self._storage(output))

    def _site(self, kind: str, z: torch.Tensor) -> _Tensor:
        known = self._of(z)
        site = self._sites.get((kind, known.feeds))
        self.flow.seen.append((site, kind))
        if site is None:
            self.flow.equations.add(known.scale, f"a {kind} that is no hidden unit")
            return _Tensor(NOTHING, frozenset())
        before, behind = switches_of(site, site in self._apart)
        self.flow.equations.add(plus(known.scale, {before: Fraction(1)}))
        return _Tensor({behind: Fraction(-1)}, frozenset())

    def _is_softsign(self, args: tuple[Any, ...]) -> bool:
        """z / (1 + |z|); then the 1 asks for nothing."""
        z, under = args[:2]
        if not isinstance(z, torch.Tensor) or not isinstance(under, torch.Tensor):
            return False
        name, added = self._of(under).made
        if name != "add" or not isinstance(added[0], torch.Tensor) or added[1] != 1:
            return False
        first, of = self._of(added[0]).made
        if first != "abs" or self._storage(of[0]) != self._storage(z):
            return False
        self._pending.pop(self._storage(added[0]), None)
        return True

    def _feeds(
        self, name: str, tensors: list[torch.Tensor], before: list[_Tensor]
    ) -> frozenset[str]:
        """As the probe names sites: a product with parameters ends the search, a sum does not."""
        own = frozenset(n for t in tensors if (n := self._name(t)) is not None)
        behind = [b for t, b in zip(tensors, before, strict=True) if self._name(t) is None]
        if name in OTHERS:
            return frozenset()
        if own and not (name in ("add", "sub", "rsub") and behind):
            return frozenset(n for n in own if n in self._named)
        return own.union(*(b.feeds for b in behind))

    def _of(self, tensor: torch.Tensor) -> _Tensor:
        name = self._name(tensor)
        if name is not None:
            return _Tensor({name: Fraction(1)}, frozenset({name}))
        found = self._known.get(self._storage(tensor))
        if found is None:
            zero = tensor.is_floating_point() and not bool(tensor.detach().any())
            found = _Tensor(self._unknown() if zero else NOTHING, frozenset())
            self._known[self._storage(tensor)] = found
            self._kept.append(tensor)
        return found

    def _unknown(self) -> Sum:
        """Nothing but zeros: of any scale."""
        self._free += 1
        return {f"zeros {self._free}": Fraction(1)}

    def _know(self, output: torch.Tensor, made: _Tensor) -> None:
        self._kept.append(output)
        self._known[self._storage(output)] = made

    def _is_view(self, result: Any, tensors: list[torch.Tensor]) -> bool:
        known = {self._storage(t) for t in tensors}
        found = _tensors(result)
        self._kept += found
        return bool(found) and all(self._storage(t) in known for t in found)

    def _name(self, tensor: Any) -> str | None:
        """The parameter or buffer that it is, or is a view of."""
        if not isinstance(tensor, torch.Tensor) or not tensor.numel():
            return None
        at = bisect_right(self._spans, (tensor.data_ptr(), _END, "")) - 1
        if at < 0 or not self._spans[at][0] <= tensor.data_ptr() < self._spans[at][1]:
            return None
        return self._spans[at][2]

    @staticmethod
    def _storage(tensor: torch.Tensor) -> int:
        return tensor.untyped_storage().data_ptr()


_END = 1 << 64


def _tensors(value: Any) -> list[torch.Tensor]:
    return [t for t in tree_leaves(value) if isinstance(t, torch.Tensor)]

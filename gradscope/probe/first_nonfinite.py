"""Finds the first operation whose result is not finite: one more pass, only where one is not."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from gradscope.measurements import FirstNonfinite, Measurements, State
from gradscope.model import Batch, Sample
from gradscope.probe.forward import run_forward
from gradscope.probe.inputs import tensors_of
from gradscope.probe.layout import Plan
from gradscope.probe.storages import address, readable
from gradscope.probe.subject import Subject
from gradscope.probe.tap import EagerMode

_FILLS = {"empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided", "full",
          "full_like", "new_full", "scalar_tensor", "masked_fill", "masked_fill_", "fill_",
          "where"}  # fmt: skip
"""What may hold an infinity on purpose (attention masks), or no values yet."""


class _Watch(EagerMode):
    """Stops looking at the first result that is not finite though its arguments are.

    Args:
        names: address of each parameter's storage -> its name.
    """

    def __init__(self, names: Mapping[int, str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: FirstNonfinite | None = None
        self.backward = False
        self._names, self._after = names, ""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        given = [] if self.found else _tensors((args, kwargs or {}))
        fine = all(_finite(t) for t in given)
        for tensor in given:
            self._after = self._names.get(address(tensor), self._after)
        result = func(*args, **(kwargs or {}))
        if self.found is None and fine and not all(_finite(t) for t in _tensors(result)):
            name = str(func.overloadpacket.__name__)
            if name not in _FILLS:
                self.found = FirstNonfinite(name, self._after, self.backward)
        return result


def find_first(subject: Subject, sample: Sample) -> FirstNonfinite | None:
    """The first such operation over the batches of a sample; None if none was seen.

    Forward first; then, only if all results there were finite, backward under a cotangent of ones.
    """
    names = {address(t): name for name, t in subject.names.tensors.items()}
    for batch in sample.batches():
        if not all(_finite(t) for t in tensors_of(batch)):
            return None
        found = _watch(subject, batch, names)
        if found is not None:
            return found
    return None


def _watch(subject: Subject, batch: Batch, names: Mapping[int, str]) -> FirstNonfinite | None:
    watch = _Watch(names)
    with watch:
        run = run_forward(subject, batch, lambda *_: Plan(None), measure=False)
        if watch.found is None:
            watch.backward = True
            wanted = [p for p in subject.names.tensors.values() if p.requires_grad and p.is_leaf]
            for i, head in enumerate(run.heads):
                meta = head.edge.node._input_metadata[head.edge.output_nr]
                ones = torch.ones(head.shape, dtype=meta.dtype, device=meta.device)
                torch.autograd.grad(
                    [head.edge], wanted or list(run.leaves), [ones / math.sqrt(ones.numel())],
                    retain_graph=i + 1 < len(run.heads), allow_unused=True,
                )  # fmt: skip
    return watch.found


def watched(
    tensors: Mapping[str, torch.Tensor], call: Callable[[], object]
) -> FirstNonfinite | None:
    """The first such operation of a call, without gradients; None if there is none.

    Args:
        tensors: parameters by name, which places are named by.
        call: what to watch.
    """
    watch = _Watch({address(t): name for name, t in tensors.items()})
    with watch, torch.no_grad():
        call()
    return watch.found


def is_nonfinite(measured: Measurements) -> bool:
    """Whether something is not finite although every weight is."""
    if any(p.weight.state is State.NONFINITE for p in measured.parameters):
        return False
    sites = any(s.nonfinite_fraction or s.gradient_state is State.NONFINITE for s in measured.sites)
    gradients = (g for p in measured.parameters for g in (p.gradient, p.loss_gradient))
    return sites or any(g is not None and g.state is State.NONFINITE for g in gradients)


def _tensors(value: Any) -> list[torch.Tensor]:
    return [t for t in tree_leaves(value) if readable(t) and t.is_floating_point()]


def _finite(tensor: torch.Tensor) -> bool:
    wide = tensor if tensor.dtype.itemsize > 1 else tensor.float()  # no isfinite for float8
    return bool(torch.isfinite(wide).all())

"""The input standardised while training, and folded into the first weights afterwards.

x' = (x - m) / s is trained on as it is: folded before training, a step of the optimiser on a
weight would still be 1e-3 while x is 1e3. Afterwards W' = W / s and b' = b - W m / s give the same
function of the raw input. A convolution's padding is 0 in the raw input and would be -m / s in the
standardised one: where the offset is what is wrong, and nothing has been learned, the taps of the
filters that ever meet the padding are kept at 0, and the fold is exact again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from gradscope.model import Batch
from gradscope.repair.base import Case, Tensors
from gradscope.repair.entrance import Door, find_doors

OFFSET = 3.0
"""Mean over standard deviation from which it is worth the taps that meet the padding."""

VARIED = 10
"""Samples that the variance of a feature must come from, for its own small scale to be believed."""

ROUNDING = 1e-6
"""Spread over mean up to which a feature is a constant in single precision."""

EXACT = 0.05
"""How far the folded model may be from the standardised one, in standard deviations of the outputs
over samples: rounding of a large input, and nothing that matters."""


@dataclass(frozen=True)
class Standardisation:
    """What the raw input is shifted and divided by, and where that can be folded.

    Attributes:
        mean, spread: of each feature or channel, or of all together; they broadcast to the input.
        doors: the layers that it enters.
        repeat: columns of a weight that belong to one of these; 0: all do.
        masked: whether taps that meet a padding are kept at 0.
    """

    mean: torch.Tensor
    spread: torch.Tensor
    doors: tuple[Door, ...]
    repeat: int
    masked: bool = False

    def __call__(self, batch: Batch) -> Batch:
        """The batch with its first input standardised."""
        x = first_input(batch)
        x = (x - self.mean.to(x)) / self.spread.to(x)
        return with_input(batch, x)

    def folded(self, tensors: Tensors) -> dict[str, torch.Tensor]:
        """W and b of the first layer for the raw input, from those for the standardised one."""
        return self._written(tensors, lambda w, m, s: (w / s, -(w / s) @ m))

    def unfolded(self, tensors: Tensors) -> dict[str, torch.Tensor]:
        """The inverse: the same function, of the standardised input."""
        return self._written(tensors, lambda w, m, s: (w * s, w @ m))

    def opened(self, tensors: Tensors) -> dict[str, torch.Tensor]:
        """Weights without the taps that meet a padding, at the size that they had."""
        found: dict[str, torch.Tensor] = {}
        for door in self.doors if self.masked else ():
            weight, bias = door.read(tensors)
            assert door.taps is not None
            flat = weight.flatten(1) * door.taps.to(weight)
            flat = flat * (weight.norm() / flat.norm().clamp_min(1e-30))
            found |= door.write(tensors, flat.reshape(weight.shape), bias)
        return found

    @contextmanager
    def shut(self, tensors: Tensors) -> Iterator[None]:
        """While training, the taps that meet a padding stay at 0."""
        hooks = []
        for door in self.doors if self.masked else ():
            assert door.taps is not None
            own = tensors[door.weight]
            mask = door.taps.to(own).expand(len(own), -1).reshape(own.shape)
            if own.requires_grad:
                hook = own.register_hook(lambda g, mask=mask: g * mask)  # type: ignore[no-untyped-call]
                hooks.append(hook)
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _written(
        self,
        tensors: Tensors,
        change: Callable[..., tuple[torch.Tensor, torch.Tensor]],
    ) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = {}
        for door in self.doors:
            weight, bias = door.read(tensors)
            flat = weight.double().flatten(1)
            scaled, moved = change(flat, self._columns(self.mean, flat),
                                   self._columns(self.spread, flat))  # fmt: skip
            added = None if bias is None else bias.double() + moved
            found |= door.write(tensors, scaled.reshape(weight.shape), added)
        return found

    def _columns(self, value: torch.Tensor, flat: torch.Tensor) -> torch.Tensor:
        value = value.to(flat).reshape(-1)
        return value.repeat_interleave(self.repeat) if self.repeat else value.expand(flat.shape[1])


def first_input(batch: Batch) -> Any:
    """The first argument, by position or by name; None if there is none."""
    return batch.args[0] if batch.args else next(iter(batch.kwargs.values()), None)


def with_input(batch: Batch, x: torch.Tensor) -> Batch:
    """The batch with another first input."""
    if batch.args:
        return replace(batch, args=(x, *batch.args[1:]))
    return replace(batch, kwargs={**batch.kwargs, next(iter(batch.kwargs)): x})


def standardisation(case: Case, learned: bool) -> Standardisation | None:
    """Of a sample's first input; None where folding it would change the function.

    Features of a dense or a recurrent layer and channels of a convolution each by themselves. The
    mean is taken out where the first layer has a bias and no padding is in the way.

    Args:
        case: the model as it is, with its data.
        learned: whether the weights have something to keep.
    """
    batch = next(case.data.once(), None)
    x = first_input(batch) if batch is not None else None
    if batch is None or not isinstance(x, torch.Tensor) or not x.is_floating_point() or x.dim() < 2:
        return None
    doors = find_doors(case, with_input(batch, torch.ones_like(x)))
    if not doors:
        return None
    shape, repeat = _layout(x, doors[0].read(case.tensors)[0])
    shift, size = _statistics(case, shape)
    found = [Standardisation(torch.zeros_like(size[0]), size[1], doors, repeat)]
    mean, spread = shift
    padded = any(d.taps is not None for d in doors)
    offset = bool((mean.abs() > OFFSET * spread).any())
    open_taps = all(d.taps is None or bool(d.taps.any()) for d in doors)
    if not padded:
        found.insert(0, Standardisation(mean, spread, doors, repeat))
    elif offset and open_taps and not learned:
        found.insert(0, Standardisation(mean, spread, doors, repeat, masked=True))
    biased = all(d.read(case.tensors)[1] is not None for d in doors)
    return next(
        (f for f in found if (biased or not f.mean.any()) and _is_exact(case, f, batch)), None
    )


def _layout(x: torch.Tensor, weight: torch.Tensor) -> tuple[tuple[int, ...], int]:
    """(shape of the statistics, which broadcasts to the input; columns of a weight for each)."""
    if weight.dim() == 2 and x.shape[-1] == weight.shape[1]:
        return (*[1] * (x.dim() - 1), x.shape[-1]), 1
    if weight.dim() == 2 and x[0].numel() == weight.shape[1]:
        return (1, *x.shape[1:]), 1
    if weight.dim() == x.dim() and x.shape[1] == weight.shape[1]:
        return (1, x.shape[1], *[1] * (x.dim() - 2)), weight[0, 0].numel()
    return tuple([1] * x.dim()), 0


def _statistics(
    case: Case, shape: tuple[int, ...]
) -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """((mean, standard deviation), (mean, root mean square)) over the training samples."""
    axes = [i for i, n in enumerate(shape) if n == 1]
    count, total = 0.0, torch.zeros(shape).double()
    for x in _inputs(case):
        count += x.numel() / total.numel()
        total = total + x.sum(dim=axes, keepdim=True)
    mean = total / count
    centres = (mean, torch.zeros_like(mean))
    sums = [[torch.zeros_like(mean), torch.zeros_like(mean)] for _ in centres]
    for x in _inputs(case):
        for centre, of in zip(centres, sums, strict=True):
            square = (x - centre).square()
            of[0] += square.sum(dim=axes, keepdim=True)
            of[1] += square.square().sum(dim=axes, keepdim=True)
    spread, size = (
        filled((square / count).sqrt(), square.square() / fourth, centre).float()
        for centre, (square, fourth) in zip(centres, sums, strict=True)
    )
    return (mean.float(), spread), (mean.float(), size)


def _inputs(case: Case) -> Iterator[torch.Tensor]:
    return (first_input(batch).double().cpu() for batch in case.data.once())


def filled(
    spread: torch.Tensor, varied: torch.Tensor, centre: torch.Tensor, enough: float = VARIED
) -> torch.Tensor:
    """What hardly varies is divided by what is usual; what varies on a smaller scale is not.

    Args:
        spread: of each feature about its ``centre``.
        varied: how many samples its variance comes from: sum of squares, squared, over the sum of
            fourth powers. A pixel that is lit in one image has 1.
        enough: of them, for a small scale to be believed.
    """
    typical = spread.square().mean().sqrt().clamp_min(1e-12)
    own = (varied >= enough) & (spread > ROUNDING * centre.abs())
    return torch.where((spread > 0.01 * typical) | own, spread, typical)


def _is_exact(case: Case, found: Standardisation, batch: Batch) -> bool:
    """Whether the folded model, on the raw input, does what is trained on the standardised one."""
    case.trainee.set_training(False)
    opened = found.opened(case.tensors)
    with torch.no_grad(), case.with_tensors(opened):
        trained = case.trainee.call(found(batch))
        with case.with_tensors(found.folded(case.tensors)):
            written = case.trainee.call(batch)
    if trained is None or written is None:
        return False
    trained, written = trained.double(), written.double()
    off = float((trained - written).square().mean().sqrt())
    varies = float(trained.std(dim=0).square().mean().sqrt()) if len(trained) > 1 else 0.0
    return off <= EXACT * varies + 1e-5 * float(trained.square().mean().sqrt())

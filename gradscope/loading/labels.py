"""Labels in the shapes people save them in: classes, columns, one-hot rows, whole floats."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from gradscope.errors import DataError
from gradscope.loading.casting import is_whole
from gradscope.loading.wanted import type_name

Reading = Callable[[torch.Tensor], torch.Tensor]
"""Labels as saved -> labels as the losses take them."""

_CLASSES = ("auto", "cross-entropy", "nll")


@dataclass(frozen=True)
class Facts:
    """What labels are like, over any number of pieces.

    Attributes:
        dtype: as saved.
        shape: of one sample's.
        bad: how many are NaN or infinite.
        whole: none has a fraction.
        one_hot: each row has a single 1 and zeros.
        low, high: the smallest and largest.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    bad: int = 0
    whole: bool = True
    one_hot: bool = True
    low: float = math.inf
    high: float = -math.inf

    @classmethod
    def of(cls, labels: torch.Tensor) -> Facts:
        """Of one piece."""
        shape = tuple(labels.shape[1:])
        if labels.is_complex() or not labels.numel():
            return cls(labels.dtype, shape, whole=False, one_hot=False)
        floating = labels.is_floating_point()
        bad = int((~torch.isfinite(labels)).sum()) if floating else 0
        rows = len(shape) == 1 and shape[0] > 1
        one_hot = (
            rows
            and bool(((labels == 0) | (labels == 1)).all())
            and bool((labels.sum(dim=1) == 1).all())
        )
        whole = not floating or is_whole(labels)
        low, high = (float(labels.min()), float(labels.max())) if not bad else (0.0, 0.0)
        return cls(labels.dtype, shape, bad, whole, one_hot, low, high)

    @classmethod
    def over(cls, pieces: Iterable[torch.Tensor]) -> Facts:
        """Of all pieces; there is at least one."""
        found: Facts | None = None
        for piece in pieces:
            facts = cls.of(piece)
            found = facts if found is None else found.merge(facts)
        assert found is not None
        return found

    def merge(self, other: Facts) -> Facts:
        """Of both together."""
        return Facts(
            self.dtype,
            self.shape,
            self.bad + other.bad,
            self.whole and other.whole,
            self.one_hot and other.one_hot,
            min(self.low, other.low),
            max(self.high, other.high),
        )


def check_finite(facts: Facts, name: str, where: str) -> None:
    """Raises :class:`DataError` where labels are NaN or infinite: a loss would be neither. So would
    it be of complex numbers."""
    if facts.dtype.is_complex:
        raise DataError(f"labels '{name}' are complex numbers", where=where, hint="Save real ones.")
    if facts.bad:
        what = f"labels '{name}' hold {facts.bad} NaN or infinite values"
        raise DataError(what, where=where, hint="Leave these samples out.")


def read_as(
    facts: Facts, name: str, output: tuple[int, ...] | None, loss: str
) -> tuple[Reading, str | None]:
    """How to take labels, given the shape of the model's output; a note unless as they are.

    Nothing is turned that a loss could take as it is.
    """
    if output is None or loss not in (*_CLASSES, "bce", "mse"):
        return _as_saved, None
    scores = output[1] if len(output) == 2 else 0  # of classes, one row a sample
    if scores > 1 and loss in _CLASSES:
        if facts.one_hot and facts.shape == (scores,):
            note = f"labels '{name}' are one-hot in all samples: taken as {scores} classes"
            return _hot, f"{note} (--loss bce takes them as {scores} answers each)"
        if facts.whole and math.prod(facts.shape) == 1 and 0 <= facts.low <= facts.high < scores:
            return _flat_classes, _class_note(facts, name, scores)
    if len(output) > 2 and facts.dtype.is_floating_point and facts.whole and loss in _CLASSES:
        kept = len(facts.shape) == len(output) - 2 and facts.low >= 0
        if kept and facts.high < max(output[1], output[-1]):
            return torch.Tensor.long, _class_note(facts, name, None)
    return _as_saved, None


def _class_note(facts: Facts, name: str, scores: int | None) -> str | None:
    because = f", since the model has {scores} outputs" if scores else ""
    what = f"labels '{name}', "
    if facts.dtype.is_floating_point:
        what += f"whole numbers saved as {type_name(facts.dtype)}, "
    elif not facts.shape:
        return None
    else:
        what += f"saved as columns {('n', *facts.shape)}, ".replace("'", "")
    return f"{what}were taken as classes{because}"


def _as_saved(labels: torch.Tensor) -> torch.Tensor:
    return labels.long() if labels.dtype is torch.bool else labels


def _hot(labels: torch.Tensor) -> torch.Tensor:
    return _as_saved(labels).argmax(dim=1)


def _flat_classes(labels: torch.Tensor) -> torch.Tensor:
    flat = _as_saved(labels.reshape(len(labels)))
    return flat.long() if flat.is_floating_point() else flat


def strata(facts: Facts) -> Reading | None:
    """What to keep the proportions of in a cut: one integer a sample; None if these are none."""
    if math.prod(facts.shape) == 1 and facts.whole and not facts.bad:
        return _flat_classes
    return _hot if facts.one_hot else None

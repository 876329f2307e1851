"""The loss that a user's optimiser would see, and how much better than guessing the model is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from gradscope.errors import OptionError
from gradscope.usercode import load_object, one_line

LossFunction = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
NAMES = ("auto", "cross-entropy", "bce", "mse", "nll")
_EPS = 1e-12


@dataclass(frozen=True)
class Loss:
    """A loss, decided.

    Attributes:
        kind: cross-entropy, bce, mse, nll or MODULE:FN.
        how: how it was decided, for the report.
        function: (output, labels) -> one loss a sample, shape (n,); of a user's function that
            returns a scalar, that scalar for every sample.
    """

    kind: str
    how: str
    function: LossFunction


def decide(
    name: str, output: torch.Tensor, labels: torch.Tensor, entered_before: str | None
) -> Loss:
    """The loss for an output and its labels.

    Args:
        name: ``--loss``.
        output: the model's first output on some batch.
        labels: of that batch.
        entered_before: the squashing at the end of the model, if any.

    Raises:
        OptionError: the labels do not fit, or a user's function cannot be had.
    """
    if ":" in name:
        return Loss(name, "given by --loss", _user_function(name))
    if name not in NAMES:
        hint = f"Known: {', '.join(NAMES)}, or MODULE:FN."
        raise OptionError(f"unknown loss '{name}'", where="--loss", hint=hint)
    kind, how = (name, "given by --loss") if name != "auto" else _auto(output, labels)
    function = _function(kind, output, entered_before)
    if kind == "cross-entropy" and entered_before in ("softmax", "log-softmax"):
        how += f"; the output is already a {entered_before}, so its logarithm is taken as it is"
    if kind == "bce" and entered_before == "sigmoid":
        how += "; the output is already a sigmoid"
    loss = Loss(kind, how, function)
    check_labels(loss, output, labels)
    return loss


def _auto(output: torch.Tensor, labels: torch.Tensor) -> tuple[str, str]:
    shape = tuple(output.shape)
    if labels.is_floating_point():
        binary = bool(((labels == 0) | (labels == 1)).all())
        if binary and labels.shape[0] > 1 and _squeezed(output).shape == _squeezed(labels).shape:
            return "bce", f"labels are 0 and 1, one for each of the outputs {shape[1:]}"
        return "mse", "labels are real numbers"
    classes = output.dim() >= 2 and max(shape[1], shape[-1]) > 1
    if classes and labels.dim() < output.dim():
        count = f"{shape[1]} outputs" if len(shape) == 2 else f"outputs {shape[1:]}"
        return "cross-entropy", f"integer labels and {count}"
    if int(labels.min()) >= 0 and int(labels.max()) <= 1:
        return "bce", "labels are 0 and 1, one output each"
    return "mse", "integer labels, one output each"


def _squeezed(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.squeeze(-1) if tensor.dim() > 1 else tensor


def _function(kind: str, output: torch.Tensor, entered_before: str | None) -> LossFunction:
    if kind == "cross-entropy":
        return lambda o, y: _cross_entropy(o, y, entered_before)
    if kind == "nll":
        return lambda o, y: _cross_entropy(o, y, "log-softmax")
    if kind == "bce":
        return lambda o, y: _bce(o, y, entered_before)
    return _mse


def class_last(output: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Class scores on the last axis: (n, classes, ...) with labels (n, ...) is turned."""
    if output.dim() > 2 and tuple(output.shape[:-1]) != tuple(labels.shape):
        return output.movedim(1, -1)
    return output


def _cross_entropy(
    output: torch.Tensor, labels: torch.Tensor, entered_before: str | None
) -> torch.Tensor:
    scores = (
        class_last(output, labels).float()
        if output.dtype.itemsize < 4
        else class_last(output, labels)
    )
    if entered_before == "softmax":
        logs = scores.clamp_min(_EPS).log()
    else:
        logs = scores if entered_before == "log-softmax" else F.log_softmax(scores, dim=-1)
    picked = logs.gather(-1, labels.long().unsqueeze(-1)).squeeze(-1)
    return -picked.reshape(labels.shape[0], -1).mean(dim=1)


def _bce(output: torch.Tensor, labels: torch.Tensor, entered_before: str | None) -> torch.Tensor:
    target = labels.to(output.dtype).reshape(output.shape)
    if entered_before == "sigmoid":
        losses = F.binary_cross_entropy(output.clamp(0, 1), target, reduction="none")
    else:
        losses = F.binary_cross_entropy_with_logits(output, target, reduction="none")
    return losses.reshape(labels.shape[0], -1).mean(dim=1)


def _mse(output: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    target = labels.to(output.dtype).reshape(output.shape)
    return (output - target).square().reshape(labels.shape[0], -1).mean(dim=1)


def _user_function(name: str) -> LossFunction:
    function = load_object(name, option="--loss")

    def call(output: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        try:
            value = function(output, labels)
        except Exception as error:  # any code may stand in a loss of the user's
            raise OptionError(f"'{name}' fails: {one_line(error)}", where="--loss") from error
        if not isinstance(value, torch.Tensor):
            raise OptionError(f"'{name}' returned no tensor", where="--loss")
        if value.dim() and value.shape[0] != labels.shape[0]:
            what = f"'{name}' returned {value.shape[0]} losses for {labels.shape[0]} samples"
            raise OptionError(what, where="--loss", hint="Return one a sample, or their mean.")
        if not value.dim():
            return value.expand(labels.shape[0])
        return value.reshape(value.shape[0], -1).mean(dim=1)

    return call


def check_labels(loss: Loss, output: torch.Tensor, labels: torch.Tensor) -> None:
    """Labels that do not fit are the user's to know of, in one line.

    Raises:
        OptionError: their shape or their range is not that of the output.
    """
    shapes = f"output {tuple(output.shape)}, labels {tuple(labels.shape)} {labels.dtype}"
    if loss.kind in ("cross-entropy", "nll"):
        scores = class_last(output, labels) if output.dim() else output
        classes = scores.shape[-1] if scores.dim() else 0
        if labels.is_floating_point() or labels.dim() != scores.dim() - 1:
            hint = "Give one integer class for each sample, or choose --loss mse."
            raise OptionError(f"labels do not fit {loss.kind}: {shapes}", where="labels", hint=hint)
        if tuple(labels.shape) != tuple(scores.shape[:-1]):
            hint = "The model's first output must have one answer for each label."
            raise OptionError(f"labels do not fit {loss.kind}: {shapes}", where="labels", hint=hint)
        if int(labels.min()) < 0 or int(labels.max()) >= classes:
            low, high = int(labels.min()), int(labels.max())
            what = f"labels run from {low} to {high}, but the model has {classes} classes"
            raise OptionError(what, where="labels", hint="Count classes from 0.")
    elif loss.kind in ("bce", "mse") and output.numel() != labels.numel():
        hint = "Give one number for each of the model's outputs, or choose --head."
        raise OptionError(f"labels do not fit {loss.kind}: {shapes}", where="labels", hint=hint)


@dataclass(frozen=True)
class Score:
    """Sums over samples that make a skill; mergeable.

    Attributes:
        losses: per sample, float64.
        right: right answers of ``answers``; None for regression.
        labels: all labels, flattened, for the entropy or the variance.
    """

    losses: tuple[torch.Tensor, ...] = ()
    right: int | None = None
    answers: int = 0
    labels: tuple[torch.Tensor, ...] = ()

    def merge(self, other: Score) -> Score:
        """Both together."""
        right = other.right if self.right is None else self.right + (other.right or 0)
        return Score(
            _compact((*self.losses, *other.losses)),
            right,
            self.answers + other.answers,
            _compact((*self.labels, *other.labels)),
        )


def _compact(pieces: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """The same in few pieces, each larger than the next: thousands of small ones, allocated between
    the large tensors of the passes, keep the memory of those from being used again.
    """
    found = list(pieces)
    while len(found) > 1 and len(found[-1]) >= len(found[-2]):
        if found[-1].shape[1:] != found[-2].shape[1:]:
            break
        found[-2:] = [torch.cat(found[-2:])]
    return tuple(found)


def score(
    loss: Loss, output: torch.Tensor, labels: torch.Tensor, entered_before: str | None
) -> Score:
    """Of one batch."""
    losses = loss.function(output, labels).detach().double().cpu()
    right, answers = None, 0
    if loss.kind in ("cross-entropy", "nll"):
        scores = class_last(output, labels)
        right = int(((scores.argmax(dim=-1) == labels) & is_answer(scores)).sum())
        answers = labels.numel()
    elif loss.kind == "bce":
        middle = 0.5 if entered_before == "sigmoid" else 0.0
        answer = output.reshape(-1) > middle
        right, answers = int((answer == (labels.reshape(-1) > 0.5)).sum()), labels.numel()
    return Score((losses,), right, answers, (labels.detach().cpu(),))


def is_answer(scores: torch.Tensor) -> torch.Tensor:
    """Where the largest of the scores says something: among NaN argmax would name class 0."""
    return ~scores.isnan().any(dim=-1)


def skill(loss: Loss, whole: Score) -> tuple[float | None, float | None, float | None]:
    """(1 - loss / loss of guessing, its standard error, mean loss).

    Guessing knows the frequencies of the labels (cross-entropy: their entropy) or their mean
    (squared error: their variance). None where the labels do not vary or the loss is a user's.
    """
    losses = torch.cat(whole.losses)
    n, mean = losses.numel(), float(losses.mean())
    guess = _guessing(loss.kind, whole.labels)
    if guess is None or not math.isfinite(mean) or n < 2:
        return None, None, mean if math.isfinite(mean) else None
    error = float(losses.std()) / math.sqrt(n)
    return 1 - mean / guess, error / guess, mean


def _guessing(kind: str, pieces: Sequence[torch.Tensor]) -> float | None:
    if kind in ("cross-entropy", "nll"):
        shares = _frequencies(pieces)
        value = -float((shares * shares.log()).sum())
        return value if value > 1e-12 else None
    labels = torch.cat(tuple(pieces))
    if kind == "bce":
        p = labels.double().reshape(labels.shape[0], -1).mean(dim=0)
        value = float(-(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p)).mean())
    elif kind == "mse":
        wide = labels.double().reshape(labels.shape[0], -1)
        value = float(wide.var(dim=0, correction=0).mean())
    else:
        return None
    return value if value > 1e-12 else None


def _frequencies(pieces: Sequence[torch.Tensor]) -> torch.Tensor:
    """Share of each class, in order; a piece at a time, since sorting all labels at once takes
    several times their memory.
    """
    counts: Counter[int] = Counter()
    for piece in pieces:
        values, times = torch.unique(piece, return_counts=True)
        counts.update(dict(zip(values.tolist(), times.tolist(), strict=True)))
    numbers = torch.tensor([counts[label] for label in sorted(counts)], dtype=torch.float64)
    return numbers / numbers.sum()


def commonest(loss: Loss, whole: Score) -> float:
    """Accuracy of always giving the commonest answer, output by output."""
    if loss.kind != "bce":
        return float(_frequencies(whole.labels).max())
    labels = torch.cat(whole.labels)
    p = (labels.double() > 0.5).double().reshape(labels.shape[0], -1).mean(dim=0)
    return float(torch.maximum(p, 1 - p).mean())


def accuracy_skill(
    accuracy: float | None, chance: float | None, samples: int
) -> tuple[float | None, float | None]:
    """((accuracy - chance) / (1 - chance), its binomial standard error over samples)."""
    if accuracy is None or chance is None or chance >= 1 or samples < 2:
        return None, None
    error = math.sqrt(max(accuracy * (1 - accuracy), 1 / samples) / samples)
    return (accuracy - chance) / (1 - chance), error / (1 - chance)

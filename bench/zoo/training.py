"""Training and scoring of small networks, one thread, float32."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from bench.zoo.data import Dataset
from bench.zoo.families import RECURRENT, Family

BATCH = 32


@dataclass(frozen=True)
class Score:
    """How a network does on held-out data.

    ``credit`` per sample: right or wrong (0, 1), or the mean squared error over outputs; ``weight``
    sums to one: classes count alike in a balanced accuracy.
    """

    credit: np.ndarray
    weight: np.ndarray
    classes: int

    @property
    def value(self) -> float:
        """Balanced accuracy, or R^2 cut below at 0."""
        return score_of(self.credit, self.weight, self.classes)


def score_of(credit: np.ndarray, weight: np.ndarray, classes: int) -> float:
    """The same of parts of a sample; ``weight`` holds targets for a regression."""
    if classes:
        return float((credit * weight).sum() / weight.sum())
    spread = float(np.var(weight, axis=0).mean())
    return max(0.0, 1 - float(credit.mean()) / spread)


def score(net: nn.Module, data: Dataset) -> Score:
    """In eval mode, on the held-out part. What is not finite counts as wrong, or as the mean."""
    was = net.training
    net.eval()
    with torch.no_grad():
        out = net(torch.from_numpy(data.x_val))
    net.train(was)
    if not data.classes:
        error = ((out.numpy() - data.y_val) ** 2).mean(1)
        spread = data.y_val.var(0).mean()
        return Score(np.where(np.isfinite(error), error, spread), data.y_val, 0)
    finite = torch.isfinite(out).all(1).numpy()
    right = (out.argmax(1).numpy() == data.y_val) & finite
    counts = np.bincount(data.y_val, minlength=data.classes)
    weight = 1 / (counts[data.y_val] * (counts > 0).sum())
    return Score(right.astype(float), weight, data.classes)


def chance(data: Dataset) -> float:
    """Of a guess that does not look at the input."""
    return 1 / data.classes if data.classes else 0.0


def optimiser(family: Family, net: nn.Module, factor: float, decay: float) -> torch.optim.Optimizer:
    """The family's own."""
    lr, parameters = family.lr * factor, list(net.parameters())
    if family.optimiser == "adam":
        return torch.optim.Adam(parameters, lr, weight_decay=decay, fused=True)
    if family.optimiser == "adamw":
        return torch.optim.AdamW(parameters, lr, weight_decay=decay or 0.01, fused=True)
    if family.optimiser == "rmsprop":
        return torch.optim.RMSprop(parameters, lr, weight_decay=decay)
    if family.optimiser == "adagrad":
        return torch.optim.Adagrad(parameters, lr, weight_decay=decay)
    momentum = 0.9 if family.optimiser == "momentum" else 0.0
    return torch.optim.SGD(parameters, lr, momentum, weight_decay=decay, fused=True)


def train(
    net: nn.Module, data: Dataset, family: Family, steps: int, seed: int,
    keep: Iterable[int] = (), factor: float = 1.0, decay: float = 0.0, smoothing: float = 0.0,
) -> dict[int, nn.Module]:  # fmt: skip
    """In place; copies of the network after the steps of ``keep``. Gradients of recurrent nets are
    clipped to norm 1."""
    rng = np.random.default_rng(seed)
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    loss_of = nn.CrossEntropyLoss(label_smoothing=smoothing) if data.classes else nn.MSELoss()
    step, clip = optimiser(family, net, factor, decay), family.kind in RECURRENT
    wanted, kept = set(keep), {}
    net.train()
    for i in range(steps):
        if i in wanted:
            kept[i] = copy.deepcopy(net)
        rows = torch.from_numpy(rng.integers(0, len(x), BATCH))
        loss = loss_of(net(x[rows]), y[rows])
        step.zero_grad(set_to_none=True)
        loss.backward()
        if clip:
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        step.step()
        if i % 50 == 49 and not torch.isfinite(loss):
            break  # nothing comes back from here
    if steps in wanted:
        kept[steps] = copy.deepcopy(net)
    return {i: kept.get(i) or copy.deepcopy(net) for i in wanted}

"""How a model is trained: optimiser, rate, batches, and what keeps weights small."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from gradscope.config import FixSettings
from gradscope.diagnosis import Inspection
from gradscope.model import Sample
from gradscope.optimisers import KINDS, Optimiser
from gradscope.repair.minibatches import HELD_OUT_SHARE

EPOCHS = 40
"""Where their number is not given."""

SHORTEST = 25
"""Steps that such an epoch has at least: a weight moves by the rate a step, so that a hundred
samples need as many steps as a thousand, and as long a patience."""


LONGER = 3
"""Times its steps that a training is prolonged by at most, where their number is not given."""

FALLING = 0.01
"""Of the loss of a guess: what the held-out loss must fall by over the scores that patience waits
for, to count as training that still gets better. Answers can stand still meanwhile."""


@dataclass(frozen=True)
class Penalty:
    """What keeps weights small while a model is trained.

    Attributes:
        kind: l2 (strength * sum of squares in the loss), l1 (sum of absolute values), adamw
            (decoupled decay, by the optimiser), max-norm (largest norm of a unit's weights),
            spectral (largest singular value of a matrix) or none.
        strength: its factor or its limit.
    """

    kind: str = "none"
    strength: float = 0.0

    def __str__(self) -> str:
        return "" if self.kind == "none" else f", {self.kind} {self.strength:g}"

    def of(self, parameters: list[torch.Tensor]) -> torch.Tensor | float:
        """What is added to the loss."""
        if self.kind == "l2":
            return self.strength * torch.stack([p.square().sum() for p in parameters]).sum()
        if self.kind == "l1":
            return self.strength * torch.stack([p.abs().sum() for p in parameters]).sum()
        return 0.0

    @torch.no_grad()
    def project(self, parameters: list[torch.Tensor]) -> None:
        """Back to within the limit, after a step."""
        if self.kind not in ("max-norm", "spectral"):
            return
        for p in parameters:
            if p.dim() < 2:
                continue
            flat = p.detach().flatten(1).to(torch.promote_types(p.dtype, torch.float32))
            if self.kind == "max-norm":
                norms = flat.norm(dim=1).reshape(-1, *[1] * (p.dim() - 1))
                factor = (self.strength / norms.clamp_min(1e-12)).clamp_max(1.0)
            else:
                size = torch.linalg.matrix_norm(flat, 2)
                factor = (self.strength / size.clamp_min(1e-12)).clamp_max(1.0)
            p.mul_(factor.to(p.dtype))


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        steps: of the optimiser.
        beyond: further steps, at most, until there is enough.
        rate: learning rate.
        batch: samples a step.
        clip: largest norm of the whole gradient; None: any.
        optimizer: of :data:`~gradscope.optimisers.KINDS`; sgd has momentum .9 here.
        settings: keywords of its class, in place of its defaults; None: as ``optimizer`` says.
        penalty: what keeps weights small.
        every: steps between two scores; 0: about ten scores, denser at the start.
        patience: scores without a better one after which it ends; 0: it does not.
        falling: of the best held-out loss over ``patience`` scores, from which on it still gets
            better: patience is not lost, and it goes on beyond ``steps``.
        floor: mean points up to which nothing is learned yet, and patience does not count: a
            plateau at chance ends late, or never.
        ceiling: mean points from which there is nothing to gain; below, patience counts only once
            held-out losses rise.
    """

    steps: int
    rate: float
    batch: int
    clip: float | None
    optimizer: str = "adam"
    penalty: Penalty = Penalty()
    every: int = 0
    patience: int = 0
    beyond: int = 0
    falling: float = math.inf
    floor: float = -math.inf
    ceiling: float = -math.inf
    settings: tuple[tuple[str, Any], ...] | None = None

    @property
    def most(self) -> int:
        """Steps after which it ends in any case."""
        return self.steps + self.beyond

    def __str__(self) -> str:
        clipped = f", gradient clipped at {self.clip:g}" if self.clip else ""
        if self.settings is None:
            name = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD, momentum .9,"}[self.optimizer]
            by = f"{name} {self.rate:g}"
        else:
            by = str(Optimiser(self.optimizer, self.rate, self.settings))
        return f"{by}, batches of {self.batch}{clipped}{self.penalty}"

    def score_at(self) -> frozenset[int]:
        """Steps at which it is scored."""
        if self.every:
            return frozenset({0, *range(self.every, self.most, self.every), self.most})
        parts = (0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0)
        first = {max(1, round(self.steps * p)) for p in parts}
        later = range(self.steps, self.most, max(1, self.steps // 4))
        return frozenset({0, *first, *later, self.most})

    def made(self, parameters: list[torch.Tensor]) -> torch.optim.Optimizer:
        """The optimiser."""
        if self.settings is not None:
            kind = getattr(torch.optim, KINDS[self.optimizer].name)
            made: torch.optim.Optimizer = kind(parameters, lr=self.rate, **dict(self.settings))
            return made
        if self.optimizer == "sgd":
            return torch.optim.SGD(parameters, lr=self.rate, momentum=0.9)
        if self.optimizer == "adamw":
            decay = self.penalty.strength if self.penalty.kind == "adamw" else 0.0
            return torch.optim.AdamW(parameters, lr=self.rate, weight_decay=decay)
        return torch.optim.Adam(parameters, lr=self.rate)


def recipe_for(
    before: Inspection, sample: Sample, has_validation: bool, fix: FixSettings, fixed: int | None
) -> Recipe:
    """What is asked for, and where nothing is, what suits the model and the size of the data.

    Args:
        before: of the model as it came.
        sample: of which all is trained on with ``--val``, else what is not held out.
        has_validation: whether there is ``--val``.
        fix: the options.
        fixed: samples a batch of a model that takes no other number; None: any.
    """
    m = before.measurements
    batch = fixed or fix.batch_size
    count = sample.samples if has_validation else round(sample.samples * (1 - HELD_OUT_SHARE))
    a_pass = max(1, count // batch)
    an_epoch = max(SHORTEST, a_pass) if fix.epochs is None else a_pass
    deep = m.ledger is not None and len(m.ledger.entries) >= 30
    recurrent = m.ledger is not None and bool(m.ledger.time)
    exploding = any(c.value == "exploding" for c in before.diagnosis.causes)
    steps = (fix.epochs or EPOCHS) * an_epoch
    return Recipe(
        steps=steps,
        rate=fix.rate or (3e-4 if deep else 1e-3),
        batch=batch,
        clip=1.0 if recurrent or exploding else None,
        optimizer="adamw" if fix.regularize == "adamw" else fix.optimizer,
        penalty=Penalty(fix.regularize, fix.strength),
        every=an_epoch,
        patience=fix.patience,
        beyond=LONGER * steps if fix.epochs is None and fix.patience else 0,
    )

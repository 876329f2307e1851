"""How well the model does, as it is and when it is trained on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Skill:
    """How much better than guessing the model is.

    Attributes:
        value: 1 - CE / H(labels), or 1 - MSE / variance.
        error: its standard error over samples.
        loss: mean loss of the sample.
        loss_kind: cross-entropy, bce, mse, nll or a user's function.
        how: how the loss was decided.
        accuracy: share of right answers; None for regression.
        held_out: whether it was measured on ``--val`` data.
        samples: how many.
        chance: accuracy of always giving the commonest answer; None for regression.
        accuracy_skill: (accuracy - chance) / (1 - chance): unlike ``value`` it does not change with
            the scale of the logits; None for regression.
        accuracy_error: its standard error over samples.
    """

    value: float | None
    error: float | None
    loss: float | None
    loss_kind: str
    how: str
    accuracy: float | None
    held_out: bool
    samples: int
    chance: float | None = None
    accuracy_skill: float | None = None
    accuracy_error: float | None = None


@dataclass(frozen=True)
class Reference:
    """What a plain learner reaches on the sample: a lower bound of what can be learned.

    Attributes:
        score: share of what is above guessing, on samples left out: of the accuracy, or 1 - MSE /
            variance.
        error: its standard error over samples.
        metric: accuracy or skill: with which of the model's own scores it is to be compared.
        how: the learner.
        samples: how many of them.
        features: numbers a sample that vary.
    """

    score: float
    error: float
    metric: str
    how: str
    samples: int
    features: int


@dataclass(frozen=True)
class Arm:
    """One of the copies of a trial, scored on held-out data while it trains.

    Attributes:
        steps: of the optimiser, at which it was scored; the first is 0.
        score: accuracy, or skill for a regression, at each of them; None where it was not finite.
        loss: mean held-out loss at each of them.
        stopped: why it ended early; None if it did not.
        how: optimiser and rate.
    """

    steps: tuple[int, ...]
    score: tuple[float | None, ...]
    loss: tuple[float | None, ...]
    stopped: str | None = None
    how: str = ""

    @property
    def last(self) -> float | None:
        """The score at the end."""
        return self.score[-1] if self.score else None


@dataclass(frozen=True)
class Trial:
    """A counterfactual: the model trained as it is, and trained after a repair.

    Attributes:
        steps: of the optimiser, of the copy that had more of them.
        how: optimiser, rate and batch of the repaired copy, and where they are from.
        repair: what was done to the second copy before it was trained.
        layers: that the repair changed.
        metric: accuracy or skill.
        held_out: what was scored on.
        samples: how many of them.
        chance: score of guessing the most frequent answer, or the mean.
        untreated, repaired: the two copies; of several untreated ones, at different rates, the one
            with the best score.
        gain: by how much the repaired copy's last score beats the untreated one's best, as a share
            of what is above chance; None if either could not be scored.
        error: standard error of ``gain``, paired over the held-out samples.
        others: untreated copies at other rates, which did no better.
        most: steps that every copy could have had.
    """

    steps: int
    how: str
    repair: str
    layers: tuple[str, ...]
    metric: str
    held_out: str
    samples: int
    chance: float | None
    untreated: Arm
    repaired: Arm
    gain: float | None
    error: float | None
    others: tuple[Arm, ...] = ()
    most: int = 0

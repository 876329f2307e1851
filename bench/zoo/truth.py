"""How it is decided whether a saved model is faulty: by experiment, before any diagnosis.

Three scores on the same held-out data, clean of planted noise (balanced accuracy, or R^2 cut below
at 0):

- ``saved``: the model as it is in the file;
- ``untreated``: the best of the model continued for the family's budget of steps with the family's
  own optimiser, looked at after 25, 50 and 100 % of them;
- ``twin``: the same architecture from a sane start (Xavier; He for relu and gelu; identity for the
  recurrent matrix of an RNN, forget bias 1 for an LSTM; queries, keys, norms as torch draws them;
  deep logistic nets centred: gain 4, biases minus half of the rows' sums, which is 4 (sigma - 1/2)
  by another name; shallow nets of seed 1: torch's default), on standardised inputs, trained for the
  same budget: the reference.

With chance c (guessing the commonest class; R^2 0), lost = (twin - max(saved, untreated)) /
(twin - c), and its standard error from 200 bootstraps over held-out samples, paired:

- **faulty**: lost - 2 se > MARGIN;
- **healthy**: lost <= min(CLOSE + 2 se, MARGIN);
- **ambiguous**: what lies between; counted apart, in no rate.

A family counts only if its twin has learned: twin - c > LEARNED beyond 2 standard errors. Planted
but harmless is healthy; unplanted but stuck is faulty. Margins were written down before any model
of the zoo was built.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.zoo.training import Score, score_of

MARGIN = 0.10
CLOSE = 0.05
LEARNED = 0.15
BOOTSTRAPS = 200


@dataclass(frozen=True)
class Truth:
    """The verdict of the experiment: faulty, healthy, ambiguous, or no-reference."""

    truth: str
    saved: float
    untreated: float
    twin: float
    chance: float
    lost: float
    se: float


def decide(saved: Score, untreated: Score, twin: Score, chance: float) -> Truth:
    """Compare the better of ``saved`` and ``untreated`` with the twin."""
    best = max(saved, untreated, key=lambda s: s.value)
    rng = np.random.default_rng(0)
    n = len(twin.credit)
    gaps, references = [], []
    for _ in range(BOOTSTRAPS):
        rows = rng.integers(0, n, n)
        a, b = (score_of(s.credit[rows], s.weight[rows], s.classes) for s in (best, twin))
        gaps.append(b - a)
        references.append(b)
    reach = twin.value - chance
    lost, se = (twin.value - best.value) / max(reach, 1e-9), float(np.std(gaps)) / max(reach, 1e-9)
    if reach - 2 * float(np.std(references)) <= LEARNED:
        truth = "no-reference"
    elif lost - 2 * se > MARGIN:
        truth = "faulty"
    elif lost <= min(CLOSE + 2 * se, MARGIN):
        truth = "healthy"
    else:
        truth = "ambiguous"
    return Truth(truth, saved.value, untreated.value, twin.value, chance, lost, se)

"""What is planted in a network, and which cause the diagnosis should then name first.

``causes``: any of them is right. ``near``: what the physics does not tell apart from them (an RNN
of gain 5 is saturated as well); counted apart. Whether the planted thing did any harm is measured
(``truth.py``): where it did none, the model is a healthy one and no cause is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Condition:
    """One thing done to a network; ``causes`` is empty where no single cause was planted."""

    says: str
    causes: tuple[str, ...] = ()
    near: tuple[str, ...] = ()


LARGE, SMALL, INPUTS = ("large-parameters",), ("small-weights",), ("large-inputs",)
DEAD, COLLAPSE, EXPLODING = ("dead-units",), ("forward-collapse",), ("exploding",)
TIME = ("vanishing-through-time",)
DEPTH = ("depth-gain", "depth-derivative")
WEAK = (*COLLAPSE, *DEPTH, "flat-slope", *TIME)

HEALTHY = {
    "fresh": Condition("the healthy reference before its first step"),
    "early": Condition("after 5 % of its steps"),
    "trained": Condition("after half of its steps"),
    "converged": Condition("after all of its steps"),
    "noisy": Condition("30 % of the labels wrong, also those held out (targets: noise of sd 1)"),
    "imbalanced": Condition("99 of 100 samples of one class"),
    "decayed": Condition("trained with L2 of 1e-3 in the loss"),
    "hot": Condition("trained at three times the learning rate"),
    "pruned": Condition("the smallest 60 % of each weight matrix set to zero after training"),
    "rounded": Condition("parameters rounded to bfloat16 after training"),
    "scaled-works": Condition("all weights under a normalisation x10 after training"),
    "noisy20": Condition("20 % of the labels wrong, also those held out"),
    "noisy40": Condition("40 % of them"),
    "skewed": Condition("19 of 20 samples of one class"),
    "overtrained": Condition("after four times its steps"),
    "smoothed": Condition("trained with labels smoothed by .2"),
    "units-cut": Condition("a quarter of the units of each hidden layer at zero after training"),
    "quantised": Condition("weight matrices rounded to six bits after training"),
    "confident": Condition("the last layer x5 after training: logits that are too sure"),
    "new-head": Condition("trained, then the last layer drawn anew"),
}

FAULTS = {
    "u10": Condition("all parameters drawn from U[-10, 10]", LARGE, EXPLODING),
    "n1": Condition("all parameters drawn from N(0, 1)", LARGE, EXPLODING),
    "n3": Condition("all parameters drawn from N(0, 3)", LARGE, EXPLODING),
    "x10": Condition("all parameters x10 after training", LARGE, EXPLODING),
    "x30": Condition("all parameters x30 after training", LARGE, EXPLODING),
    "one-layer": Condition("one hidden layer redrawn from U[-10, 10] after training", LARGE),
    "bias": Condition("hidden biases drawn from +-8 standard deviations of z", LARGE, COLLAPSE),
    "small": Condition("all parameters drawn from N(0, .05), N(0, .02) from width 24", SMALL,
                       (*COLLAPSE, *DEPTH, "flat-slope")),
    "default": Condition("torch's default start of a deep network", DEPTH, (*SMALL, *COLLAPSE)),
    "plateaued": Condition("the same after all of its steps", DEPTH, (*SMALL, *COLLAPSE)),
    "sane-flat": Condition("Xavier start of a deep logistic network", ("flat-slope",), COLLAPSE),
    "plateaued-flat": Condition("the same after all of its steps", ("flat-slope",), COLLAPSE),
    "gain3": Condition("weights of gain 3 a layer", EXPLODING, LARGE),
    "collapse": Condition("weights of the middle hidden layer x1e-5, its biases drawn anew",
                          COLLAPSE, SMALL),
    "dead": Condition("biases of all hidden layers at -20 standard deviations of z", DEAD),
    "dead-layer": Condition("the same in one layer after training", DEAD),
    "dead-branch": Condition("weights of all branches x1e-4: only the skips are left", SMALL),
    "inputs-x1000": Condition("inputs x1000", INPUTS, EXPLODING),
    "inputs-offset": Condition("inputs +1000", INPUTS, EXPLODING),
    "inputs-column": Condition("every fourth column x1000", INPUTS, EXPLODING),
    "rec0.3": Condition("recurrent weights orthogonal x0.3", TIME, SMALL),
    "rec5": Condition("recurrent weights orthogonal x5", EXPLODING, (*LARGE, *TIME)),
    "shut": Condition("forget gates shut by a bias of -6", TIME),
    "qk10": Condition("queries and keys x10 after training", LARGE),
    "nan": Condition("one weight is NaN", ("nonfinite",)),
    "diverged": Condition("trained at 300 times the learning rate"),
    "u4": Condition("all parameters drawn from U[-4, 4]", LARGE, EXPLODING),
    "student": Condition("all parameters drawn from Student's t of 1.5", LARGE, EXPLODING),
    "start-x6": Condition("weights of the start x6", LARGE, EXPLODING),
    "late-x20": Condition("parameters of the later half x20 after training", LARGE, EXPLODING),
    "bias5": Condition("hidden biases at +5 standard deviations of z", LARGE, COLLAPSE),
    "start-x0.15": Condition("weights of the start x0.15", SMALL,
                             (*COLLAPSE, *DEPTH, "flat-slope", *TIME)),
    "start-x0.4": Condition("weights of a deep start x0.4", (*DEPTH, *SMALL), COLLAPSE),
    "gain2.5": Condition("weights of gain 2.5 a layer", EXPLODING, LARGE),
    "dead-most": Condition("biases of 97 % of the hidden units at -20 standard deviations", DEAD),
    "inputs-x200": Condition("inputs x200", INPUTS, EXPLODING),
    "inputs-minus": Condition("inputs x3 - 300", INPUTS, EXPLODING),
    "inputs-mixed": Condition("columns x1, x10, ... x10000", INPUTS, EXPLODING),
    "inputs-raw": Condition("trained on inputs x12 + 20", INPUTS, EXPLODING),
    "rec0.15": Condition("recurrent weights orthogonal x0.15", TIME, SMALL),
    "rec4": Condition("recurrent weights orthogonal x4", EXPLODING, (*LARGE, *TIME)),
    "forgets": Condition("forget gates shut by biases of -8 to -4", TIME),
    "qk30": Condition("queries and keys of the start x30", LARGE),
    "inf": Condition("one bias is infinite", ("nonfinite",)),
    "overshot": Condition("trained at 100 times the learning rate"),
    "u3": Condition("all parameters drawn from U[-3, 3]", LARGE, EXPLODING),
    "u3-half": Condition("the same after half of its steps", LARGE, EXPLODING),
    "u3-whole": Condition("the same after all of its steps", LARGE, EXPLODING),
    "u10-whole": Condition("U[-10, 10], after all of its steps", LARGE, EXPLODING),
    "n1-whole": Condition("N(0, 1), after all of its steps", LARGE, EXPLODING),
    "n0.05": Condition("all parameters drawn from N(0, .05)", SMALL, WEAK),
    "n0.01": Condition("all parameters drawn from N(0, .01)", SMALL, WEAK),
    "n0.01-half": Condition("the same after half of its steps", SMALL, WEAK),
    "default-half": Condition("torch's default start of a deep network, after half of its steps",
                              DEPTH, (*SMALL, *COLLAPSE)),
    "x20": Condition("all parameters x20 after training", LARGE, EXPLODING),
    "zeros": Condition("all parameters 0", SMALL, (*COLLAPSE, *DEAD)),
    "gain4": Condition("weights of gain 4 a layer", EXPLODING, LARGE),
    "block-x50": Condition("one hidden layer x50 after training", LARGE, EXPLODING),
    "block-tiny": Condition("weights of one hidden layer x1e-4 after training", COLLAPSE, SMALL),
    "bias-u10": Condition("hidden biases drawn from U[-10, 10]", LARGE, COLLAPSE),
    "input-shut": Condition("input gates shut by a bias of -8"),
    "update-shut": Condition("update gates at a bias of 8: the state is kept, nothing comes in"),
    "qk-x20": Condition("queries and keys of the start x20", LARGE),
    "nan-bias": Condition("one bias is NaN", ("nonfinite",)),
    "inputs-x50": Condition("inputs x50", INPUTS, EXPLODING),
    "inputs-plus50": Condition("inputs +50", INPUTS, EXPLODING),
    "inputs-pixels": Condition("inputs x64 + 128", INPUTS, EXPLODING),
}  # fmt: skip

CONDITIONS = {**HEALTHY, **FAULTS}

_FLAT = Condition("", ("flat-slope",), (*DEPTH, *SMALL, *COLLAPSE))
LOGISTIC = {"default": _FLAT, "default-half": _FLAT}
"""Where a logistic network has another cause: of a default start -.60 decades a layer are its
slope's and -.24 its weights'."""


def planted(condition: str, activation: str) -> Condition:
    """What a condition plants in a network of this activation."""
    if activation == "logistic" and condition in LOGISTIC:
        return LOGISTIC[condition]
    return CONDITIONS[condition]

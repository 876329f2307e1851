"""The families of the calibration zoo and their split, fixed before any threshold was looked at.

A family is an architecture, an activation and a data set that appear together nowhere else. The
families of ``HELD`` are evaluated once, at the end; nothing may be set by looking at them.
Every condition of a family is built with each seed of ``SEEDS``: see ``plants.py`` for what is done
to a network, ``truth.py`` for how it is decided whether that harmed it.
"""

from __future__ import annotations

from dataclasses import dataclass

SEEDS = (0, 1, 2, 3)
"""Seeds of one family: other weights, another split of the data, other batches. Odd ones start from
torch's default where the network is shallow, and planted networks are saved a quarter of the budget
of steps later."""


@dataclass(frozen=True)
class Family:
    """One kind of network on one data set.

    Attributes:
        kind: mlp, cnn, cnn1d, rnn, lstm, gru, resmlp, rescnn, transformer; ae, unet1d, gruseq,
            mixer, postln (``fresh_nets.py``); dropmlp, bare (``fourth_nets.py``).
        activation: of the hidden layers (of the feed-forward part in a transformer).
        data: a data set of ``data.py``.
        depth: hidden layers, blocks or recurrent layers.
        width: units, channels or model dimension.
        steps: budget of the healthy reference, and of every continuation.
        healthy, faults: conditions, by name.
        optimiser, lr: how the family is trained.
        norm: none, batch or layer.
        whole: whether chains are saved as modules; else all are saved as state dicts.
    """

    name: str
    kind: str
    activation: str
    data: str
    depth: int
    width: int
    steps: int
    healthy: tuple[str, ...]
    faults: tuple[str, ...]
    optimiser: str = "adam"
    lr: float = 1e-3
    norm: str = "none"
    whole: bool = True


USUAL = ("fresh", "early", "trained", "converged", "noisy")
"""Of the healthy reference: before training, after 5 %, 50 % and all of its steps; 30 % of the
training labels wrong."""
SPARSE = (*USUAL, "imbalanced")
"""And one where 99 of 100 samples are of one class."""
STRONG = (*USUAL, "decayed", "hot")
"""And with strong weight decay; with three times the learning rate."""

WEIGHTS = ("u10", "n1", "x10", "x30", "small")
INPUTS = ("inputs-x1000", "inputs-offset")


def family(
    name: str,
    kind: str,
    size: tuple[int, int, int],
    healthy: tuple[str, ...],
    faults: tuple[str, ...],
    train: tuple[str, float] = ("adam", 1e-3),
    norm: str = "none",
) -> Family:
    """``name`` is KIND-ACTIVATION-DATA[-REMARK]; ``size`` is depth, width, steps."""
    _, activation, data = name.split("-")[:3]
    return Family(name, kind, activation, data, *size, healthy, faults, *train, norm)


DEVELOPMENT = (
    family("mlp-tanh-digits", "mlp", (3, 32, 1200), SPARSE,
           (*WEIGHTS, *INPUTS, "one-layer", "nan")),
    family("mlp-logistic-digits", "mlp", (3, 32, 1500), USUAL,
           ("u10", "n3", "x30", "small", "inputs-x1000", "collapse")),
    family("mlp-relu-digits", "mlp", (3, 64, 1000), STRONG,
           ("u10", "dead", "small", "inputs-x1000", "diverged", "nan"), ("momentum", 0.03)),
    family("mlp-softsign-cancer", "mlp", (3, 16, 800), SPARSE,
           ("u10", "x30", "small", "inputs-offset", "bias")),
    family("mlp-arctan-mnist1d", "mlp", (4, 48, 2500), USUAL,
           ("u10", "n1", "x10", "small", "collapse", "one-layer")),
    family("mlp-tanh-digits-deep", "mlp", (20, 8, 1500), ("fresh", "trained", "converged", "noisy"),
           ("default", "plateaued", "small", "n3", "gain3", "one-layer", "collapse")),
    family("mlp-relu-mnist1d-deep", "mlp", (20, 32, 2500), ("fresh", "trained", "converged"),
           ("default", "plateaued", "small", "gain3", "dead", "dead-layer")),
    family("mlp-logistic-cancer-deep", "mlp", (10, 24, 800), ("fresh", "trained", "converged"),
           ("default", "sane-flat", "plateaued-flat", "small", "u10")),
    family("mlp-tanh-digits-narrow", "mlp", (1, 8, 6000),
           ("fresh", "trained", "converged", "noisy", "hot"), ("u10", "x30"), ("adam", 5e-3)),
    family("mlp-tanh-diabetes", "mlp", (2, 32, 600), ("fresh", "trained", "noisy"),
           ("u10", "small", "inputs-x1000", "inputs-offset", "nan"), ("sgd", 0.03)),
    family("mlp-gelu-spirals", "mlp", (4, 32, 2000), STRONG,
           ("u10", "small", "inputs-x1000", "collapse"), ("adamw", 2e-3)),
    family("mlp-hardtanh-wine", "mlp", (3, 24, 800), USUAL,
           ("u10", "n1", "bias", "inputs-x1000", "inputs-column"), ("momentum", 0.02)),
    family("cnn-tanh-digits", "cnn", (2, 12, 700), STRONG,
           ("u10", "n1", "x10", "x30", "bias", "inputs-x1000", "inputs-offset")),
    family("cnn-relu-mnist", "cnn", (3, 12, 600), USUAL,
           ("u10", "dead", "small", "inputs-x1000", "x30", "diverged"), ("momentum", 0.02)),
    family("cnn-relu-digits-bn", "cnn", (3, 12, 500), (*USUAL, "scaled-works"),
           ("u10", "dead-layer", "nan", "inputs-offset"), ("adam", 2e-3), "batch"),
    family("cnn1d-relu-mnist1d", "cnn1d", (3, 16, 1500), USUAL,
           ("u10", "dead", "small", "inputs-x1000", "collapse")),
    family("lstm-tanh-lag20", "lstm", (1, 24, 900), ("fresh", "trained", "converged", "noisy"),
           ("n3", "x30", "shut", "inputs-x1000", "nan"), ("adam", 5e-3)),
    family("lstm-tanh-mnistrows", "lstm", (1, 32, 600), USUAL,
           ("n1", "x30", "u10", "inputs-x1000", "small")),
    family("gru-tanh-adding12", "gru", (1, 24, 800), ("fresh", "trained", "converged"),
           ("n3", "x30", "inputs-x1000", "small"), ("adam", 5e-3)),
    family("rnn-tanh-lag40", "rnn", (1, 32, 1500), ("fresh", "trained", "converged", "noisy"),
           ("rec0.3", "rec5", "u10", "small")),
    family("resmlp-tanh-digits", "resmlp", (8, 24, 800), (*USUAL, "hot"),
           ("x10", "n1", "u10", "inputs-x1000", "dead-branch")),
    family("resmlp-relu-mnist1d-bn", "resmlp", (6, 32, 1200), (*USUAL, "scaled-works"),
           ("u10", "nan", "inputs-offset", "x30"), ("adam", 1e-3), "batch"),
    family("transformer-gelu-digits", "transformer", (2, 32, 700), USUAL,
           ("x10", "u10", "n1", "qk10", "nan"), ("adam", 1e-3), "layer"),
    family("transformer-relu-recall", "transformer", (2, 32, 1500),
           ("fresh", "trained", "converged"), ("x10", "x30", "dead-layer", "n1"),
           ("adamw", 2e-3), "layer"),
)  # fmt: skip

HELD = (
    family("mlp-logistic-mnist", "mlp", (3, 48, 900), USUAL,
           ("u10", "n3", "x30", "small", "collapse")),
    family("mlp-softsign-digits-deep", "mlp", (18, 12, 1500), ("fresh", "trained", "converged"),
           ("default", "plateaued", "small", "n3", "one-layer")),
    family("mlp-arctan-spirals", "mlp", (3, 32, 2000), USUAL,
           ("u10", "x30", "small", "inputs-x1000", "bias"), ("momentum", 0.05)),
    family("mlp-hardtanh-mnist1d-deep", "mlp", (14, 16, 2000), ("fresh", "trained", "converged"),
           ("default", "plateaued", "small", "gain3", "collapse")),
    family("mlp-tanh-mnist1d", "mlp", (6, 32, 2000), USUAL,
           ("u10", "n1", "x10", "one-layer", "inputs-offset"), ("adamw", 1e-3)),
    family("mlp-relu-diabetes", "mlp", (3, 32, 600), ("fresh", "trained", "noisy"),
           ("small", "dead", "inputs-x1000", "nan", "u10"), ("momentum", 0.01)),
    family("mlp-gelu-wine", "mlp", (3, 24, 500), USUAL,
           ("u10", "small", "inputs-column", "inputs-offset"), ("sgd", 0.1)),
    family("mlp-arctan-cancer-narrow", "mlp", (1, 6, 4000),
           ("fresh", "trained", "converged", "noisy", "imbalanced", "hot"), ("u10", "inputs-x1000"),
           ("adam", 5e-3)),
    family("cnn-arctan-mnist", "cnn", (2, 12, 600), USUAL,
           ("u10", "n1", "x30", "bias", "inputs-x1000")),
    family("cnn-softsign-digits-deep", "cnn", (12, 8, 800), ("fresh", "trained", "converged"),
           ("default", "plateaued", "small", "u10")),
    family("cnn-gelu-mnist-bn", "cnn", (3, 12, 500), (*USUAL, "scaled-works"),
           ("u10", "nan", "inputs-offset"), ("adamw", 2e-3), "batch"),
    family("cnn1d-tanh-mnist1d", "cnn1d", (3, 16, 1500), USUAL,
           ("u10", "x10", "small", "inputs-offset", "one-layer")),
    family("lstm-tanh-adding12", "lstm", (1, 24, 1200), ("fresh", "trained", "converged"),
           ("n3", "x30", "shut", "inputs-x1000"), ("adam", 5e-3)),
    family("gru-tanh-mnistrows", "gru", (1, 32, 500), USUAL,
           ("n3", "x30", "u10", "small", "nan")),
    family("rnn-tanh-mnistrows", "rnn", (1, 40, 900), ("fresh", "trained", "converged", "noisy"),
           ("rec5", "u10", "inputs-x1000", "n1")),
    family("rnn-relu-lag30", "rnn", (1, 32, 1500), ("fresh", "trained", "converged"),
           ("rec0.3", "rec5", "small")),
    family("resmlp-gelu-cancer-ln", "resmlp", (6, 24, 500), (*SPARSE, "scaled-works"),
           ("x30", "u10", "inputs-offset"), ("adam", 1e-3), "layer"),
    family("rescnn-relu-mnist", "rescnn", (4, 12, 400), USUAL,
           ("x10", "u10", "nan", "dead-branch"), ("adam", 1e-3), "batch"),
    family("transformer-gelu-mnistrows", "transformer", (2, 32, 600), USUAL,
           ("x10", "u10", "n1", "nan"), ("adam", 1e-3), "layer"),
)  # fmt: skip

RECURRENT = ("rnn", "lstm", "gru", "gruseq")

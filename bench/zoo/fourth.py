"""A fourth part of the zoo: families listed after the third part had taught the rules, too.

Other data and plants than in ``families.py`` and ``fresh.py``, and no combination of architecture,
activation and data that occurs there; listed before a model was built, evaluated once, with the
rules frozen. If its building is cut short, families are dropped from the end of the list.
"""

from __future__ import annotations

from bench.zoo.families import Family, family

SEEDS = (7, 8)
"""One odd, one even: see ``families.SEEDS``."""

FOURTH: tuple[Family, ...] = (
    family("mlp-tanh-iris-narrow", "mlp", (1, 5, 2000),
           ("fresh", "converged", "overtrained", "noisy20"),
           ("u10", "bias-u10", "inputs-x50"), ("adam", 5e-3)),
    family("cnn-tanh-shapes", "cnn", (3, 10, 800),
           ("fresh", "converged", "units-cut", "new-head"),
           ("u10", "n0.05", "inputs-pixels", "one-layer"), ("adam", 2e-3)),
    family("lstm-tanh-order", "lstm", (1, 24, 1200), ("fresh", "trained", "converged"),
           ("input-shut", "shut", "u3", "inputs-x1000"), ("adam", 5e-3)),
    family("mlp-relu-parity", "mlp", (3, 32, 1200), ("fresh", "early", "converged", "units-cut"),
           ("dead", "n0.01-half", "u10", "nan"), ("momentum", 0.03)),
    family("transformer-relu-brackets", "transformer", (2, 24, 900),
           ("fresh", "converged", "noisy20", "quantised"), ("u3", "n1-whole", "x20"),
           ("adamw", 2e-3), "layer"),
    family("mlp-tanh-cancerworst-deep", "mlp", (22, 12, 1200), ("fresh", "trained", "converged"),
           ("default", "plateaued", "gain4", "one-layer"), ("adamw", 1e-3)),
    family("gru-tanh-forecast", "gru", (1, 20, 800), ("fresh", "converged", "noisy", "rounded"),
           ("update-shut", "u3-half", "n0.01"), ("rmsprop", 2e-3)),
    family("resmlp-arctan-friedman3", "resmlp", (10, 20, 800),
           ("fresh", "early", "converged", "hot"), ("n1", "block-x50", "inputs-x1000", "u3")),
    family("mlp-logistic-hastie-deep", "mlp", (8, 24, 1200), ("fresh", "trained", "converged"),
           ("default", "default-half", "n0.05", "inputs-offset"), ("adam", 2e-3)),
    family("cnn-relu-textures-bn", "cnn", (3, 12, 600),
           ("fresh", "overtrained", "scaled-works", "confident"),
           ("dead-layer", "inputs-plus50", "u3"), ("sgd", 0.05), "batch"),
    family("rnn-tanh-trend", "rnn", (1, 24, 1000), ("fresh", "trained", "converged", "noisy40"),
           ("rec0.3", "rec5", "u10-whole", "inputs-x50")),
    family("mlp-arctan-cover", "mlp", (4, 32, 1200), ("fresh", "early", "converged", "confident"),
           ("u3-whole", "n1", "inputs-x1000", "block-tiny"), ("adagrad", 2e-2)),
    family("bare-gelu-pulses", "bare", (3, 24, 900), ("fresh", "trained", "converged", "smoothed"),
           ("qk-x20", "u3", "n0.01"), ("adam", 1e-3)),
    family("mlp-leaky-moons-deep", "mlp", (24, 16, 1000), ("fresh", "converged", "decayed"),
           ("default", "default-half", "n0.05", "block-x50"), ("momentum", 0.01)),
    family("rescnn-leaky-shapes-bn", "rescnn", (4, 10, 500),
           ("fresh", "converged", "noisy40", "quantised"), ("dead-layer", "u10", "inputs-pixels"),
           ("adam", 2e-3), "batch"),
    family("dropmlp-silu-cover", "dropmlp", (3, 48, 1500),
           ("fresh", "converged", "smoothed", "new-head"), ("u3", "zeros", "inputs-pixels"),
           ("adam", 1e-3)),
    family("mlp-hardtanh-quantiles", "mlp", (3, 20, 2000),
           ("fresh", "trained", "pruned", "overtrained"), ("u3-half", "bias", "x20"),
           ("sgd", 0.05)),
    family("cnn1d-silu-pulses", "cnn1d", (4, 12, 700), ("fresh", "early", "skewed", "pruned"),
           ("n0.01", "inputs-plus50", "gain4"), ("rmsprop", 1e-3)),
    family("mlp-softsign-swissroll", "mlp", (3, 24, 1500),
           ("fresh", "early", "converged", "rounded"), ("u3", "n0.01", "nan-bias", "x20"),
           ("adagrad", 2e-2)),
)  # fmt: skip

"""A third part of the zoo: families listed after the second part had been judged.

Other data, architectures, activations, optimisers and plants than in ``families.py``; no threshold
was moved between this list and the building of its models. Evaluated once, with the rules of then.
Each activation that torch has no module for is written as a user would write it.
"""

from __future__ import annotations

from dataclasses import replace

from bench.zoo.families import Family, family

SEEDS = (4, 5, 6)
"""Two even, one odd: see ``families.SEEDS``."""

PLAIN = ("fresh", "early", "converged")
NOISY = (*PLAIN, "noisy")
WORN = (*NOISY, "pruned")
"""And one with the smallest 60 % of each weight matrix at zero."""

_LISTED = (
    family("mlp-mixed-friedman", "mlp", (4, 24, 900), (*NOISY, "rounded"),
           ("u4", "start-x6", "start-x0.15", "inputs-mixed", "inf"), ("rmsprop", 1e-3)),
    family("mlp-softsign-wine-deep", "mlp", (10, 16, 700), PLAIN,
           ("default", "start-x0.4", "student", "inputs-minus", "late-x20"), ("adamw", 1e-3)),
    family("mlp-elu-checker", "mlp", (5, 24, 1500), WORN,
           ("u4", "start-x0.15", "inputs-x200", "overshot"), ("rmsprop", 1e-3)),
    family("mlp-clamp-blobs", "mlp", (3, 32, 1000), (*WORN, "imbalanced"),
           ("u4", "student", "bias5", "inputs-mixed"), ("momentum", 0.02)),
    family("mlp-whererelu-blobs", "mlp", (4, 32, 800), NOISY,
           ("dead-most", "start-x0.15", "inputs-x200", "inf", "start-x6"), ("adam", 2e-3)),
    family("mlp-whererelu-checker-deep", "mlp", (16, 24, 1800), PLAIN,
           ("default", "plateaued", "gain2.5", "start-x0.4"), ("adamw", 1e-3)),
    family("mlp-logistic-circles", "mlp", (2, 12, 1500), (*WORN, "hot"),
           ("u4", "student", "start-x0.15", "inputs-minus"), ("rmsprop", 1e-2)),
    family("ae-tanh-itself", "ae", (4, 32, 1200), (*NOISY, "rounded"),
           ("u4", "late-x20", "start-x0.15", "inputs-x200"), ("adam", 2e-3)),
    family("cnn1d-hardtanh-waves", "cnn1d", (5, 12, 900), WORN,
           ("u4", "start-x6", "start-x0.15", "inputs-minus", "bias5"), ("adamw", 2e-3)),
    family("cnn-silu-bars", "cnn", (4, 12, 500), (*NOISY, "rounded"),
           ("u4", "start-x0.15", "inputs-minus", "inf", "overshot"), ("momentum", 0.02)),
    family("cnn-leaky-bars-deep", "cnn", (14, 8, 600), PLAIN,
           ("default", "plateaued", "gain2.5", "inputs-raw"), ("adam", 1e-3)),
    family("unet1d-arctan-denoise", "unet1d", (4, 12, 700), (*NOISY, "pruned"),
           ("u4", "start-x6", "late-x20", "inputs-x200"), ("rmsprop", 1e-3)),
    family("gruseq-tanh-running", "gruseq", (1, 24, 700), NOISY,
           ("student", "u4", "start-x0.15", "inputs-x200"), ("adamw", 3e-3)),
    family("rnn-tanh-tones", "rnn", (2, 24, 800), NOISY,
           ("rec0.15", "rec4", "u4", "inputs-minus"), ("rmsprop", 1e-3)),
    family("lstm-tanh-flag", "lstm", (2, 20, 900), PLAIN,
           ("forgets", "student", "late-x20", "inputs-x200", "inf"), ("adamw", 5e-3)),
    family("resmlp-softsign-friedman", "resmlp", (16, 20, 700), (*NOISY, "hot"),
           ("u4", "late-x20", "inputs-minus", "start-x6"), ("adamw", 1e-3), "layer"),
    family("mixer-gelu-digits", "mixer", (3, 16, 700), WORN,
           ("u4", "student", "inputs-minus", "inf"), ("adamw", 2e-3), "layer"),
    family("transformer-gelu-bag", "transformer", (3, 40, 900), PLAIN,
           ("qk30", "u4", "student", "late-x20"), ("adamw", 1e-3), "layer"),
    family("postln-relu-waves", "postln", (3, 24, 700), NOISY,
           ("qk30", "u4", "start-x6", "inf"), ("adam", 1e-3), "layer"),
)  # fmt: skip

FRESH: tuple[Family, ...] = tuple(replace(f, whole=False) for f in _LISTED)
"""Saved as state dicts, so that their files do not depend on a version of torch."""

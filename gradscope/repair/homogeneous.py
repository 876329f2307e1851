"""What operations do to a scale: those that pass it, and in which way; all others do not."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import torch


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


ACTS = {
    "tanh": "tanh", "sigmoid": "sigmoid", "atan": "atan", "erf": "erf",
    "hardsigmoid": "hardsigmoid", "hardtanh": "hardtanh",
}  # fmt: skip
"""Bounded activations by their operation."""

POWERS = {"sqrt": Fraction(1, 2), "rsqrt": Fraction(-1, 2), "reciprocal": Fraction(-1)}

KEEPS = _words(
    """
    relu leaky_relu abs neg clone detach alias view _unsafe_view reshape _reshape_alias t
    transpose permute expand slice select squeeze unsqueeze unfold _to_copy as_strided split
    split_with_sizes unsafe_split chunk unbind avg_pool1d avg_pool2d avg_pool3d
    _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool1d max_pool1d
    max_pool2d_with_indices max_pool3d_with_indices adaptive_max_pool2d adaptive_max_pool3d
    mean sum amax amin max min median index_select gather index flip roll cumsum repeat
    upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_bilinear2d
    upsample_linear1d upsample_bicubic2d reflection_pad1d reflection_pad2d reflection_pad3d
    replication_pad1d replication_pad2d replication_pad3d native_dropout diagonal im2col
    linalg_vector_norm norm pixel_shuffle contiguous constant_pad_nd masked_fill threshold
    lift_fresh clamp_min tril triu
    """
)
"""Positively homogeneous in the first argument, and whatever else they take is no number of it."""

SUMS = _words(
    """
    add sub rsub cat stack where maximum minimum
    """
)
PRODUCTS = _words(
    """
    mul mm bmm mv dot matmul
    """
)
BIASED = {"addmm": (0, 1, 2), "baddbmm": (0, 1, 2), "addmv": (0, 1, 2), "linear": (2, 0, 1),
           "convolution": (2, 0, 1)}  # fmt: skip
"""Places of what is added, and of both factors."""
OTHERS = _words(
    """
    relu leaky_relu gelu silu elu _prelu_kernel hardswish mish
    """
)
"""Activations that alpha does not act on."""
FRESH = _words(
    """
    zeros_like ones_like empty_like full_like new_zeros new_ones new_empty new_full rand_like
    randn_like argmax argmin zeros ones empty full arange scalar_tensor bernoulli
    """
)
"""What does not depend on the numbers, or, of a largest one, not on their scale."""
BATCH_NORMS = _words(
    """
    native_batch_norm _native_batch_norm_legit cudnn_batch_norm _batch_norm_with_update
    _native_batch_norm_legit_no_training miopen_batch_norm
    """
)


def keeps(name: str, args: tuple[Any, ...]) -> bool:
    """Whether its other arguments leave it homogeneous."""
    rest = args[1:]
    if name in ("max", "min"):
        return not any(isinstance(a, torch.Tensor) for a in rest)
    if name == "constant_pad_nd":
        return len(rest) < 2 or not rest[1]
    if name in ("clamp_min", "threshold"):
        return not any(rest)
    if name == "masked_fill":
        value = float(rest[1])
        return not value or math.isinf(value)
    return True

"""Magnitudes of parameters and of their gradients: once per report, not per batch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from gradscope.measurements import Histogram, State, WeightStats
from gradscope.probe.hosted import chunk_of, count
from gradscope.probe.norms import norms_of
from gradscope.probe.outliers import outliers
from gradscope.probe.rounds import Asking, alone, together

SPECTRAL_TOLERANCE = 1e-6
_MAX_STEPS = 80
_BINS = 48
_EXACT_UP_TO = 64  # a Gram matrix of this size is diagonalised faster than iterated on


def _real(tensor: torch.Tensor) -> torch.Tensor:
    return torch.view_as_real(tensor.detach()) if tensor.is_complex() else tensor.detach()


def weight_stats(weight: torch.Tensor, fan_in: int | None, gain: float) -> WeightStats:
    """Statistics of one parameter's values.

    Args:
        weight: the parameter.
        fan_in: inputs of one unit; None for vectors and embeddings.
        gain: sqrt(2) before ReLU-like activations, else 1 (He et al. 2015; Glorot, Bengio 2010).
    """
    return alone(_examine(Weight(weight, fan_in, gain)))


@dataclass(frozen=True)
class Weight:
    """A parameter to examine, see :func:`weight_stats`; ``units``: the axis of its units."""

    tensor: torch.Tensor
    fan_in: int | None
    gain: float
    units: int = 0


def stats_of_all(weights: Iterable[Weight]) -> list[WeightStats]:
    """:func:`weight_stats` of each; an accelerator is waited for as often as for a few."""
    return together(_examine, weights, lambda w: w.tensor)


def _examine(asked: Weight) -> Asking[WeightStats]:
    weight = asked.tensor
    flat = _real(weight).reshape(-1)
    n = flat.numel()
    if n == 0:
        return WeightStats(State.ZERO)
    if not flat.is_floating_point():
        flat = flat.double()
    elif flat.dtype.itemsize == 1:  # torch has little arithmetic for float8
        weight = weight.detach().float()
        flat = weight.reshape(-1)
    wide = flat if flat.dtype in (torch.float32, torch.float64) else flat.float()
    low, high, nonzero = yield [*torch.aminmax(wide), torch.count_nonzero(flat)]
    finite = n
    if not (math.isfinite(low) and math.isfinite(high)):  # else there is nothing to look for
        (finite,) = yield [_finite(flat)]
        wide = wide[torch.isfinite(wide)]
        low, high = (yield [*torch.aminmax(wide)]) if finite else (0.0, 0.0)
    bad, zero = n - finite, n - nonzero
    rms = (yield from _norm(wide, max(-low, high))) / math.sqrt(max(finite, 1))
    state = State.NONFINITE if bad else State.ZERO if zero == n else State.VALUE
    matrix = weight.dim() >= 2 and not bad
    return WeightStats(
        state=state,
        rms=rms,
        max_abs=max(-low, high),
        spectral_norm=(yield from _spectral_norm(weight)) if matrix else None,
        spectral_tolerance=SPECTRAL_TOLERANCE if matrix else None,
        init_ratio=init_ratio(rms, asked.fan_in, asked.gain),
        zero_fraction=zero / n,
        nonfinite_fraction=bad / n,
        outliers=(yield from outliers(_real(weight), asked.units)) if not bad and zero < n else (),
        histogram=(yield from _histogram(wide, low, high)) if finite else None,
    )


def _norm(wide: torch.Tensor, largest: float) -> Asking[float]:
    """L2 norm, 0 of nothing."""
    (norm,) = yield [norms_of(wide.unsqueeze(0))[0]]
    if largest > 0 and not 1e-18 < norm < 1e18:  # squares may have left float32's range
        (norm,) = yield [torch.linalg.vector_norm(wide.double() / largest)]
        norm *= largest
    return float(norm)


def _finite(flat: torch.Tensor) -> torch.Tensor:
    """How many elements are neither NaN nor infinite, piece by piece: copies stay small."""
    pieces = torch.split(flat, chunk_of(flat))
    return torch.stack([torch.isfinite(p).sum() for p in pieces]).sum()


def _histogram(wide: torch.Tensor, low: float, high: float) -> Asking[Histogram]:
    """Elements of a finite tensor in :data:`_BINS` bins from the smallest to the largest."""
    if low == high:
        return Histogram(low, high, (wide.numel(),))
    # Scaled before the ends are subtracted: their distance may leave the type's range.
    scale = max(abs(low), abs(high))
    start, width = low / scale, high / scale - low / scale
    counts = torch.zeros(_BINS, dtype=torch.int64, device=wide.device)
    for piece in torch.split(wide, chunk_of(wide)):
        place = piece.div(scale).sub_(start).mul_(_BINS / width)
        bins = place.long().clamp_(0, _BINS - 1)
        counts += count(bins, _BINS)
    (found,) = yield [counts]
    return Histogram(low, high, tuple(found))


def init_ratio(rms: float, fan_in: int | None, gain: float) -> float | None:
    """Root mean square over gain / sqrt(fan_in); None without a fan_in."""
    return rms * math.sqrt(fan_in) / gain if fan_in else None


def _spectral_norm(weight: torch.Tensor) -> Asking[float]:
    """Largest singular value of the matrix (out, everything else).

    Small matrices through the eigenvalues of their Gram matrix in float64; large ones by the power
    method on the Krylov space (Golub, Kahan, Lanczos, with full reorthogonalisation), until a step
    changes the estimate by less than a tenth of :data:`SPECTRAL_TOLERANCE`.
    """
    matrix = weight.detach().reshape(weight.shape[0], -1)
    if 0 in matrix.shape:
        return 0.0
    if not matrix.is_complex() and matrix.dtype is not torch.float64:
        matrix = matrix.float()
    if min(matrix.shape) <= _EXACT_UP_TO:
        wide = matrix.to(torch.complex128 if matrix.is_complex() else torch.float64)
        tall = wide if wide.shape[0] >= wide.shape[1] else wide.mH
        (scale,) = yield [tall.abs().max()]
        if scale == 0:
            return 0.0
        tall = tall / scale
        (largest,) = yield [torch.linalg.eigvalsh(tall.mH @ tall)[-1]]
        return math.sqrt(max(float(largest), 0.0)) * float(scale)
    return (yield from _lanczos(matrix))


def _lanczos(matrix: torch.Tensor) -> Asking[float]:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(matrix.shape[1], generator=generator, dtype=torch.float64)
    v = (start / start.norm()).to(matrix)
    basis = [v]
    diagonal: list[float] = []
    beside: list[float] = []
    u_before, beta_before, estimate = v, v.real.new_zeros(()), 0.0
    for step in range(min(_MAX_STEPS, *matrix.shape)):
        u = matrix @ v
        if step:
            u = u - beta_before * u_before
        alpha_ = torch.linalg.vector_norm(u)
        u = u / alpha_
        w = matrix.mH @ u - alpha_ * v
        known = torch.stack(basis, dim=1)
        w = w - known @ (known.mH @ w)
        beta_before = torch.linalg.vector_norm(w)
        alpha, beta = yield [alpha_, beta_before]
        if alpha == 0:
            break
        diagonal.append(alpha)
        before, estimate = estimate, _bidiagonal_norm(diagonal, beside)
        if abs(estimate - before) <= SPECTRAL_TOLERANCE * 0.1 * estimate or beta == 0:
            break
        beside.append(beta)
        v = w / beta_before
        basis.append(v)
        u_before = u
    return estimate


def _bidiagonal_norm(diagonal: list[float], above: list[float]) -> float:
    matrix = np.diag(diagonal)
    if above:
        matrix += np.diag(above, 1)
    return float(np.linalg.svd(matrix, compute_uv=False)[0])

"""Magnitudes of parameters and of their gradients: once per report, not per batch."""

from __future__ import annotations

import math

import torch

from gradscope.measurements import Histogram, State, WeightStats
from gradscope.probe.hosted import chunk_of, count
from gradscope.probe.outliers import outliers

SPECTRAL_TOLERANCE = 1e-6
_MAX_STEPS = 80
_BINS = 48
_EXACT_UP_TO = 64  # a Gram matrix of this size is diagonalised faster than iterated on
_FP16_TINY, _BF16_TINY = 2.0**-25, 2.0**-134  # half of the smallest subnormal rounds to 0


def _real(tensor: torch.Tensor) -> torch.Tensor:
    return torch.view_as_real(tensor.detach()) if tensor.is_complex() else tensor.detach()


def _norm_and_max(flat: torch.Tensor, *, all_finite: bool) -> tuple[float, float]:
    """L2 norm and largest magnitude of the finite elements."""
    if not all_finite:
        flat = flat[torch.isfinite(flat)]
        if not flat.numel():
            return 0.0, 0.0
    wide = flat if flat.dtype in (torch.float32, torch.float64) else flat.float()
    low, high = torch.aminmax(wide)
    largest = max(-float(low), float(high))
    norm = float(torch.linalg.vector_norm(wide))
    if largest > 0 and not 1e-18 < norm < 1e18:  # squares may have left float32's range
        norm = float(torch.linalg.vector_norm(wide.double() / largest)) * largest
    return norm, largest


def weight_stats(weight: torch.Tensor, fan_in: int | None, gain: float) -> WeightStats:
    """Statistics of one parameter's values.

    Args:
        weight: the parameter.
        fan_in: inputs of one unit; None for vectors and embeddings.
        gain: sqrt(2) before ReLU-like activations, else 1 (He et al. 2015; Glorot, Bengio 2010).
    """
    flat = _real(weight).reshape(-1)
    n = flat.numel()
    if n == 0:
        return WeightStats(State.ZERO)
    if not flat.is_floating_point():
        flat = flat.double()
    elif flat.dtype.itemsize == 1:  # torch has little arithmetic for float8
        weight = weight.detach().float()
        flat = weight.reshape(-1)
    bad = n - _finite(flat)
    norm, largest = _norm_and_max(flat, all_finite=bad == 0)
    rms = norm / math.sqrt(max(n - bad, 1))
    zero = n - int(torch.count_nonzero(flat))
    state = State.NONFINITE if bad else State.ZERO if zero == n else State.VALUE
    matrix = weight.dim() >= 2 and not bad
    return WeightStats(
        state=state,
        rms=rms,
        max_abs=largest,
        spectral_norm=spectral_norm(weight) if matrix else None,
        spectral_tolerance=SPECTRAL_TOLERANCE if matrix else None,
        init_ratio=init_ratio(rms, fan_in, gain),
        zero_fraction=zero / n,
        nonfinite_fraction=bad / n,
        outliers=outliers(_real(weight)) if not bad and zero < n else (),
        histogram=value_histogram(flat, all_finite=not bad),
    )


def _finite(flat: torch.Tensor) -> int:
    """How many elements are neither NaN nor infinite, piece by piece: copies stay small."""
    return sum(int(torch.isfinite(p).sum()) for p in torch.split(flat, chunk_of(flat)))


def value_histogram(flat: torch.Tensor, *, all_finite: bool) -> Histogram | None:
    """Finite elements of a real tensor in :data:`_BINS` bins from the smallest to the largest."""
    if not all_finite:
        flat = flat[torch.isfinite(flat)]
    if not flat.numel():
        return None
    wide = flat if flat.dtype in (torch.float32, torch.float64) else flat.float()
    low, high = (float(end) for end in torch.aminmax(wide))
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
    return Histogram(low, high, tuple(counts.tolist()))


def init_ratio(rms: float, fan_in: int | None, gain: float) -> float | None:
    """Root mean square over gain / sqrt(fan_in); None without a fan_in."""
    return rms * math.sqrt(fan_in) / gain if fan_in else None


def spectral_norm(weight: torch.Tensor) -> float:
    """Largest singular value of the matrix (out, everything else).

    Small matrices through the eigenvalues of their Gram matrix in float64; large ones by the power
    method on the Krylov space (Golub, Kahan, Lanczos, with full reorthogonalisation), until the
    estimate changes by less than :data:`SPECTRAL_TOLERANCE`.
    """
    matrix = weight.detach().reshape(weight.shape[0], -1)
    if 0 in matrix.shape:
        return 0.0
    if not matrix.is_complex() and matrix.dtype is not torch.float64:
        matrix = matrix.float()
    if min(matrix.shape) <= _EXACT_UP_TO:
        wide = matrix.to(torch.complex128 if matrix.is_complex() else torch.float64)
        tall = wide if wide.shape[0] >= wide.shape[1] else wide.mH
        scale = float(tall.abs().max())
        if scale == 0:
            return 0.0
        tall = tall / scale
        return math.sqrt(max(float(torch.linalg.eigvalsh(tall.mH @ tall)[-1]), 0.0)) * scale
    return _lanczos(matrix)


def _lanczos(matrix: torch.Tensor) -> float:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(matrix.shape[1], generator=generator, dtype=torch.float64)
    v = (start / start.norm()).to(matrix)
    basis = [v]
    diagonal: list[float] = []
    beside: list[float] = []
    u_before, estimate = None, 0.0
    for _ in range(min(_MAX_STEPS, *matrix.shape)):
        u = matrix @ v
        if u_before is not None:
            u = u - beside[-1] * u_before
        alpha = float(u.norm())
        if alpha == 0:
            break
        u = u / alpha
        diagonal.append(alpha)
        w = matrix.mH @ u - alpha * v
        known = torch.stack(basis, dim=1)
        w = w - known @ (known.mH @ w)
        before, estimate = estimate, _bidiagonal_norm(diagonal, beside)
        beta = float(w.norm())
        if abs(estimate - before) <= SPECTRAL_TOLERANCE * 0.1 * estimate or beta == 0:
            break
        beside.append(beta)
        v = w / beta
        basis.append(v)
        u_before = u
    return estimate


def _bidiagonal_norm(diagonal: list[float], above: list[float]) -> float:
    n = len(diagonal)
    matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    if n > 1:
        matrix += torch.diag(torch.tensor(above[: n - 1], dtype=torch.float64), 1)
    return float(torch.linalg.matrix_norm(matrix, 2))

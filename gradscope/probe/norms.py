"""L2 norms of long rows.

torch adds the squares of a float32 row up in a few lanes of float32: over 16 million numbers the
norm is off by a thousandth. Of rows of a few thousand it is exact to the last digits.
"""

from __future__ import annotations

import torch

_FEW, _RUN = 64, 4096


def norms_of(rows: torch.Tensor) -> torch.Tensor:
    """L2 norm of each row, float64, (rows,).

    Args:
        rows: (rows, ...), float32, float64 or complex.
    """
    if rows.numel() < 2 * _RUN * len(rows) or not len(rows):
        return _norms(rows.flatten(1))
    if rows.dim() > 2 and _FEW <= rows.shape[-1] < 2 * _RUN:
        return _joint(_norms(rows, dim=-1).flatten(1))
    flat = rows.flatten(1)
    whole = flat.shape[1] - flat.shape[1] % _RUN
    runs = _norms(torch.unflatten(flat[:, :whole], 1, (-1, _RUN)), dim=2)
    if whole < flat.shape[1]:
        runs = torch.cat((runs, _norms(flat[:, whole:]).unsqueeze(1)), dim=1)
    return _joint(runs)


def _norms(rows: torch.Tensor, dim: int = 1) -> torch.Tensor:
    found: torch.Tensor = torch.linalg.vector_norm(rows, dim=dim).double()
    return found


def _joint(norms: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = torch.linalg.vector_norm(norms, dim=1)
    return found

"""Parameters that stay on the disk: mapped into memory, where the system reads pages on demand.

Pages that were read and never written can be dropped whenever memory is short, and gradients
arrive at the parameters as ever. Offloading by hooks, which copy a layer's parameters for its
forward pass, cannot serve a backward pass: the graph keeps the copies, and gradients reach them
alone.
"""

from __future__ import annotations

import errno
from bisect import bisect_right
from collections.abc import Iterable
from pathlib import Path

import torch

from gradscope.errors import LoadError

_PIECE = 1 << 24  # bytes that are written at a time


def to_disk(tensors: Iterable[torch.Tensor], folder: Path) -> int:
    """Map tensors on the CPU, each from a file of its own, unless they are mapped already.

    Args:
        tensors: parameters and buffers; their ``data`` is replaced.
        folder: exists, and outlives the tensors.

    Returns:
        bytes that were written.

    Raises:
        LoadError: there is no room.
    """
    mapped, written = _Mapped(), 0
    for number, tensor in enumerate(tensors):
        if not tensor.numel() or mapped.holds(tensor):
            continue
        file = folder / f"{number}.bin"
        try:
            _write(tensor, file)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            what, hint = "there is no room for parameters", "Set TMPDIR to a larger disk."
            raise LoadError(what, where=str(folder), hint=hint) from error
        nbytes = tensor.numel() * tensor.element_size()
        storage = torch.UntypedStorage.from_file(str(file), False, nbytes)
        found = torch.empty(0, dtype=tensor.dtype).set_(storage, 0, tensor.shape)  # type: ignore[call-overload]
        tensor.data = found
        written += nbytes
    return written


def _write(tensor: torch.Tensor, file: Path) -> None:
    flat = tensor.detach().contiguous().reshape(-1)
    with file.open("wb") as stream:
        for piece in torch.split(flat, _PIECE // tensor.element_size()):
            piece.view(torch.uint8).numpy().tofile(stream)


class _Mapped:
    """Which addresses are those of files; none where the system does not tell."""

    def __init__(self) -> None:
        found = []
        try:
            lines = Path("/proc/self/maps").read_text().splitlines()
        except OSError:
            lines = []
        for line in lines:
            span, _, _, _, inode, *_ = line.split(maxsplit=5)
            if inode != "0":
                begin, _, end = span.partition("-")
                found.append((int(begin, 16), int(end, 16)))
        self._spans = sorted(found)

    def holds(self, tensor: torch.Tensor) -> bool:
        """Whether all of a tensor's memory is a file's."""
        first = tensor.untyped_storage().data_ptr()
        at = bisect_right(self._spans, (first, 1 << 64)) - 1
        return at >= 0 and first + tensor.untyped_storage().nbytes() <= self._spans[at][1]

"""Some samples out of a batch, whatever it is made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from torch.utils._pytree import tree_leaves, tree_map


def is_leaf(value: Any) -> bool:
    """A packed sequence is one thing: its parts have no axis of samples."""
    return isinstance(value, PackedSequence)


def mapped(function: Any, tree: Any) -> Any:
    """``tree_map`` over tensors and packed sequences."""
    return tree_map(function, tree, is_leaf=is_leaf)


def leaves(tree: Any) -> Iterator[torch.Tensor | PackedSequence]:
    """Tensors and packed sequences."""
    for leaf in tree_leaves(tree, is_leaf=is_leaf):
        if isinstance(leaf, torch.Tensor | PackedSequence):
            yield leaf


def data_of(leaf: torch.Tensor | PackedSequence) -> torch.Tensor:
    """Its numbers."""
    return leaf.data if isinstance(leaf, PackedSequence) else leaf


def length(value: Any) -> int | None:
    """Samples in a leaf; None if it has no axis of samples."""
    if isinstance(value, PackedSequence):
        return int(value.batch_sizes[0])
    return int(value.shape[0]) if isinstance(value, torch.Tensor) and value.dim() else None


def cut(tree: Any, size: int, start: int, stop: int) -> Any:
    """Samples ``start`` to ``stop`` of a batch of ``size``; what has another length is shared."""
    if (start, stop) == (0, size):
        return tree

    def one(leaf: Any) -> Any:
        if length(leaf) != size:
            return leaf
        return _unpacked(leaf, start, stop) if is_leaf(leaf) else leaf[start:stop]

    return mapped(one, tree)


def _unpacked(packed: PackedSequence, start: int, stop: int) -> PackedSequence:
    padded, lengths = pad_packed_sequence(packed, batch_first=True)
    return pack_padded_sequence(
        padded[start:stop], lengths[start:stop], batch_first=True, enforce_sorted=False
    )

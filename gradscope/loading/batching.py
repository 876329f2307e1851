"""Batches as they are yielded, in the number and the size that are wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

from gradscope.cutting import cut, data_of, is_leaf, leaves, length, mapped
from gradscope.errors import DataError
from gradscope.loading.items import Item

KEPT = 2 << 30
"""Bytes of an iterator that can be read only once, and is therefore kept."""


class Items:
    """Batches up to some number of samples, the last one cut.

    Args:
        values: as they are yielded.
        split: makes items of them.
        text: for messages.
        most: samples; asked for once reading has begun.
    """

    def __init__(
        self,
        values: Iterable[Any],
        split: Callable[[Any], Item],
        text: str,
        most: Callable[[], float],
    ) -> None:
        self._values, self._split, self.text, self.most = values, split, text, most

    def __iter__(self) -> Iterator[Item]:
        """From the first on."""
        for item, _ in self._pairs():
            yield item

    def _pairs(self) -> Iterator[tuple[Item, Any]]:
        seen = 0
        for value in self._values:
            item = self._split(value)
            keep = int(min(item.size, self.most() - seen))
            args, kwargs, labels = cut(
                (item.args, dict(item.kwargs), item.labels), item.size, 0, keep
            )
            yield replace(item, args=args, kwargs=kwargs, labels=labels, size=keep), value
            seen += keep
            if seen >= self.most():
                return

    def kept(self) -> Items:
        """The same, of an iterator that can be read only once: in memory, and no more of it."""
        kept: list[Any] = []
        total = 0
        for item, value in self._pairs():
            held = value
            if (whole := self._split(value).size) > item.size:
                held = mapped(_copy, cut(value, whole, 0, item.size))
            total += sum(_bytes(leaf) for leaf in leaves(held))
            if total > KEPT:
                what = "can be read only once, and is too large to be kept in memory"
                hint = "Name a function that returns a new iterator each time."
                raise DataError(what, where=self.text, hint=hint)
            kept.append(held)
        return Items(kept, self._split, self.text, self.most)

    def split_by(self, split: Callable[[Any], Item]) -> Items:
        """The same with another splitter."""
        return Items(self._values, split, self.text, self.most)


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, torch.Tensor) else value


def _bytes(leaf: Any) -> int:
    return data_of(leaf).numel() * data_of(leaf).element_size()


def sized(items: Iterable[Item], size: int, exact: int | None) -> Iterator[Item]:
    """Batches of at most ``size`` samples, or of exactly ``exact``: then the rest is left out."""
    if exact is None:
        for item in items:
            for start in range(0, item.size, size):
                yield _part(item, start, min(start + size, item.size))
        return
    held: list[Item] = []
    for item in items:
        start = 0
        while start < item.size:
            room = exact - sum(i.size for i in held)
            held.append(_part(item, start, min(start + room, item.size)))
            start += held[-1].size
            if sum(i.size for i in held) == exact:
                yield _joined(held)
                held = []


def _part(item: Item, start: int, stop: int) -> Item:
    tree = (item.args, dict(item.kwargs), item.labels)
    args, kwargs, labels = cut(tree, item.size, start, stop)
    return replace(item, args=args, kwargs=kwargs, labels=labels, size=stop - start)


def _joined(items: list[Item]) -> Item:
    """One batch of several; what has no axis of samples is taken from the first."""
    if len(items) == 1:
        return items[0]
    flat = [tree_flatten((i.args, dict(i.kwargs), i.labels), is_leaf=is_leaf) for i in items]
    found = []
    for together in zip(*(leaves_ for leaves_, _ in flat), strict=True):
        sizes = [length(v) for v in together]
        if sizes != [i.size for i in items]:
            found.append(together[0])
        elif any(is_leaf(v) for v in together):
            total = sum(i.size for i in items)
            raise DataError("packed sequences cannot be joined", hint=f"Yield {total} at a time.")
        else:
            found.append(torch.cat(together))
    args, kwargs, labels = tree_unflatten(found, flat[0][1])
    return replace(
        items[0], args=args, kwargs=kwargs, labels=labels, size=sum(i.size for i in items)
    )

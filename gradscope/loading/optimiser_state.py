"""Finds the optimiser that a checkpoint's model was trained with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gradscope.optimisers import Optimiser, read_group

_DEPTH = 3


def find_optimiser(loaded: Any) -> Optimiser | str | None:
    """Its settings; why they cannot be used; None: the file holds no optimiser.

    Args:
        loaded: what a file held: a dictionary with an optimiser's state_dict somewhere, as
            ``optimizer``, ``optimizer_state_dict`` or Lightning's ``optimizer_states``.
    """
    groups = list(_groups(loaded))
    if not groups:
        return None
    if len(groups) > 1:
        return f"it holds {len(groups)} optimisers"
    first = read_group(groups[0][0])
    rates = {getattr(read_group(g), "rate", None) for g in groups[0]}
    if isinstance(first, Optimiser) and len(rates) > 1:
        remark = f"of the first of {len(groups[0])} groups, whose rates differ"
        return Optimiser(first.kind, first.rate, first.settings,
                         "; ".join(r for r in (first.remark, remark) if r))  # fmt: skip
    return first


def _groups(loaded: Any) -> Iterator[list[Mapping[str, Any]]]:
    """The ``param_groups`` of each optimiser. Each part is looked into once: a few bytes of a file
    may refer to the same part over and over."""
    level, seen = [loaded], set[int]()
    for _ in range(_DEPTH + 1):
        below: list[Any] = []
        for value in level:
            found = value.get("param_groups") if isinstance(value, Mapping) else None
            if isinstance(found, list) and found and all(isinstance(g, Mapping) for g in found):
                yield found
            elif id(value) not in seen:
                seen.add(id(value))
                below += _inside(value)
        level = below


def _inside(value: Any) -> list[Any]:
    """What may hold an optimiser; not each of a long list of numbers."""
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, list | tuple) or len(value) > 16:
        return []
    return [inner for inner in value if isinstance(inner, Mapping | list | tuple)]

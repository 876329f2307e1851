"""Many computations side by side that need a number now and then: all are answered together.

On an accelerator every number that is asked for waits for all work before it. A computation is
written as a generator that yields the tensors it must know and is sent their values; those of many
go on step by step, with one transfer a step for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from itertools import islice
from typing import Any, TypeVar

import torch

from gradscope.probe.hosted import is_here, to_host

T = TypeVar("T")
S = TypeVar("S")
Asking = Generator[Sequence[torch.Tensor], list[Any], T]
"""Yields tensors, is sent a number or list for each, returns a result."""

_ABREAST = 32  # more would hold more memory


def together(
    ask: Callable[[S], Asking[T]], about: Iterable[S], on: Callable[[S], torch.Tensor]
) -> list[T]:
    """``ask`` of each; ``on``: a tensor on whose device it computes.

    On a CPU one after the other: nothing waits there, and less is held.
    """
    found: list[T] = []
    rest = iter(about)
    while first := list(islice(rest, 1)):
        more = [] if is_here(on(first[0])) else list(islice(rest, _ABREAST - 1))
        found += _abreast([ask(each) for each in (*first, *more)])
    return found


def alone(asking: Asking[T]) -> T:
    """The result of one."""
    return _abreast([asking])[0]


def _abreast(every: Sequence[Asking[T]]) -> list[T]:
    results: dict[int, T] = {}
    asked: dict[int, Sequence[torch.Tensor]] = {}
    answers: dict[int, list[Any] | None] = dict.fromkeys(range(len(every)))
    while answers:
        for i, answer in answers.items():
            try:
                asked[i] = next(every[i]) if answer is None else every[i].send(answer)
            except StopIteration as ended:
                results[i] = ended.value
        here = iter(to_host([t for tensors in asked.values() for t in tensors]))
        answers = {i: [next(here).tolist() for _ in tensors] for i, tensors in asked.items()}
        asked = {}
    return [results[i] for i in range(len(every))]

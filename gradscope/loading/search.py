"""Finds inputs that a model runs on, from what its layers say when they fail."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch

from gradscope.loading.families import LENGTHS, SIDES, STEPS, Spec, family, specs_of
from gradscope.loading.trial import Trial
from gradscope.model import Input

RUNS = 120
"""Trials before it is given up; each is one forward pass of two samples."""

LARGEST = 1 << 21
"""Numbers in a sample of a guess."""

State = tuple[Spec, ...]
"""One guess for each input."""


def search(
    start: Iterable[State], run: Callable[[State], Trial], fixed: Sequence[bool]
) -> tuple[State, Trial] | None:
    """The first guess that runs, depth first: what a failure suggests is tried next.

    Args:
        start: guesses, likeliest first.
        run: tries one.
        fixed: which inputs are not to be guessed at.
    """
    waiting = deque(start)
    seen: set[State] = set()
    while waiting and len(seen) < RUNS:
        state = waiting.popleft()
        if state in seen:
            continue
        seen.add(state)
        trial = run(state)
        if trial.error is None:
            return state, trial
        waiting.extendleft(reversed(list(_next(state, trial, fixed))))
    return None


def _next(state: State, trial: Trial, fixed: Sequence[bool]) -> Iterator[State]:
    """Guesses that a failure suggests."""
    layer = trial.layer
    if layer is None or not trial.got:
        return
    free = [i for i, is_fixed in enumerate(fixed) if not is_fixed]
    storages = {t.untyped_storage().data_ptr() for t in trial.got if t.numel()}
    reached = [i for i in free if trial.fed[i].untyped_storage().data_ptr() in storages]
    wanted = list(specs_of(layer))
    for i in reached:
        yield from (_with(state, i, spec) for spec in _agreeing(state[i], wanted))
    if not wanted:
        for i in free:
            yield from (_with(state, i, spec) for spec in _own_sizes(state[i], layer))
    elif not reached and family(layer) == "Linear":
        wants, got = wanted[0].shape[-1], trial.got[0].shape[-1] if trial.got[0].dim() else 0
        for i in sorted(free, key=lambda i: len(state[i].shape)):  # plain numbers first
            yield from (_with(state, i, spec) for spec in _rescaled(state[i], wants, got))


def _with(state: State, i: int, spec: Spec) -> State:
    return (*state[:i], spec, *state[i + 1 :])


def _agreeing(current: Spec, wanted: Sequence[Spec]) -> Iterator[Spec]:
    """Specs of the layer; integers keep their shape and only get a lower bound."""
    for spec in wanted:
        if current.kind == spec.kind == "int" and spec.bound < current.bound:
            yield Spec(current.shape, "int", spec.bound, current.free)
    yield from wanted


def _own_sizes(spec: Spec, layer: torch.nn.Module) -> Iterator[Spec]:
    """A module that fails in its own code: sizes of its own parameters, say of positions."""
    tensors = (*layer.parameters(recurse=False), *layer.buffers(recurse=False))
    sizes = dict.fromkeys(size for t in tensors if t.dim() > 1 for size in t.shape)
    for size in list(sizes)[:8] if spec.free else ():
        yield spec.sized(dict.fromkeys(spec.free, size))


def _rescaled(spec: Spec, wants: int, got: int) -> Iterator[Spec]:
    """Other sizes for what was guessed, where a later layer wants ``wants`` features."""
    if spec.kind != "float" or not got or wants == got:
        return
    if spec.free:
        ratio = (wants / got) ** (1 / len(spec.free))
        for extra in (0, 1, -1, 2, -2, 3, 4, -3, -4):
            sizes = {a: round(spec.shape[a] * ratio) + extra for a in spec.free}
            other = spec.sized(sizes)
            if math.prod(other.shape) <= LARGEST:
                yield other
        for size in SIDES if len(spec.free) == 2 else LENGTHS:
            yield spec.sized(dict.fromkeys(spec.free, size))
    elif len(spec.shape) == 1 and spec.shape[0] + wants - got > 0:  # appended to something else
        yield Spec((spec.shape[0] + wants - got,))


def named(wanted: Input, tokens: int | None) -> Spec | None:
    """What a name tells of an input: masks, lengths, tokens.

    Args:
        wanted: the input.
        tokens: how many there are in the model's vocabulary; None if it has none.
    """
    name = wanted.name.lower()
    if "mask" in name:
        return Spec((STEPS,), "bool" if "pad" in name else "ones", free=(0,))
    if re.search(r"len(gth)?s?$", name):
        return Spec((), "steps")
    words = ("ids", "token", "tokens", "src", "tgt", "source", "target", "text", "words", "idx")
    if tokens is not None and any(name == w or name.endswith(f"_{w}") for w in words):
        return Spec((STEPS,), "int", tokens, (0,))
    return None


def declared(wanted: Input, tokens: int | None) -> Spec | None:
    """A spec for an input whose shape the model declares; free sizes are guessed."""
    if wanted.shape is None:
        return None
    inner = wanted.shape[1:]
    images = len(inner) >= 3
    free = tuple(i for i, size in enumerate(inner) if size is None)
    shape = tuple((SIDES[0] if images else STEPS) if s is None else s for s in inner)
    dtype = wanted.dtype
    if dtype is torch.bool:
        return Spec(shape, "bool", free=free)
    if dtype is not None and not dtype.is_floating_point:
        mask = "mask" in wanted.name.lower()
        return Spec(shape, "ones" if mask else "int", tokens or 2, free)
    return Spec(shape, free=free)

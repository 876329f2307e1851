"""Batches of the user's own code, as often as wanted and the same each time."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from gradscope.errors import DataError
from gradscope.loading.items import HINT
from gradscope.usercode import one_line


class Stream:
    """What ``MODULE:NAME`` names, read from its beginning each time.

    The random generators of Python, numpy and torch and those of a loader's own start from the seed
    each time, so that a shuffled loader gives the same batches; between batches and at the end they
    are as they were.

    Args:
        made: a callable, called anew each time, or something to iterate.
        text: for messages.
        seed: of the random generators.
        batch_size: in which a dataset of single samples is read.

    Attributes:
        once: it is an iterator, which can be read only once.
        ends: it tells its length, so it has an end; known after it was read from.
    """

    def __init__(self, made: Any, text: str, seed: int, batch_size: int) -> None:
        self._text, self._seed, self._size = text, seed, batch_size
        self.once, self.ends = isinstance(made, Iterator), False
        is_factory = callable(made) and not isinstance(made, Iterator | DataLoader | Dataset)
        self._made = made if is_factory else lambda: made
        self._own = _generators(made)

    def __iter__(self) -> Iterator[Any]:
        """Batches as they are yielded."""
        return _seeded(self._start, self._text, self._seed, self._own)

    def _start(self) -> Iterator[Any]:
        value = _iterable(self._made(), self._text, self._size)
        self.ends = _has_length(value)
        return iter(value)


def _iterable(value: Any, text: str, size: int) -> Iterable[Any]:
    """Something to iterate; a single batch is a list of one."""
    if isinstance(value, torch.Tensor | Mapping | np.ndarray):
        return [value]
    if isinstance(value, tuple) and value and isinstance(value[0], torch.Tensor | np.ndarray):
        return [value]
    if isinstance(value, Dataset):
        return DataLoader(value, batch_size=size)
    if not isinstance(value, Iterable):
        raise DataError(f"gives a {type(value).__name__}, no batches", where=text, hint=HINT)
    return value


def _has_length(value: Any) -> bool:
    try:
        return len(value) >= 0
    except (TypeError, NotImplementedError):
        return False


def _generators(made: Any) -> list[torch.Generator]:
    """Those that a loader and its samplers draw from."""
    if not isinstance(made, DataLoader):
        return []
    batches = made.batch_sampler
    places = (made, made.sampler, batches, getattr(batches, "sampler", None))
    found = [getattr(place, "generator", None) for place in places]
    by_id = {id(g): g for g in found if isinstance(g, torch.Generator)}
    return list(by_id.values())


def _seeded(
    start: Callable[[], Iterator[Any]], text: str, seed: int, own: Sequence[torch.Generator]
) -> Iterator[Any]:
    """Each step runs in the generators' own state, which is put away in between."""
    state: Any = None
    iterator: Iterator[Any] | None = None
    while True:
        outside = _state(own)
        try:
            if iterator is None:
                _seed(seed, own)
                iterator = start()
            else:
                _set_state(state, own)
            item = next(iterator)
            state = _state(own)
        except StopIteration:
            return
        except DataError:
            raise
        except Exception as error:  # any code may stand in the user's callable
            raise DataError(f"fails: {one_line(error)}", where=text) from error
        finally:
            _set_state(outside, own)
        yield item


def _seed(seed: int, own: Sequence[torch.Generator]) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    for generator in (torch.default_generator, *own):  # and not those of GPUs
        generator.manual_seed(seed)


def _state(own: Sequence[torch.Generator]) -> tuple[Any, Any, list[torch.Tensor]]:
    torch_states = [g.get_state() for g in (torch.default_generator, *own)]
    return random.getstate(), np.random.get_state(), torch_states


def _set_state(state: tuple[Any, Any, list[torch.Tensor]], own: Sequence[torch.Generator]) -> None:
    random.setstate(state[0])
    np.random.set_state(state[1])
    for generator, value in zip((torch.default_generator, *own), state[2], strict=True):
        generator.set_state(value)

"""The processes that share one examination, as ``torchrun`` starts them.

Every process runs the same program on its share of the sample and holds the same merged sums
afterwards, so that all of them take the same turns; the first one reports. This file knows no
transport: :mod:`gradscope.group` speaks ``torch.distributed``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from gradscope.errors import GradscopeError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

_ASKED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
TIMEOUT = "GRADSCOPE_TIMEOUT"
"""Environment variable: seconds to wait for a process that does not answer."""


class Ranks(Protocol):
    """All processes of a run. All of them call the same methods in the same order."""

    @property
    def rank(self) -> int:
        """Which one this is, from 0."""

    @property
    def size(self) -> int:
        """How many there are."""

    def together(self) -> AbstractContextManager[None]:
        """Inside, an error of one is an error of all.

        Raises:
            PeerError: another process failed; the text is what it said.
            LostError: another process is gone or does not answer.
        """

    def any(self, flag: bool) -> bool:
        """Whether the flag is set anywhere."""

    def merged(self, value: T, merge: Callable[[T, T], T]) -> T:
        """All values, merged in the order of the processes."""

    def add(self, tensors: Sequence[torch.Tensor | None]) -> list[torch.Tensor | None]:
        """Sums over the processes, in place where there is a tensor; None: nowhere was one."""

    def replicated(self, module: torch.nn.Module) -> Callable[..., Any]:
        """A module that all call alike, with gradients that become their mean."""

    def mesh(self, device: torch.device) -> Any:
        """torch's description of all of them, over which tensors are laid out."""

    def aside(self) -> AbstractContextManager[None]:
        """Inside, torch speaks between the processes by itself.

        Raises:
            PeerError: another process failed there.
            LostError: another process is gone or does not answer.
        """

    def device(self, name: str) -> str:
        """Which device this process takes of those that ``name`` means."""


@dataclass(frozen=True)
class Alone:
    """A single process."""

    rank: int = 0
    size: int = 1

    @contextmanager
    def together(self) -> Iterator[None]:
        """Errors stay what they are."""
        yield

    def any(self, flag: bool) -> bool:
        """The flag."""
        return flag

    def merged(self, value: T, merge: Callable[[T, T], T]) -> T:
        """The value."""
        return value

    def add(self, tensors: Sequence[torch.Tensor | None]) -> list[torch.Tensor | None]:
        """The tensors."""
        return list(tensors)

    def replicated(self, module: torch.nn.Module) -> Callable[..., Any]:
        """The module."""
        return module

    def mesh(self, device: torch.device) -> Any:
        """There is nobody to lay anything out over."""
        raise ValueError("one process has no parts")

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Errors stay what they are."""
        yield

    def device(self, name: str) -> str:
        """The one that was named."""
        return name


ALONE = Alone()


class PeerError(GradscopeError):
    """Another process failed; this one says the same.

    Args:
        text: its line.
        exit_status: its status.
    """

    def __init__(self, text: str, exit_status: int) -> None:
        self.text, self.exit_status = text, exit_status
        super().__init__(text)

    def __str__(self) -> str:
        return self.text


class LostError(GradscopeError):
    """Another process is gone, or did not answer in time."""


@dataclass(frozen=True)
class Place:
    """Where this process stands among those that ``torchrun`` started."""

    rank: int
    size: int
    local_rank: int
    timeout: float


def place_of(environment: Mapping[str, str] = os.environ) -> Place | None:
    """The place that the environment gives; None if nobody started several processes.

    Raises:
        GradscopeError: the environment holds something else than numbers.
    """
    if any(name not in environment for name in _ASKED):
        return None
    numbers = {}
    for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"),
                          (TIMEOUT, "600")):  # fmt: skip
        text = environment.get(name, default)
        if not text.isdigit() or (name == TIMEOUT and not int(text)):
            raise GradscopeError(f"'{text}' is no number", where=f"the environment's {name}")
        numbers[name] = int(text)
    return Place(
        numbers["RANK"], numbers["WORLD_SIZE"], numbers["LOCAL_RANK"], float(numbers[TIMEOUT])
    )

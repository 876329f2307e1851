"""Processes that speak through ``torch.distributed``: gloo, on whatever device they compute."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from gradscope.errors import GradscopeError
from gradscope.ranks import TIMEOUT, LostError, PeerError, Place

T = TypeVar("T")
_BUCKET = 1 << 24  # elements that are added in one collective


class Group:
    """All processes of a run; see :class:`gradscope.ranks.Ranks`.

    Every collective begins with an exchange of errors, so that a process that fails answers the
    question that the others are asking, whichever it is, and nobody waits for it.

    Attributes:
        rank, size: as ``torchrun`` gave them.
        lost: whether another process is gone.
    """

    def __init__(self, place: Place) -> None:
        self.rank, self.size = place.rank, place.size
        self.lost = False
        self._place, self._inside = place, False

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Inside, all processes are there.

        Raises:
            LostError: some process did not come in time.
        """
        with self._talking():
            dist.init_process_group("gloo", timeout=timedelta(seconds=self._place.timeout))
        try:
            yield
        finally:
            dist.destroy_process_group()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Inside, an error of one is an error of all."""
        if self._inside:
            yield
            return
        self._inside = True
        try:
            yield
            self._exchange(None)
        except (PeerError, LostError):
            raise
        except GradscopeError as error:
            raise self._failed(str(error), error.exit_status) from error
        except OSError as error:
            where = f"{error.filename}: " if error.filename is not None else ""
            raise self._failed(f"{where}{error.strerror or error}.", 2) from error
        except KeyboardInterrupt:
            raise  # which all of them get
        except BaseException as error:
            # A bug, or a call of sys.exit: the others are told, and it goes on here.
            self._failed(f"process {self.rank} failed: {type(error).__name__}: {error}.", 2)
            raise
        finally:
            self._inside = False

    def any(self, flag: bool) -> bool:
        """Whether the flag is set anywhere."""
        return any(self._exchange(flag))

    def merged(self, value: T, merge: Callable[[T, T], T]) -> T:
        """All values in order: neighbours pairwise, their neighbours, ..., and then to all."""
        self._exchange(None)
        with self._talking():
            step = 1
            while step < self.size:
                if self.rank % (2 * step):
                    dist.send_object_list([value], dst=self.rank - step)
                    break
                if self.rank + step < self.size:
                    held: list[Any] = [None]
                    dist.recv_object_list(held, src=self.rank + step)
                    value = merge(value, held[0])
                step *= 2
            whole: list[Any] = [value]
            dist.broadcast_object_list(whole, src=0)
        found: T = whole[0]
        return found

    def add(self, tensors: Sequence[torch.Tensor | None]) -> list[torch.Tensor | None]:
        """Sums over the processes, a bucket of tensors at a time."""
        mine = [None if t is None else (tuple(t.shape), t.dtype, str(t.device)) for t in tensors]
        every = self._exchange(mine)
        found = list(tensors)
        for i, tensor in enumerate(found):
            known = next((other[i] for other in every if other[i] is not None), None)
            if tensor is None and known is not None:
                found[i] = torch.zeros(known[0], dtype=known[1])
        with self._talking():
            for bucket in _buckets([t for t in found if t is not None]):
                flat = torch.cat([t.detach().reshape(-1).cpu() for t in bucket])
                flat = flat.float() if flat.dtype.itemsize < 4 else flat
                dist.all_reduce(torch.view_as_real(flat) if flat.is_complex() else flat)
                parts = torch.split(flat, [t.numel() for t in bucket])
                for tensor, part in zip(bucket, parts, strict=True):
                    tensor.detach().copy_(part.view(tensor.shape))
        return found

    def device(self, name: str) -> str:
        """Of several GPUs each process takes its own."""
        gpus = torch.cuda.device_count() if name == "cuda" else 0
        return f"cuda:{self._place.local_rank % gpus}" if gpus else name

    def _exchange(self, value: Any) -> list[Any]:
        """What everybody says, once nobody has failed."""
        return self._said(None, value)

    def _failed(self, text: str, exit_status: int) -> GradscopeError:
        """Tells the others; the error of the first process that has one."""
        try:
            self._said((text, exit_status), None)
        except GradscopeError as error:
            return error
        raise AssertionError("an error that was told comes back")

    def _said(self, failure: tuple[str, int] | None, value: Any) -> list[Any]:
        every: list[Any] = [None] * self.size
        with self._talking():
            dist.all_gather_object(every, (failure, value))
        for other, _ in every:
            if other is not None:
                raise PeerError(*other)
        return [said for _, said in every]

    @contextmanager
    def _talking(self) -> Iterator[None]:
        """What the transport raises becomes one line."""
        try:
            yield
        except (RuntimeError, ValueError, OSError) as error:
            self.lost = True
            first = str(error).strip().split("\n")[0][:200]
            what = f"another of the {self.size} processes is gone or does not answer ({first})"
            seconds = f"{self._place.timeout:g}"
            hint = f"Start all of them again; {TIMEOUT} sets the seconds to wait ({seconds})."
            raise LostError(what, hint=hint) from error


def _buckets(tensors: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Runs of neighbours of one type."""
    held: list[torch.Tensor] = []
    for tensor in tensors:
        room = sum(t.numel() for t in held) + tensor.numel() <= _BUCKET
        if held and (not room or held[0].dtype != tensor.dtype):
            yield held
            held = []
        held.append(tensor)
    if held:
        yield held

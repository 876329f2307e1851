"""Processes that speak through ``torch.distributed``: gloo, on whatever device they compute."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh
from torch.nn.parallel import DistributedDataParallel

from gradscope.errors import GradscopeError
from gradscope.ranks import TIMEOUT, LostError, PeerError, Place
from gradscope.roll_call import RollCall

T = TypeVar("T")
_TRANSPORT = ("gloo/", "pair closure")
"""In what gloo raises stands the place in its source, but where a timeout has closed a pair."""
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
        self._place, self._wait, self._inside = place, place.timeout, False
        self._lines: dict[str, dist.ProcessGroup] = {}
        self._mesh: DeviceMesh | None = None
        self._roll: RollCall | None = None

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Inside, all processes are there.

        Raises:
            LostError: some process did not come in time.
        """
        with self._talking():
            dist.init_process_group("gloo", timeout=timedelta(seconds=self._wait))
        with RollCall(self.rank, self.size) as self._roll:
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

    def replicated(self, module: torch.nn.Module) -> Callable[..., Any]:
        """A DistributedDataParallel, in which parameters may go unused here or everywhere.

        Buffers are brought together now and not at every call: none of them moves.
        """
        line = self._other_line("gloo")
        with self._talking():
            return DistributedDataParallel(
                module, process_group=line, find_unused_parameters=True,
                forward_sync_buffers=False,
            )  # fmt: skip

    def mesh(self, device: torch.device) -> DeviceMesh:
        """Of one dimension; one for all: torch remembers how it laid out tensors over it.

        GPUs exchange parts by NCCL: gloo cannot.
        """
        if self._mesh is None:
            line = self._other_line("nccl" if device.type == "cuda" else "gloo")
            with self._talking():
                self._mesh = DeviceMesh.from_group(line, device.type)
        return self._mesh

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Who hears nothing there asks here: who failed answers, and a process that is gone does
        not."""
        try:
            yield
        except (RuntimeError, GradscopeError) as error:
            if any(text in str(error) for text in _TRANSPORT):
                self._exchange(None)
            raise

    def _other_line(self, backend: str) -> dist.ProcessGroup:
        """Where torch speaks by itself: gradients and errors are not mistaken for one another.

        Who waits there waits half as long: time is left to ask for the reason.
        """
        self._exchange(None)
        if backend not in self._lines:
            with self._talking():
                half = timedelta(seconds=max(1.0, self._wait / 2))
                self._lines[backend] = dist.new_group(backend=backend, timeout=half)
        return self._lines[backend]

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
            hint = f"Start all of them again; {TIMEOUT} sets the seconds to wait ({self._wait:g})."
            raise LostError(self._missing(str(error)), hint=hint) from error

    def _missing(self, said: str) -> str:
        """Who is, and how that shows."""
        try:
            absent = self._roll.absent() if self._roll is not None else ()
        except KeyboardInterrupt:  # torchrun, which has lost one, ends the others
            absent = (1 - self.rank,) if self.size == 2 else ()
        silent = "imed out" in said
        how = f"did not answer within {self._wait:g} s" if silent else "is gone"
        if not absent:
            return f"another of the {self.size} processes {how} ({said.strip()[:200]})"
        return f"rank {', '.join(map(str, absent))} of {self.size} {how}"


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

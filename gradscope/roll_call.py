"""Which of several processes still runs: each counts up in torch's store, once a second.

A process that waits for another goes on counting; one that was killed or stopped does not. The
store is torch's own; nothing else is sent this way.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta

from torch.distributed.distributed_c10d import PrefixStore, Store, _get_default_store

BEAT = 1.0
"""Seconds between two counts."""
MISSED = 3
"""Counts after which a process is taken for absent."""
_FOUND = "absent"
_HEARD = "heard"


class RollCall:
    """Counts for this process while it is entered, and sees who else does.

    Args:
        rank, size: of this process, and how many there are.
        store: where it is counted; torch's own by default.
    """

    def __init__(self, rank: int, size: int, store: Callable[[], Store] | None = None) -> None:
        self._rank, self._size = rank, size
        self._store = PrefixStore("gradscope", (store or _line)())
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._count, daemon=True)

    def __enter__(self) -> RollCall:
        if self._size > 1:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._size > 1:
            self._thread.join(BEAT)

    def absent(self) -> tuple[int, ...]:
        """Who has stopped counting, after a wait of :data:`MISSED` counts; or whom another process
        has found so before: by now that one may have left as well.

        Of a store that is gone, the process that may hold it: the first one, which for that reason
        does not leave before the others know, or :data:`MISSED` counts are over.
        """
        try:
            found = self._known() or self._silent()
            if found:
                self._store.set(_FOUND, " ".join(map(str, found)))
                self._store.add(_HEARD, 1)
                self._stay(self._size - len(found))
        except (RuntimeError, OSError):
            return (0,) if self._rank else ()
        return found

    def _known(self) -> tuple[int, ...]:
        if not self._store.check([_FOUND]):
            return ()
        return tuple(map(int, self._store.get(_FOUND).split()))

    def _silent(self) -> tuple[int, ...]:
        others = [r for r in range(self._size) if r != self._rank]
        before = self._counts(others)
        time.sleep(MISSED * BEAT)
        after = self._counts(others)
        return tuple(r for r in others if before[r] == after[r])

    def _stay(self, left: int) -> None:
        """The first one: until as many as are left have heard who is absent."""
        end = time.monotonic() + MISSED * BEAT
        while self._rank == 0 and self._store.add(_HEARD, 0) < left and time.monotonic() < end:
            time.sleep(BEAT / 20)

    def _counts(self, ranks: list[int]) -> dict[int, int]:
        return {r: self._store.add(str(r), 0) for r in ranks}

    def _count(self) -> None:
        while not self._over.wait(BEAT):
            try:
                self._store.add(str(self._rank), 1)
            except (RuntimeError, OSError):
                return  # the store is gone, and whoever held it


def _line() -> Store:
    """A connection of its own: one that waits for a key answers nothing else meanwhile."""
    own: Store = _get_default_store().clone()  # type: ignore[attr-defined]
    own.set_timeout(timedelta(seconds=2 * MISSED * BEAT))
    return own

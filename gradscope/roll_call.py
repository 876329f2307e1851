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

        Of a store that is gone, the process that holds it: the first one.
        """
        others = [r for r in range(self._size) if r != self._rank]
        try:
            if self._store.check([_FOUND]):
                return tuple(map(int, self._store.get(_FOUND).split()))
            before = self._counts(others)
            time.sleep(MISSED * BEAT)
            after = self._counts(others)
            found = tuple(r for r in others if before[r] == after[r])
            if found:
                self._store.set(_FOUND, " ".join(map(str, found)))
        except (RuntimeError, OSError):
            return (0,) if self._rank else ()
        return found

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

"""Checkpoints of a training: one file each, whole or absent, readable without running any code."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from gradscope.errors import OutputError
from gradscope.files import replace_atomic

SHARE = 20.0
"""A checkpoint may take a twentieth of the time since the one before."""


class Keeper:
    """The checkpoint of one training.

    Args:
        path: of the file; its folder is made.
        identity: of the run: settings and inputs. A checkpoint of another run is no checkpoint.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self._path, self._identity = path, identity
        self._last, self._cost = -1e9, 0.0

    def load(self) -> dict[str, Any] | None:
        """What was kept last; None if nothing was.

        Raises:
            OutputError: the file is broken.
        """
        if not self._path.is_file():
            return None
        try:
            found = torch.load(self._path, map_location="cpu", weights_only=True)
            same = found["identity"] == self._identity
        except Exception as error:  # a damaged file fails in as many ways as it can be damaged
            first = str(error).strip().split("\n")[0][:100]
            what = f"is no checkpoint that can be read ({type(error).__name__}: {first})"
            hint = "Delete it, and the training begins anew."
            raise OutputError(what, where=str(self._path), hint=hint) from error
        return dict(found["state"]) if same else None

    def due(self) -> bool:
        """Whether it is time for the next."""
        return time.monotonic() - self._last >= SHARE * self._cost

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the file.

        Raises:
            OutputError: it cannot be written; the one before is as it was.
        """
        begun = time.monotonic()
        content = {"identity": self._identity, "state": dict(state)}
        self._path.parent.mkdir(exist_ok=True)
        replace_atomic(str(self._path), lambda path: _write(path, content), option="checkpoint")
        self._last = time.monotonic()
        self._cost = self._last - begun


class Checkpoints:
    """The checkpoints of a run, by the names of its trainings.

    Args:
        folder: of the files.
        identity: see :class:`Keeper`.
        events: folder for TensorBoard; None: no events are written.
    """

    def __init__(self, folder: Path, identity: str, events: str | None = None) -> None:
        self._folder, self._identity = folder, identity
        self.events = events

    def of(self, name: str) -> Keeper:
        """The checkpoint of one training."""
        return Keeper(self._folder / f"{name}.pt", self._identity)


class _Sink:
    """A file for torch.save, which says of a full disk only that something failed."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:  # an exception must not pass through the C code above
            self.error = self.error or error
            return 0

    def flush(self) -> None:
        return None


def _write(path: Path, content: object) -> None:
    with path.open("wb") as file:
        sink = _Sink(file)
        try:
            torch.save(content, sink)  # type: ignore[arg-type]
        except RuntimeError as error:
            raise sink.error or error from error


def random_state() -> dict[str, Any]:
    """Every global generator, as what a checkpoint can hold."""
    name, keys, place, has_gauss, gauss = np.random.get_state(legacy=True)
    version, internal, following = random.getstate()
    numbers = torch.tensor(np.asarray(keys, dtype=np.int64))
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "torch": torch.get_rng_state(),
        "cuda": cuda,
        "numpy": [str(name), numbers, place, has_gauss, gauss],
        "python": [version, torch.tensor(internal, dtype=torch.int64), following],
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """As :func:`random_state` found it."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, place, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), place, has_gauss, gauss))
    version, internal, following = state["python"]
    random.setstate((version, tuple(internal.tolist()), following))

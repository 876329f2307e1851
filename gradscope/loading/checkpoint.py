"""Finds the state_dict in a checkpoint, and fits it to an architecture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from gradscope.errors import LoadError

_PREFERRED = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "module",
    "weights", "params", "ema_state_dict", "ema", "generator", "encoder",
)  # fmt: skip
_NEVER = ("optimizer", "optim", "scheduler", "scaler", "lr_")
_PREFIXES = ("module.", "_orig_mod.", "_forward_module.", "model.", "net.")


@dataclass(frozen=True)
class StateDict:
    """Tensors by name, and what was done to find them."""

    tensors: Mapping[str, torch.Tensor]
    notes: tuple[str, ...] = ()


def find_state_dict(loaded: Any, where: str) -> StateDict:
    """The state_dict in what a file held.

    Args:
        loaded: a dictionary, perhaps nested.
        where: the file, for errors.

    Raises:
        LoadError: there is none.
    """
    if not isinstance(loaded, Mapping):
        kind = type(loaded).__name__
        hint = "gradscope opens an nn.Module, a state_dict, or a checkpoint that holds one."
        raise LoadError(f"holds a {kind}, not a model", where=where, hint=hint)
    candidates = _candidates(loaded, "", 0)
    if not candidates:
        keys = ", ".join(str(k) for k in list(loaded)[:6]) or "nothing"
        raise LoadError(f"holds no state_dict (it has: {keys})", where=where)
    key, tensors = min(candidates, key=lambda c: _rank(c[0], c[1]))
    notes: list[str] = []
    if key:
        others = [k or "(top level)" for k, _ in candidates if k != key]
        notes.append(f"state_dict taken from '{key}'" + _ignored(others))
    skipped = [str(k) for k, v in loaded.items() if not isinstance(v, torch.Tensor | Mapping)]
    if skipped:
        notes.append(f"entries that are no tensors were left out: {_some(skipped)}")
    return StateDict(tensors, tuple(notes))


def _ignored(others: list[str]) -> str:
    return f"; {_some(others)} ignored" if others else ""


def _some(names: list[str], most: int = 5) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _candidates(
    loaded: Mapping[Any, Any], path: str, depth: int
) -> list[tuple[str, Mapping[str, torch.Tensor]]]:
    tensors = {
        k: v for k, v in loaded.items() if isinstance(k, str) and isinstance(v, torch.Tensor)
    }
    found: list[tuple[str, Mapping[str, torch.Tensor]]] = [(path, tensors)] if tensors else []
    if depth < 3:
        for key, value in loaded.items():
            named = isinstance(key, str) and not key.lower().startswith(_NEVER)
            if named and isinstance(value, Mapping):
                found += _candidates(value, f"{path}.{key}" if path else key, depth + 1)
    return found


def _rank(path: str, tensors: Mapping[str, torch.Tensor]) -> tuple[int, int, int, str]:
    """Known names first, then the one with most numbers."""
    last = path.rpartition(".")[2].lower()
    known = _PREFERRED.index(last) if last in _PREFERRED else len(_PREFERRED)
    if not path and len(tensors) > 1:
        known = 0
    return known, path.count("."), -sum(t.numel() for t in tensors.values()), path


def fit(module: torch.nn.Module, state: StateDict, where: str) -> tuple[str, ...]:
    """Load a state_dict into a module, prefixes of wrappers stripped.

    Returns:
        notes for the user.

    Raises:
        LoadError: lists missing, unexpected and mis-shaped keys.
    """
    wanted = module.state_dict()
    stripped, tensors = _strip(dict(state.tensors), set(wanted))
    notes = [f"prefix '{p}' of every name stripped" for p in stripped]
    missing = [k for k in wanted if k not in tensors]
    unexpected = [k for k in tensors if k not in wanted]
    shapes = [
        f"{k} is {tuple(tensors[k].shape)}, the architecture has {tuple(v.shape)}"
        for k, v in wanted.items()
        if isinstance(v, torch.Tensor) and k in tensors and tensors[k].shape != v.shape
    ]
    counters = [k for k in missing if k.endswith("num_batches_tracked")]
    if counters and len(counters) == len(missing) and not unexpected and not shapes:
        notes.append("batch norms without num_batches_tracked (an old file): taken as trained")
        tensors |= {k: torch.tensor(1) for k in counters}
    elif missing or unexpected or shapes:
        raise LoadError(_mismatch(missing, unexpected, shapes), where=where, hint=_FIT_HINT)
    try:
        module.load_state_dict(tensors)
    except (RuntimeError, TypeError, ValueError) as error:
        first = str(error).split("\n")[0]
        raise LoadError(f"does not fit the architecture: {first}", where=where) from error
    return tuple(notes)


_FIT_HINT = "Check --arch and --arch-args."


def _mismatch(missing: list[str], unexpected: list[str], shapes: list[str]) -> str:
    parts = []
    if missing:
        parts.append(f"missing {len(missing)}: {_some(missing)}")
    if unexpected:
        parts.append(f"unexpected {len(unexpected)}: {_some(unexpected)}")
    if shapes:
        parts.append(f"mis-shaped {len(shapes)}: {_some(shapes, 3)}")
    return "does not fit the architecture: " + "; ".join(parts)


def _strip(
    tensors: dict[str, torch.Tensor], wanted: set[str]
) -> tuple[list[str], dict[str, torch.Tensor]]:
    """Prefixes that every name has, as long as that brings them nearer to what is wanted."""
    stripped: list[str] = []
    while tensors and not wanted >= set(tensors):
        prefix = next((p for p in _PREFIXES if all(k.startswith(p) for k in tensors)), None)
        if prefix is None or all(k.startswith(prefix) for k in wanted):
            break
        tensors = {k[len(prefix) :]: v for k, v in tensors.items()}
        stripped.append(prefix)
    return stripped, tensors

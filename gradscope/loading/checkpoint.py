"""Finds the state_dict in a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from gradscope.errors import LoadError, OptionError

_PREFERRED = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "module",
    "weights", "params", "ema_state_dict", "model_ema", "ema", "generator", "encoder",
)  # fmt: skip
_NEVER = ("optimizer", "optim", "scheduler", "scaler", "lr_", "callbacks", "loops", "rng")
_OPTIMIZERS = ("optim", "param_groups")  # wherever it stands in a name
_DEPTH = 4

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class StateDict:
    """Tensors by name, and what was done to find them.

    Attributes:
        tensors: by name, as they stand in the file.
        notes: for the user.
        path: keys that lead to it, joined by dots; "" is the top level.
    """

    tensors: Tensors
    notes: tuple[str, ...] = ()
    path: str = ""


def find_state_dict(loaded: Any, where: str, key: str | None = None) -> StateDict:
    """The state_dict in what a file held.

    Args:
        loaded: a dictionary, perhaps nested.
        where: the file, for errors.
        key: the one that the user chose, by its path of keys (``ema.state_dict``) or its last.

    Raises:
        LoadError: there is none.
        OptionError: ``key`` names none.
    """
    if isinstance(loaded, list | tuple):
        loaded = _numbered(loaded)
    if not isinstance(loaded, Mapping):
        kind = type(loaded).__name__
        hint = "gradscope opens an nn.Module, a state_dict, or a checkpoint that holds one."
        raise LoadError(f"holds a {kind}, not a model", where=where, hint=hint)
    _check_whole(loaded, where)
    every = candidates(loaded, every=key is not None)
    if not every:
        keys = ", ".join(str(k) for k in list(loaded)[:6]) or "nothing"
        raise LoadError(
            f"holds no state_dict (it has: {keys})", where=where, hint=_elsewhere(loaded)
        )
    path, tensors = min(every, key=lambda c: _rank(*c)) if key is None else _chosen(every, key)
    notes: list[str] = []
    if path:
        notes.append(f"state_dict taken from '{path}'{_others(every, path, key)}")
    skipped = [
        str(k)
        for k, v in loaded.items()
        if (not isinstance(v, torch.Tensor | Mapping) and not f"{path}.".startswith(f"{k}."))
        or (isinstance(v, Mapping) and str(k).lower().startswith(_NEVER) and path != str(k))
    ]
    if skipped:
        notes.append(f"entries beside the weights were left out: {some(skipped)}")
    return StateDict(tensors, tuple(notes), path)


def holds_weights(loaded: Mapping[Any, Any], unbuilt: type) -> bool:
    """Whether there is a model to find: a module, or weights with no unknown model beside them."""
    names = {str(k).lower() for k, v in loaded.items() if isinstance(v, unbuilt)}
    if names & set(_PREFERRED):
        return False
    has_module = any(isinstance(v, torch.nn.Module) for v in loaded.values())
    return has_module or bool(candidates(loaded))


def choose_module(loaded: Mapping[Any, Any], key: str | None) -> tuple[torch.nn.Module, str] | None:
    """The whole module in ``{"model": module, ...}``, and a note; None if there is none.

    Args:
        loaded: what a file held.
        key: the one that the user chose. It may as well name weights beside a module.
    """
    found = {str(k): v for k, v in loaded.items() if isinstance(v, torch.nn.Module)}
    if not found or (key is not None and key not in found):
        if found and not candidates(loaded, every=True):
            what = f"'{key}' is no model of the file, which has: {some(list(found))}"
            raise OptionError(what, where="--key")
        return None
    known = [name for name in _PREFERRED if name in found]
    chosen = key if key is not None else (known or list(found))[0]
    others = [name for name in found if name != chosen]
    ignored = f"; {some(others)} ignored" if others else ""
    hint = " (--key chooses)" if others and key is None else ""
    return found[chosen], f"module taken from '{chosen}'{ignored}{hint}"


def candidates(loaded: Mapping[Any, Any], *, every: bool = False) -> list[tuple[str, Tensors]]:
    """Dictionaries that hold tensors, by their path of keys; an optimizer's only if ``every``."""
    return _candidates(loaded, "", 0, every, set())


def _candidates(
    loaded: Mapping[Any, Any], path: str, depth: int, every: bool, seen: set[int]
) -> list[tuple[str, Tensors]]:
    """Each dictionary once, under the name that is known: shared ones would have endless paths."""
    seen.add(id(loaded))
    tensors = {str(k): v for k, v in loaded.items() if _names(k) and isinstance(v, torch.Tensor)}
    if "param_groups" in loaded and not every:
        return []  # an optimizer's, whatever it is called
    found: list[tuple[str, Tensors]] = [(path, tensors)] if tensors else []
    if depth < _DEPTH:
        children = {str(k): v for k, v in loaded.items() if _names(k)}
        for key in sorted(children, key=lambda k: k.lower() not in _PREFERRED):
            value = children[key]
            if isinstance(value, list | tuple):
                value = _numbered(value)
            if _wanted(key, every) and isinstance(value, Mapping) and id(value) not in seen:
                below = f"{path}.{key}" if path else key
                found += _candidates(value, below, depth + 1, every, seen)
    return found


def _names(key: Any) -> bool:
    return isinstance(key, str) or (isinstance(key, int) and not isinstance(key, bool))


def _wanted(key: str, every: bool) -> bool:
    name = key.lower()
    return every or not (name.startswith(_NEVER) or any(o in name for o in _OPTIMIZERS))


def _numbered(values: Sequence[Any]) -> Mapping[str, Any]:
    """Weights in a row, or state_dicts, by their place."""
    if not values or not all(isinstance(v, torch.Tensor) for v in values):
        return {str(i): v for i, v in enumerate(values) if isinstance(v, Mapping)}
    return {str(i): v for i, v in enumerate(values)}


def unnamed(tensors: Tensors) -> bool:
    """Whether they came in a row, as moving averages are kept: in the order of the parameters."""
    return bool(tensors) and list(tensors) == [str(i) for i in range(len(tensors))]


def _check_whole(loaded: Mapping[Any, Any], where: str) -> None:
    """A part of a checkpoint of DeepSpeed, whose weights lie elsewhere.

    Raises:
        LoadError: it is one.
    """
    inner = loaded.get("module")
    if not isinstance(inner, Mapping) or "param_shapes" not in loaded:
        return
    tensors = [v for v in inner.values() if isinstance(v, torch.Tensor)]
    if tensors and not any(t.numel() for t in tensors):
        raise LoadError("its weights are empty: DeepSpeed keeps them beside it, in parts",
                        where=where, hint=_JOIN)  # fmt: skip


_JOIN = "Join them with DeepSpeed's zero_to_fp32.py, and pass what it writes."


def _elsewhere(loaded: Mapping[Any, Any]) -> str | None:
    """Where the weights may be."""
    if "ds_version" in loaded or "ds_config" in loaded:
        return _JOIN
    if "param_groups" in loaded or any("optim" in str(k).lower() for k in loaded):
        return "It is an optimizer's: the weights are in another file."
    return None


def _chosen(every: list[tuple[str, Tensors]], key: str) -> tuple[str, Tensors]:
    exact = [c for c in every if c[0] == key]
    last = [c for c in every if c[0].rpartition(".")[2] == key]
    inner = [c for c in every if c[0].startswith(f"{key}.")]
    for found in (exact, last, inner):
        if len(found) == 1:
            return found[0]
    there = some([path or "(top level)" for path, _ in every])
    what = f"'{key}' is not one state_dict of the file, which has: {there}"
    raise OptionError(what, where="--key")


def _others(every: list[tuple[str, Tensors]], path: str, key: str | None) -> str:
    others = [p or "(top level)" for p, _ in every if p != path]
    if not others:
        return ""
    return f"; {some(others)} ignored" + (" (--key chooses)" if key is None else "")


def some(names: list[str], most: int = 5) -> str:
    """A list for people: the first few, and how many more."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _rank(path: str, tensors: Tensors) -> tuple[int, int, int, str]:
    """Known names first, then the one with most numbers."""
    last = path.rpartition(".")[2].lower()
    known = _PREFERRED.index(last) if last in _PREFERRED else len(_PREFERRED)
    known += unnamed(tensors) * len(_PREFERRED)
    if not path and len(tensors) > 1:
        known = 0
    return known, path.count("."), -sum(t.numel() for t in tensors.values()), path

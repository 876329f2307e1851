"""Weights without code: safetensors, alone or in shards with an index."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from gradscope.config import LoadSettings
from gradscope.errors import LoadError
from gradscope.loading.checkpoint import StateDict, find_state_dict, some
from gradscope.loading.detect import FileKind, detect
from gradscope.loading.pytorch import load_pickled

_MAX_INDEX = 64 << 20
_AGAIN = "Save or copy it again."


def read_safetensors(file: Path) -> StateDict:
    """All tensors of a file; its metadata become a note.

    Raises:
        LoadError: it is broken.
    """
    try:
        with safe_open(str(file), framework="pt") as archive:
            tensors = {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118
            said = archive.metadata() or {}
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise LoadError(f"is broken: {error}", where=str(file), hint=_AGAIN) from error
    if not tensors:
        raise LoadError("holds no tensors", where=str(file))
    notes = (f"metadata: {some([f'{k}={v[:40]}' for k, v in said.items()])}",) if said else ()
    return StateDict(tensors, notes)


def read_shards(index: Path, settings: LoadSettings) -> StateDict:
    """The tensors that an index (``model.safetensors.index.json``) spreads over several files.

    The shards must lie in the folder of the index.

    Raises:
        LoadError: the index is broken, a shard is missing, lies elsewhere or lacks a tensor.
        UntrustedError: a pickled shard would run code.
    """
    tensors: dict[str, torch.Tensor] = {}
    shards: dict[str, list[str]] = {}
    for key, name in _weight_map(index).items():
        shards.setdefault(name, []).append(key)
    for name in sorted(shards):
        if Path(name).name != name or name in (".", ".."):
            raise LoadError(f"names a shard outside its folder ({name!r})", where=str(index))
        shard = index.parent / name
        if not os.path.isfile(shard):  # a name too long is missing, too
            what = f"shard '{name}' is missing: {len(shards)} files are needed"
            raise LoadError(what, where=str(index), hint="Put all of them into one folder.")
        held = _shard(shard, settings)
        for key in shards[name]:
            if key not in held:
                raise LoadError(f"shard '{name}' lacks '{key}'", where=str(index), hint=_AGAIN)
            tensors[key] = held[key]
    return StateDict(tensors, (f"{len(tensors)} tensors from {len(shards)} shards",))


def _weight_map(index: Path) -> Mapping[str, str]:
    if index.stat().st_size > _MAX_INDEX:
        raise LoadError("is too large for an index", where=str(index))
    try:
        text = index.read_text("utf-8")
        places = json.loads(text, object_pairs_hook=_without_doubles)["weight_map"]
    except (ValueError, KeyError, TypeError, RecursionError, OSError) as error:
        raise LoadError(f"is a broken index ({error})", where=str(index), hint=_AGAIN) from error
    fits = isinstance(places, dict) and places
    if not fits or not all(isinstance(v, str) and v for v in places.values()):
        raise LoadError("is an index that names no shards", where=str(index), hint=_AGAIN)
    return dict(places)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("it names a key twice")
    return found


def _shard(shard: Path, settings: LoadSettings) -> Mapping[str, torch.Tensor]:
    kind = detect(shard)
    if kind is FileKind.SAFETENSORS:
        return read_safetensors(shard).tensors
    if kind in (FileKind.TORCH_ZIP, FileKind.TORCH_LEGACY):
        return find_state_dict(load_pickled(shard, kind, settings), str(shard)).tensors
    raise LoadError(f"is no shard of weights (content: {kind})", where=str(shard))

"""Runs one sample through a model, to say early and plainly what does not fit."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map

from gradscope.errors import DataError
from gradscope.model import Batch
from gradscope.snapshot import Snapshot


def check_fits(module: torch.nn.Module, batch: Batch, where: str) -> None:
    """Raises :class:`DataError` that names the layer and both shapes, unless the model runs.

    The model's mode, buffers and random state are as before.
    """
    error = run_once(module, batch)
    if error is not None:
        failure, place = error
        raise DataError(_explain(failure, place, batch), where=where, hint=_HINT) from failure


_HINT = "Check --data against the model's input."


def run_once(module: torch.nn.Module, batch: Batch) -> tuple[Exception, str] | None:
    """None if the first sample runs; else what was raised, and in which layer."""
    trail: list[tuple[str, torch.nn.Module, Any]] = []

    def enter(name: str) -> Any:
        def hook(layer: torch.nn.Module, args: Any) -> None:
            trail.append((name, layer, args))

        return hook

    def leave(layer: torch.nn.Module, args: Any, output: Any) -> None:
        trail.pop()

    modes = [(m, m.training) for m in module.modules()]
    snapshot = Snapshot(module)
    handles = []
    for name, layer in module.named_modules():
        if isinstance(layer, torch.jit.ScriptModule):  # takes no hooks
            continue
        handles += [
            layer.register_forward_pre_hook(enter(name)),
            layer.register_forward_hook(leave),
        ]
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module.eval()
            module(*tree_map(_first, batch.args), **tree_map(_first, dict(batch.kwargs)))
        return None
    except Exception as error:  # any code may stand in a model's forward
        return error, _place(trail)
    finally:
        for handle in handles:
            handle.remove()
        for layer, mode in modes:
            layer.training = mode
        snapshot.restore()


def _first(value: Any) -> Any:
    is_batch = isinstance(value, torch.Tensor) and value.dim() > 0
    return value[:1].clone() if is_batch else value


def _place(trail: list[tuple[str, torch.nn.Module, Any]]) -> str:
    if not trail:
        return "the model"
    name, layer, args = trail[-1]
    shapes = [tuple(t.shape) for t in tree_leaves(args) if isinstance(t, torch.Tensor)]
    wants = {
        "in_features": "features", "in_channels": "channels", "input_size": "features",
        "num_embeddings": "embeddings", "num_features": "channels", "embed_dim": "features",
    }  # fmt: skip
    wanted = next((f", which takes {getattr(layer, k)} {v}" for k, v in wants.items()
                   if isinstance(getattr(layer, k, None), int)), "")  # fmt: skip
    got = f" got {' and '.join(map(str, shapes))}" if shapes else " failed"
    return f"layer '{name}' ({type(layer).__name__}{wanted}){got}" if name else "the model"


def _explain(error: Exception, place: str, batch: Batch) -> str:
    shapes = [
        f"{tuple(t.shape[1:])} {str(t.dtype).removeprefix('torch.')}"
        for t in tree_leaves((batch.args, dict(batch.kwargs)))
        if isinstance(t, torch.Tensor)
    ]
    first = str(error).strip().split("\n")[0][:200]
    return (
        f"the model does not run on it: a sample is {' and '.join(shapes)}; {place}: "
        f"{type(error).__name__}: {first}"
    )

"""Runs one sample through a model, to say early and plainly what does not fit."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from gradscope.cutting import cut, leaves, mapped
from gradscope.errors import DataError
from gradscope.model import Batch
from gradscope.snapshot import Snapshot

_HINT = "Check --data against the model's input."
_TYPES = "Its code mixes types: if --dtype is given, leave it out; else check --data."


@dataclass(frozen=True)
class Trial:
    """What came of it.

    Attributes:
        error: what the model raised; None if it ran.
        place: in which layer.
        output: shape of its first floating-point output, one sample first.
        layer: the innermost layer that was being run when it failed.
        got: what that layer was called with.
        fed: the tensors that the model was called with, in order.
    """

    error: Exception | None = None
    place: str = ""
    output: tuple[int, ...] | None = None
    layer: torch.nn.Module | None = None
    got: tuple[torch.Tensor, ...] = ()
    fed: tuple[torch.Tensor, ...] = ()


def explain(trial: Trial, batch: Batch, where: str, hint: str | None = None) -> DataError:
    """The model does not run on a batch: names the layer and both shapes."""
    assert trial.error is not None
    shapes = [
        f"{tuple(t.shape[1:])} {str(t.dtype).removeprefix('torch.')}"
        for t in tree_leaves((batch.args, dict(batch.kwargs)))
        if isinstance(t, torch.Tensor)
    ]
    first = str(trial.error).strip().split("\n")[0][:200]
    what = (
        f"the model does not run on it: a sample is {' and '.join(shapes)}; {trial.place}: "
        f"{type(trial.error).__name__}: {first}"
    )
    mixed = "same dtype" in first or "expected scalar type" in first
    return DataError(what, where=where, hint=hint or (_TYPES if mixed else _HINT))


def run_once(module: torch.nn.Module, batch: Batch, count: int = 1) -> Trial:
    """The first samples forward. The model's mode, buffers and random state are as before.

    Args:
        module: to be run.
        batch: has the samples.
        count: how many of them.
    """
    trail: list[tuple[str, torch.nn.Module, Any]] = []

    def enter(name: str) -> Any:
        def hook(layer: torch.nn.Module, args: Any, kwargs: Any) -> None:
            trail.append((name, layer, (args, kwargs)))

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
            layer.register_forward_pre_hook(enter(name), with_kwargs=True),
            layer.register_forward_hook(leave),
        ]
    some = _beside(module, first_samples(batch, count))
    fed = tuple(t for t in leaves((some.args, dict(some.kwargs))) if isinstance(t, torch.Tensor))
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if getattr(module, "mode_is_fixed", None) is not True:  # exported programs refuse
                module.eval()
            output = module(*some.args, **some.kwargs)
        return Trial(output=_shape(output))
    except Exception as error:  # any code may stand in a model's forward
        layer = trail[-1][1] if trail else None
        got = tuple(_tensors(trail[-1][2])) if trail else ()
        return Trial(error, _place(trail), None, layer, got, fed)
    finally:
        for handle in handles:
            handle.remove()
        for layer, mode in modes:
            layer.training = mode
        snapshot.restore()


def first_samples(batch: Batch, count: int) -> Batch:
    """Copies of the first samples of a batch."""

    def copied(value: Any) -> Any:
        return value.clone() if isinstance(value, torch.Tensor) else value

    tree = cut((batch.args, dict(batch.kwargs)), batch.size, 0, min(count, batch.size))
    args, kwargs = mapped(copied, tree)
    return Batch(args, kwargs, None, min(count, batch.size), batch.start)


def _beside(module: torch.nn.Module, batch: Batch) -> Batch:
    """The batch where the model is: one in memory may be on a GPU."""
    device = next((p.device for p in module.parameters()), None)
    if device is None or device.type == "cpu":
        return batch
    args, kwargs = mapped(lambda v: v.to(device), (batch.args, dict(batch.kwargs)))
    return replace(batch, args=args, kwargs=kwargs)


def _shape(output: Any) -> tuple[int, ...] | None:
    return next((tuple(t.shape) for t in _tensors(output) if t.is_floating_point()), None)


def _tensors(output: Any) -> Iterator[torch.Tensor]:
    for leaf in tree_leaves(output):
        if isinstance(leaf, torch.Tensor):
            yield leaf
        elif hasattr(leaf, "__dataclass_fields__"):
            yield from _tensors(list(vars(leaf).values()))


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

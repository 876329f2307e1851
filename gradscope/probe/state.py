"""Whatever the probe changes on a model it puts back, also after an exception."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils import checkpoint

from gradscope.findings import Skipped
from gradscope.fusion import switched_off_fusion
from gradscope.probe.kinds import class_name, mode_is_fixed
from gradscope.probe.recurrent import stepwise
from gradscope.snapshot import Snapshot


@contextmanager
def untouched(module: torch.nn.Module) -> Iterator[Snapshot]:
    """Restores training flags, requires_grad, .grad, state and random generators.

    Inside, no hook runs after a gradient has been accumulated: such hooks step an optimiser.
    """
    modes = [(m, m.training) for m in module.modules()]
    gradients = [(p, p.requires_grad, p.grad) for p in module.parameters()]
    # The engine keeps the dictionary itself, so it is emptied and filled again.
    hooks = [h for h in (p._post_accumulate_grad_hooks for p in module.parameters()) if h]
    steps = [(h, dict(h)) for h in hooks]
    snapshot = Snapshot(module)
    python, numpy = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        try:
            for parameter, _, _ in gradients:
                parameter.grad = None
            for hook, _ in steps:
                hook.clear()
            yield snapshot
        finally:
            for m, mode in modes:
                m.training = mode
            for parameter, required, gradient in gradients:
                parameter.grad = None
                if parameter.is_leaf:
                    parameter.requires_grad_(required)
                parameter.grad = gradient
            for hook, kept in steps:
                hook.update(kept)
            snapshot.restore()
            random.setstate(python)
            np.random.set_state(numpy)


def set_mode(
    module: torch.nn.Module, mode: str, samples: int = 2
) -> tuple[list[str], list[Skipped]]:
    """Eval or train; in eval, batch norm that has never seen data uses batch statistics.

    Args:
        module: whose mode to set.
        mode: eval or train.
        samples: at least so many are in every batch: one has no batch statistics.

    Returns:
        names of the batch norms that use batch statistics, and what could not be set.
    """
    skipped: list[Skipped] = []
    if mode_is_fixed(module):
        reason = "recorded or frozen: its mode cannot be changed"
        return [], [Skipped("train mode", reason)] if mode == "train" else []
    try:
        module.train(mode == "train")
    except (NotImplementedError, RuntimeError) as error:
        reason = f"this model refuses to change its mode: {error}"
        skipped.append(Skipped(f"{mode} mode", reason))
    fresh: list[str] = []
    if mode == "eval":
        for name, child in module.named_modules():
            if class_name(child) not in _BATCH_NORMS or not _never_trained(child):
                continue
            if samples == 1:
                reason = "it has never seen data, and a single sample has no batch statistics"
                skipped.append(Skipped(f"normalisation by {name}", reason))
                continue
            child.train()
            fresh.append(name)
    return fresh, skipped


_BATCH_NORMS = frozenset({"BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "SyncBatchNorm"})


def _never_trained(norm: torch.nn.Module) -> bool:
    seen = getattr(norm, "num_batches_tracked", None)
    return bool(getattr(norm, "track_running_stats", False)) and seen is not None and int(seen) == 0


def require_gradients(module: torch.nn.Module) -> list[Skipped]:
    """Turns gradients on for every floating parameter; names those where it cannot be done."""
    skipped: list[Skipped] = []
    for name, parameter in module.named_parameters():
        if not (parameter.is_floating_point() or parameter.is_complex()):
            skipped.append(Skipped(name, f"{parameter.dtype} parameter: no gradient is defined"))
        elif not parameter.is_leaf:
            skipped.append(Skipped(name, "computed from other tensors, not a leaf of the graph"))
        else:
            parameter.requires_grad_(True)
    return skipped


class _Unfused(torch.overrides.TorchFunctionMode):
    """Runs LSTMs step by step: fused kernels have no gates to look at.

    Only around recurrent calls: without oneDNN a whole CNN takes 1.6 times as long. Off the CPU
    the cell itself is one kernel, whatever is switched off.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func not in _RECURRENT:
            return func(*args, **(kwargs or {}))
        if cells_are_fused(args[0]):
            found = stepwise(func, args, kwargs or {})
            if found is not NotImplemented:
                return found
        with ExitStack() as stack:
            stack.enter_context(switched_off_fusion())
            return func(*args, **(kwargs or {}))


_RECURRENT = frozenset(
    {torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu, torch.lstm_cell, torch.gru_cell}
)


def cells_are_fused(x: torch.Tensor) -> bool:
    """Whether the cells of LSTMs and GRUs are one operation where ``x`` is."""
    return x.device.type != "cpu"


class BackwardInEval(torch.overrides.TorchFunctionMode):
    """Lets recurrent layers off the CPU be differentiated in eval mode, which cuDNN refuses."""

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func not in _RECURRENT or not cells_are_fused(args[0]):
            return func(*args, **(kwargs or {}))
        with switched_off_fusion():
            return func(*args, **(kwargs or {}))


class _NoCheckpoint:
    """Stands in for the reentrant checkpoint: runs the segment once, and keeps its graph."""

    @staticmethod
    def apply(function: Callable[..., Any], preserve_rng_state: bool, *args: Any) -> Any:
        return function(*args)


@contextmanager
def visible_operations() -> Iterator[None]:
    """Inside, every activation runs as an operation of its own, with a node in the graph.

    Gates of LSTMs, GRUs and RNNs are not fused. Reentrant checkpoints, which hide the graph of
    their segment and refuse backward passes to chosen inputs, are plain calls. (The others build an
    ordinary graph.)
    """
    names = vars(checkpoint)
    original = names["CheckpointFunction"]
    names["CheckpointFunction"] = _NoCheckpoint
    try:
        with _Unfused():
            yield
    finally:
        names["CheckpointFunction"] = original

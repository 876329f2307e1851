"""Opens what ``torch.export.save`` wrote."""

from __future__ import annotations

import inspect
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from gradscope.config import LoadSettings
from gradscope.errors import LoadError
from gradscope.fusion import switched_off_fusion
from gradscope.loading import export_scan
from gradscope.loading.archive import for_torch
from gradscope.loading.checkpoint import some
from gradscope.loading.exchange import of_program
from gradscope.loading.export_control import unfold
from gradscope.loading.export_scan import Checked
from gradscope.loading.tied import tie
from gradscope.model import Input, LoadedModel

_KIND = "torch.export program"
_AGAIN = "Save or copy the file again."
_RECURRENT = frozenset({"lstm", "gru", "rnn_tanh", "rnn_relu"})
_DTYPES = {
    1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64,
    6: torch.float16, 7: torch.float32, 8: torch.float64, 10: torch.complex64,
    11: torch.complex128, 12: torch.bool, 13: torch.bfloat16,
}  # fmt: skip


def load_exported(path: str, file: Path, settings: LoadSettings) -> LoadedModel:
    """An exported program, ready to be called.

    Args:
        path: as the user named it.
        file: an existing file.
        settings: with ``trust_model``, nothing is checked.

    Raises:
        UntrustedError: it would do more than calculate.
        LoadError: it is broken, or of a form that cannot be examined.
    """
    if settings.trust_model:
        module = _load(file, file)
        _fix_mode(module)
        _unfuse(module)
        return LoadedModel(path, _KIND, module, notes=("opened without a check",))
    checked = export_scan.check(file, on_cpu=not torch.cuda.is_available())
    with checked.stream as stream:
        module = _load(file, for_torch(stream))
    tie(module)
    unfold(module)
    for name, child in module.named_modules():
        kind = checked.program.kinds.get(name)
        if kind is not None:
            vars(child)["original_name"] = kind.rpartition(".")[2]
    vars(module)["original_name"] = "exported program"
    _fix_mode(module)
    if not _RECURRENT.isdisjoint(checked.program.calls):
        _unfuse(module)
    inputs = _inputs(checked.value)
    batch = _fixed_batch(inputs)
    notes = _notes(checked, batch)
    if settings.arch is not None:
        notes = (*notes, "--arch ignored: the file holds a whole model")
    recurrent = not _RECURRENT.isdisjoint(checked.program.calls)
    return LoadedModel(
        path, _KIND, module, notes=notes, inputs=inputs, batch=batch,
        exchange=of_program(module, recurrent),
    )  # fmt: skip


def _load(file: Path, source: Any) -> torch.nn.Module:
    from torch.export.pt2_archive._package import load_pt2

    try:
        with _quiet():
            program = load_pt2(source).exported_programs["model"]
            return program.module(check_guards=False)
    except MemoryError as error:
        raise LoadError("does not fit into memory", where=str(file)) from error
    except Exception as error:  # torch's own errors have no common class
        lines = [x.strip() for x in str(error).strip().split("\n") if x.strip()]
        reason = lines[-1] if lines else type(error).__name__
        what = f"cannot be opened by PyTorch {torch.__version__}: {reason[:300]}"
        raise LoadError(what, where=str(file), hint=_AGAIN) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """torch logs whole tracebacks of what it then raises."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _fix_mode(module: torch.nn.Module) -> None:
    """train() and eval() raise in a program; whoever asks must look at ``mode_is_fixed``."""

    def same(mode: bool = True) -> torch.nn.Module:
        return module

    vars(module).update(mode_is_fixed=True, train=same, eval=same, training=False)


def _unfuse(module: torch.nn.Module) -> None:
    """Recurrent layers run step by step: fused kernels have no gates to look at."""
    forward = module.forward

    def unfused(*args: Any, **kwargs: Any) -> Any:
        with switched_off_fusion():
            return forward(*args, **kwargs)

    vars(unfused)["__signature__"] = inspect.signature(forward)
    vars(module)["forward"] = unfused


def _inputs(value: Mapping[str, Any]) -> tuple[Input, ...] | None:
    """Its arguments; None where they are nested."""
    graph, signature = value["graph_module"]["graph"], value["graph_module"]["signature"]
    root = value["graph_module"]["module_call_graph"][0]["signature"]
    _, form = json.loads(root["in_spec"])
    args, kwargs = form["children_spec"]
    specs = signature["input_specs"]
    users = [a for a, s in zip(graph["inputs"], specs, strict=True) if "user_input" in s]
    leaves = [*args["children_spec"], *kwargs["children_spec"]]
    if any(leaf["type"] is not None for leaf in leaves) or len(users) != len(leaves):
        return None
    named = root.get("forward_arg_names") or []
    keys = json.loads(kwargs["context"])
    positional = len(args["children_spec"])
    found = []
    for i, argument in enumerate(users):
        held = argument.get("as_tensor", {}).get("name")
        name = keys[i - positional] if i >= positional else (named[i] if i < len(named) else held)
        meta = graph["tensor_values"].get(held)
        if meta is None:
            found.append(Input(str(name)))
            continue
        shape = tuple(size.get("as_int") for size in meta["sizes"])
        found.append(Input(str(name), shape, _DTYPES.get(meta["dtype"])))
    return tuple(found)


def _fixed_batch(inputs: tuple[Input, ...] | None) -> int | None:
    """Samples come first, in the first input at least."""
    sizes = [i.shape[0] for i in inputs or () if i.shape]
    return sizes[0] if sizes and None not in sizes else None


def _notes(checked: Checked, batch: int | None) -> tuple[str, ...]:
    notes = []
    if batch is not None:
        notes.append(f"exported for {batch} sample{'s' * (batch > 1)} at a time")
    program = checked.program
    if program.trains:
        notes.append("its dropout or batch norm runs in train mode, whatever --mode says")
    elif not {"batch_norm", "dropout", "_native_batch_norm_legit_no_training"}.isdisjoint(
        program.calls
    ):
        notes.append("exported in eval mode: dropout is off, batch norm uses running statistics")
    if program.devices and program.on_cpu:
        notes.append(f"exported on {', '.join(sorted(program.devices))}, moved to the CPU")
    if program.taken:
        notes.append(f"outputs of class {some(program.taken)} are taken for tuples")
    return tuple(notes)

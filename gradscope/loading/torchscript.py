"""Opens what ``torch.jit.save`` wrote: scripted, traced and frozen models."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch.jit._script import RecursiveScriptModule

from gradscope.config import LoadSettings
from gradscope.errors import LoadError
from gradscope.loading import script_scan
from gradscope.loading.archive import for_torch
from gradscope.loading.checkpoint import some
from gradscope.loading.script_frozen import Frozen
from gradscope.loading.script_module import inputs_of, prepare, unoptimised
from gradscope.loading.script_scan import Checked
from gradscope.loading.tied import tie
from gradscope.model import LoadedModel

_AGAIN = "Save or copy the file again."
_NONE = "a script's code is not rewritten"


def load_script(path: str, file: Path, settings: LoadSettings) -> LoadedModel:
    """A TorchScript model, ready to be called.

    Args:
        path: as the user named it.
        file: an existing file.
        settings: with ``trust_model``, nothing is checked.

    Raises:
        UntrustedError: it would do more than rebuild tensors and compile calculations.
        LoadError: it is broken, or of a form that cannot be examined.
    """
    if settings.trust_model:
        module = _load(file, str(file))
        checked = Checked(None, False, frozenset(), frozenset({"lstm"}), frozenset(), False)
    else:
        checked = script_scan.check(file, on_cpu=not torch.cuda.is_available())
        assert checked.stream is not None
        with checked.stream as stream:
            module = _load(file, for_torch(stream))
    if not isinstance(module, RecursiveScriptModule):
        raise LoadError("holds a function, not a module", where=path)
    if not module._c._has_method("forward"):
        methods = some(sorted(module._c._method_names()))
        raise LoadError(f"has no forward (methods: {methods})", where=path)
    _check_modes(module, path)
    tie(module)
    frozen = not list(module.parameters())
    remembers = prepare(module, checked.assigned, checked.calls)
    notes = _notes(checked, remembers)
    inputs = inputs_of(module._c._get_method("forward").schema)
    if settings.arch is not None:
        notes = (*notes, "--arch ignored: the file holds a whole model")
    vars(module)["mode_is_fixed"] = frozen or checked.traced
    if not frozen:
        kind = "TorchScript, traced" if checked.traced else "TorchScript"
        return LoadedModel(path, kind, module, notes=notes, inputs=inputs, exchange=_NONE)
    whole = Frozen(module)
    if list(whole.parameters()):
        note = "frozen: its parameters are constants, named here by the operations that take them"
        notes = (*notes, note)
    return LoadedModel(
        path, "TorchScript, frozen", whole, notes=notes, inputs=inputs, exchange=_NONE
    )


def _check_modes(module: RecursiveScriptModule, path: str) -> None:
    """A mode that is neither true nor false can be read, but not put back."""
    for name, child in module.named_modules():
        if not isinstance(getattr(child, "training", False), bool):
            whose = f"module '{name}'" if name else "the model"
            what = f"the mode of {whose} is neither true nor false"
            raise LoadError(what, where=path, hint=_AGAIN)


def _load(file: Path, source: Any) -> Any:
    try:
        with unoptimised(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.jit.load(source, map_location="cpu")  # type: ignore[no-untyped-call]
    except MemoryError as error:
        raise LoadError("does not fit into memory", where=str(file)) from error
    except Exception as error:  # torch's own errors have no common class
        lines = [x.strip() for x in str(error).strip().split("\n") if x.strip()]
        what = f"cannot be opened by PyTorch {torch.__version__}: {' '.join(lines)[:300]}"
        raise LoadError(what, where=str(file), hint=_AGAIN) from error


def _notes(checked: Checked, remembers: list[str]) -> tuple[str, ...]:
    notes = []
    if checked.traced:
        notes.append(
            "traced: branches and mode are those of the recorded run, and no_grad is not recorded"
        )
    if checked.trains:
        notes.append("its dropout or batch norm runs in train mode, whatever --mode says")
    if checked.devices:
        named = ", ".join(sorted(checked.devices))
        notes.append(f"code that names {named} was moved to the CPU")
    if remembers:
        notes.append(f"keeps {some(remembers)} between calls: put back before each one")
    return tuple(notes)

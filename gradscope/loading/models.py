"""From a file to a :class:`~gradscope.model.LoadedModel`."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from gradscope.config import LoadSettings
from gradscope.errors import LoadError, OptionError
from gradscope.loading.checkpoint import StateDict, choose_module, find_state_dict, some
from gradscope.loading.detect import FileKind, check_file, detect
from gradscope.loading.exchange import of_modules
from gradscope.loading.export import load_exported
from gradscope.loading.fitting import fit, is_large
from gradscope.loading.onnx import open_onnx
from gradscope.loading.optimiser_state import find_optimiser
from gradscope.loading.pytorch import Opened, open_checkpoint
from gradscope.loading.rebuilders import Unbuilt
from gradscope.loading.skeleton import is_whole, without_parameters
from gradscope.loading.torchscript import load_script
from gradscope.loading.values import with_values
from gradscope.loading.weights_file import read_safetensors, read_shards
from gradscope.loading.wrappers import unwrapped
from gradscope.model import Exchange, LoadedModel
from gradscope.usercode import load_object, one_line

_NO_MODEL = {
    FileKind.NPZ: "It looks like data: pass it with --data.",
    FileKind.NPY: "It looks like data: pass it with --data.",
    FileKind.TEXT: "If it is a table of samples, pass it with --data.",
    FileKind.PARQUET: "It looks like data: pass it with --data.",
    FileKind.TAR: "Save the model again with torch.save (PyTorch 0.1 wrote tar files).",
    FileKind.PICKLE: "Save the model with torch.save, not with pickle.",
    FileKind.UNKNOWN: "gradscope opens what torch.save wrote, ONNX, and safetensors.",
}


def load_model(path: str, settings: LoadSettings) -> LoadedModel:
    """Open a saved model, with the arguments that are given by name.

    Args and what is raised: see :func:`open_model`; OptionError: ``--input-value`` makes no sense.
    """
    return with_values(open_model(path, settings), settings.values)


def open_model(path: str, settings: LoadSettings) -> LoadedModel:
    """Open a saved model.

    Args:
        path: a whole module, a (nested) state_dict, safetensors, or an index of shards.
        settings: architecture, and what of the file may run.

    Raises:
        LoadError: no such file, broken, or no model.
        UntrustedError: it would run code that the user has not admitted.
        OptionError: ``--arch`` or ``--allow`` make no sense.
    """
    file = check_file(path)
    kind = detect(file)
    if kind in _NO_MODEL:
        raise LoadError(f"is no model file (content: {kind})", where=path, hint=_NO_MODEL[kind])
    if kind is FileKind.ONNX:
        return open_onnx(path, file)
    if kind is FileKind.TORCHSCRIPT:
        return load_script(path, file, settings)
    if kind is FileKind.EXPORTED:
        return load_exported(path, file, settings)
    if kind is FileKind.SAFETENSORS:
        return _from_state(path, "safetensors", read_safetensors(file), settings)
    if kind is FileKind.INDEX:
        return _from_state(path, "sharded weights", read_shards(file, settings), settings)
    opened = open_checkpoint(file, kind, settings)
    model = _from_pickle(path, file, kind, opened, settings)
    return replace(model, optimiser=find_optimiser(opened.value))


def _from_pickle(
    path: str, file: Path, kind: FileKind, opened: Opened, settings: LoadSettings
) -> LoadedModel:
    loaded = opened.value
    legacy = ", legacy file" if kind is FileKind.TORCH_LEGACY else ""
    if isinstance(loaded, torch.nn.Module):
        return _whole(path, file, loaded, settings, legacy)
    notes: tuple[str, ...] = ()
    if opened.foreign:
        notes = (f"left unbuilt, since unknown: {some(list(opened.foreign), 3)}",)
    if isinstance(loaded, Mapping) and (found := choose_module(loaded, settings.key)):
        module, note = found
        return _whole(path, file, module, settings, legacy, (note, *notes))
    state = find_state_dict(loaded, path, settings.key)
    if opened.foreign:
        _check_readable(opened, state.path, path)
    state = StateDict(state.tensors, (*state.notes, *notes), state.path)
    return _from_state(path, f"state_dict{legacy}", state, settings)


_UNREADABLE = {
    "torch._utils._rebuild_qtensor": (
        "holds quantised weights, and no gradient flows through integers",
        "Examine the model that it was made from.",
    ),
    "torch._utils._rebuild_sparse_tensor": (
        "holds sparse weights", "Save them with .to_dense().",
    ),
}  # fmt: skip


def _check_readable(opened: Opened, path: str, where: str) -> None:
    """Weights that would be left out without a word of their own.

    Raises:
        LoadError: there are some among those at ``path``.
    """
    found = opened.value
    for key in path.split(".") if path else ():
        found = found.get(key) if isinstance(found, Mapping) else None
    values = list(found.values()) if isinstance(found, Mapping) else []
    values += [v for inner in values if isinstance(inner, tuple) for v in inner]
    if not any(isinstance(v, Unbuilt) for v in values):
        return
    for name, (what, hint) in _UNREADABLE.items():
        if name in opened.foreign:
            raise LoadError(what, where=where, hint=hint)


def _whole(
    path: str,
    file: Path,
    module: torch.nn.Module,
    settings: LoadSettings,
    legacy: str,
    notes: tuple[str, ...] = (),
) -> LoadedModel:
    module, taken = unwrapped(module)
    notes = (*notes, *taken)
    if settings.arch is not None:
        notes = (*notes, "--arch ignored: the file holds a whole module")
    if type(module).forward is torch.nn.Module.forward:
        reason = f"a {type(module).__name__} has no forward, so nothing can be run"
        missing = (("activations, gradients, ledger", reason),)
        format_ = f"PyTorch module without forward{legacy}"
        return LoadedModel(path, format_, None, module.state_dict(), notes, missing)
    exchange: Exchange | str = "a legacy file keeps the source of each class beside it"
    if not legacy:
        exchange = of_modules(module, file)
    return LoadedModel(path, f"PyTorch module{legacy}", module, notes=notes, exchange=exchange)


def _from_state(path: str, format_: str, state: StateDict, settings: LoadSettings) -> LoadedModel:
    if settings.arch is None:
        reason = (
            "the file holds weights without their architecture; "
            "--arch FILE.py:factory would allow a forward and a backward pass"
        )
        missing = (("activations, gradients, ledger", reason),)
        return LoadedModel(path, format_, None, state.tensors, state.notes, missing)
    module, notes = _bound(settings.arch, settings.arch_args, state, path)
    return LoadedModel(path, f"{format_} + {settings.arch}", module, notes=(*state.notes, *notes))


def _bound(
    arch: str, arguments: Mapping[str, object], state: StateDict, path: str
) -> tuple[torch.nn.Module, tuple[str, ...]]:
    """The architecture with the file's tensors: a large one without memory of its own, if it can
    be built so."""
    if is_large(state.tensors):
        load_object(arch, option="--arch")  # its file is run outside: what it makes is real
        try:
            with without_parameters() as watch:
                module = build(arch, arguments)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # numbers that nothing took: built again below
                notes = fit(module, state, path, assigned=True)
            if is_whole(module) and not watch.misled(module):
                return module, notes
        except (LoadError, OptionError):
            pass  # told of below, where it is built for real and still does not fit
    module = build(arch, arguments)
    return module, fit(module, state, path)


def build(arch: str, arguments: Mapping[str, object]) -> torch.nn.Module:
    """Call the user's factory.

    Raises:
        OptionError: it cannot be found, fails, or returns no module.
    """
    factory = load_object(arch, option="--arch")
    if isinstance(factory, torch.nn.Module):
        return factory
    if not callable(factory):
        raise OptionError(f"'{arch}' is no factory but a {type(factory).__name__}", where="--arch")
    try:
        inspect.signature(factory).bind(**arguments)
    except TypeError as error:
        hint = "Give its arguments as --arch-args '{\"name\": value}'."
        raise OptionError(f"'{arch}': {error}", where="--arch-args", hint=hint) from error
    except ValueError:
        pass  # no signature to check: the call itself will tell
    try:
        module = factory(**arguments)
    except Exception as error:  # any code may stand in a factory
        raise OptionError(f"'{arch}' fails: {one_line(error)}", where="--arch") from error
    if not isinstance(module, torch.nn.Module):
        raise OptionError(
            f"'{arch}' returned a {type(module).__name__}, not an nn.Module", where="--arch"
        )
    lazy = [n for n, p in module.named_parameters() if torch.nn.parameter.is_lazy(p)]
    if lazy:
        hint = "Give its layers their sizes, or run it once in the factory."
        what = f"'{arch}' returned a model whose '{lazy[0]}' has no shape yet"
        raise OptionError(what, where="--arch", hint=hint)
    return module

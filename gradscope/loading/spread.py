"""A model over several devices and the disk: ``--device-map``, by accelerate.

accelerate plans the map, checks it, and puts a hook on each module that takes its inputs to its
device. What the map puts on the disk is mapped into memory and runs on the CPU: accelerate's own
offloading is for inference (see :mod:`gradscope.loading.on_disk`).
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from gradscope.errors import OptionError
from gradscope.loading.on_disk import to_disk
from gradscope.model import LoadedModel

DISK = "disk"
_WHERE = "--device-map"
_MOST = 16 << 20  # bytes of a map
_SHOWN = 3


@contextmanager
def spread(model: LoadedModel, text: str | None) -> Iterator[tuple[LoadedModel, str | None]]:
    """The model as a map puts it, and the device on which its inputs and outputs are.

    Args:
        model: as loaded, and changed in place: nothing else holds it.
        text: ``auto``, ``disk``, or a JSON file of module names and devices; None: as it is.

    Raises:
        OptionError: no such device or module; a model that is no module of torch's; no accelerate.
        LoadError: the disk is full.
    """
    if text is None:
        yield model, None
        return
    module = _module_of(model)
    accelerate = _accelerate()
    places = _planned(accelerate, module, text)
    devices = {place: _device(place) for place in set(places.values())}
    main = torch.device("cpu") if torch.device("cpu") in devices.values() else min(
        devices.values(), key=str
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="gradscope-offload-") as folder:
        kept = [name for name, place in places.items() if place == DISK]
        written = to_disk(_tensors_of(module, kept), Path(folder))
        try:
            _dispatch(accelerate, module, {n: devices[p] for n, p in places.items()}, main)
            yield (
                replace(model, placed=True, notes=(*model.notes, _note(places, written))),
                str(main),
            )
        finally:
            accelerate.hooks.remove_hook_from_submodules(module)


def _module_of(model: LoadedModel) -> torch.nn.Module:
    module = model.module
    if module is None:
        what, hint = "there is nothing to run without --arch", "Leave it out."
        raise OptionError(what, where=_WHERE, hint=hint)
    if model.inputs is not None or isinstance(module, torch.jit.ScriptModule):
        what = f"{model.path} is a graph, which runs on one device"
        raise OptionError(what, where=_WHERE, hint="Use --device.")
    return module


def _accelerate() -> Any:
    try:
        import accelerate
        import accelerate.hooks
    except ImportError as error:
        hint = "pip install 'gradscope-cli[accelerate]'."
        raise OptionError("needs accelerate", where=_WHERE, hint=hint) from error
    return accelerate


def _planned(accelerate: Any, module: torch.nn.Module, text: str) -> dict[str, Any]:
    """Module -> device."""
    if text == DISK:
        return {"": DISK}
    if text == "auto":
        whole = getattr(module, "_no_split_modules", None)
        return dict(accelerate.infer_auto_device_map(module, no_split_module_classes=whole))
    places = _read(text)
    known = {name for name, _ in module.named_modules()}
    odd = [name for name in places if name not in known]
    if odd:
        what = f"{text}: the model has no module '{odd[0]}'"
        raise OptionError(what, where=_WHERE, hint=f"It has: {', '.join(_some(known))}.")
    try:
        accelerate.utils.check_device_map(module, places)
    except ValueError as error:
        said = str(error).rpartition(": ")[2].split(", ")
        what = f"{text}: says nothing of {', '.join(_some(said))}"
        raise OptionError(what, where=_WHERE, hint='"" stands for all of the model.') from error
    return places


def _read(text: str) -> dict[str, Any]:
    file = Path(text)
    hint = f'Write auto, {DISK}, or a JSON file such as {{"encoder": "cpu", "head": "{DISK}"}}.'
    try:
        if not file.is_file():
            raise OptionError(f"there is no file '{text}'", where=_WHERE, hint=hint)
        if file.stat().st_size > _MOST:
            raise OptionError(f"'{text}' is too large for a map", where=_WHERE, hint=hint)
        found = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        what = f"'{text}' cannot be read ({str(error)[:80]})"
        raise OptionError(what, where=_WHERE, hint=hint) from error
    plain = isinstance(found, dict) and found
    if not plain or not all(type(v) in (str, int) for v in found.values()):
        raise OptionError(f"'{text}' is no map", where=_WHERE, hint=hint)
    return dict(found)


def _some(names: Any) -> list[str]:
    listed = sorted(n for n in names if n)
    return [*listed[:_SHOWN], *(["..."] if len(listed) > _SHOWN else [])]


def _device(place: str | int) -> torch.device:
    """Where the modules of a place run.

    Raises:
        OptionError: this machine has no such device.
    """
    if place == DISK:
        return torch.device("cpu")
    try:
        device = torch.device(place)
        torch.empty(1, device=device).item()  # where numbers are: not on torch's meta device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        hint = f"Use cpu, {DISK}, or the number of a GPU."
        raise OptionError(f"there is no device '{place}'", where=_WHERE, hint=hint) from error
    return device


def _tensors_of(module: torch.nn.Module, names: list[str]) -> Iterator[torch.Tensor]:
    """Each parameter and buffer of some modules once."""
    seen: set[int] = set()
    for name in names:
        part = module.get_submodule(name)
        for tensor in (*part.parameters(), *part.buffers()):
            if id(tensor) not in seen:
                seen.add(id(tensor))
                yield tensor


def _dispatch(
    accelerate: Any,
    module: torch.nn.Module,
    devices: Mapping[str, torch.device],
    main: torch.device,
) -> None:
    """Moves modules to their devices, with hooks where there are several."""
    if len(set(devices.values())) == 1:
        module.to(main)
        return
    logger = logging.getLogger("accelerate.big_modeling")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it says that parameters were offloaded, which they are not
    try:
        accelerate.dispatch_model(module, {n: str(d) for n, d in devices.items()}, main_device=main)
    finally:
        logger.setLevel(level)


def _note(places: Mapping[str, Any], written: int) -> str:
    count = {str(p): sum(q == p for q in places.values()) for p in places.values()}
    said = ", ".join(f"{n} on {p}" for p, n in sorted(count.items()))
    said = "all of it on " + next(iter(count)) if list(places) == [""] else said
    copy = f"; {written / 1e6:.0f} MB of parameters in a temporary file" if written else ""
    return f"modules by --device-map: {said}{copy}"

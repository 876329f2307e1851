"""Model files that try something. Each builder writes one file; ``CANARY`` is what a file that
runs would leave behind in the folder.

Files are made with ``torch.save`` itself, of objects that pickle as the attack says.
"""

from __future__ import annotations

import builtins
import copyreg
import functools
import importlib
import io
import operator
import os
import pickle
import shutil
import subprocess
import webbrowser
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.module import _WrappedHook

from tests.hostile_archives import ARCHIVES, HARMLESS_ARCHIVES
from tests.hostile_modules import MODULES
from tests.hostile_streams import HARMLESS_STREAMS, STREAMS
from tests.hostile_weights import HARMLESS_WEIGHTS, WEIGHTS
from tests.pickle_assembler import archive

CANARY = "canary"


class Calls:
    """Pickles as a call: ``function(*arguments)``, and BUILD with ``state`` if given."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.reduced

    def __call__(self) -> None:
        """pickle only takes what can be called."""


def rebuilt(cls: type, state: Any) -> Any:
    """Pickles as ``cls.__new__(cls)`` and BUILD with ``state``, whatever ``cls`` is."""

    class Fake:
        __class__ = property(lambda self: cls)

        def __reduce_ex__(self, protocol: Any) -> Any:
            return copyreg.__newobj__, (cls,), state

    return Fake()


def _touch(path: Path) -> str:
    return f"touch {path.parent / CANARY}"


def saved(make: Callable[[Path], Any], *, legacy: bool = False) -> Callable[[Path], Path]:
    """A builder that saves what ``make(path)`` returns."""

    def build(folder: Path) -> Path:
        path = folder / "model.pt"
        torch.save(make(path), path, _use_new_zipfile_serialization=not legacy)
        return path

    return build


def _with(module: nn.Module, **attributes: Any) -> nn.Module:
    module.__dict__.update(attributes)
    return module


def _linear(**attributes: Any) -> nn.Module:
    return _with(nn.Linear(3, 3), **attributes)


def _cyclic(path: Path) -> nn.Module:
    outer, inner = nn.Sequential(), nn.Sequential()
    outer.__dict__["_modules"]["a"] = inner
    inner.__dict__["_modules"]["b"] = outer
    return outer


def _layers(path: Path) -> nn.Module:
    module = nn.LSTM(2, 2)
    module.__dict__["num_layers"] = 1_000_000
    return module


def _spectral(path: Path) -> nn.Module:
    module = nn.utils.spectral_norm(nn.Linear(3, 3))
    hook = next(iter(module._forward_pre_hooks.values()))
    hook.n_power_iterations = 10**9
    return module


def _deep(path: Path) -> Any:
    value: Any = torch.zeros(1)
    for _ in range(450):
        value = [value]
    return {"a": value}


def patched(make: Callable[[Path], Any], old: bytes, new: bytes) -> Callable[[Path], Path]:
    """A saved file whose pickle has ``old`` replaced by ``new`` of the same length."""

    def build(folder: Path) -> Path:
        path = saved(make)(folder)
        with zipfile.ZipFile(path) as archive:
            records = {e.filename: archive.read(e) for e in archive.infolist()}
        name = next(n for n in records if n.endswith("data.pkl"))
        assert old in records[name]
        assert len(old) == len(new)
        records[name] = records[name].replace(old, new)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for record, data in records.items():
                archive.writestr(record, data)
        return path

    return build


def _bomb(folder: Path) -> Path:
    path = saved(lambda p: {"w": torch.zeros(3)})(folder)
    with zipfile.ZipFile(path) as archive:
        records = {e.filename: archive.read(e) for e in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for record, data in records.items():
            bulk = b"\0" * 200_000_000 if "/data/" in record else data
            archive.writestr(record, bulk)
    return path


def _twice(folder: Path) -> Path:
    path = saved(lambda p: {"w": torch.zeros(3)})(folder)
    evil = io.BytesIO()
    pickle.dump(Calls(os.system, _touch(path)), evil, protocol=2)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_STORED) as archive:
        name = next(n for n in archive.namelist() if n.endswith("data.pkl"))
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            archive.writestr(name, evil.getvalue())
    return path


def raw(content: bytes) -> Callable[[Path], Path]:
    """A file with this content."""

    def build(folder: Path) -> Path:
        path = folder / "model.pt"
        path.write_bytes(content)
        return path

    return build


def truncated(share: float, *, legacy: bool = False) -> Callable[[Path], Path]:
    """A good file, cut off."""

    def build(folder: Path) -> Path:
        path = saved(lambda p: nn.Linear(30, 30), legacy=legacy)(folder)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])
        return path

    return build


def _folder(folder: Path) -> Path:
    path = folder / "model.pt"
    path.mkdir()
    return path


def _hidden_pickle(path: Path) -> bytes:
    return pickle.dumps(Calls(os.system, _touch(path)), protocol=2)


def _loaded_later(path: Path) -> str:
    later = path.with_name("later.pt")
    torch.save(Calls(os.system, _touch(path)), later)
    return str(later)


def streamed(make: Callable[[str], bytes]) -> Callable[[Path], Path]:
    """A builder of an archive around a pickle that was written by hand."""

    def build(folder: Path) -> Path:
        return archive(folder / "model.pt", make(f"touch {folder / CANARY}"))

    return build


OBJECTS: dict[str, Callable[[Path], Path]] = {
    # calls
    "os.system": saved(lambda p: Calls(os.system, _touch(p))),
    "os.system, legacy": saved(lambda p: Calls(os.system, _touch(p)), legacy=True),
    "os.system beside weights": saved(
        lambda p: {"w": torch.zeros(3), "x": Calls(os.system, _touch(p))}
    ),
    "eval": saved(lambda p: Calls(builtins.eval, f"__import__('os').system('{_touch(p)}')")),
    "exec": saved(lambda p: Calls(builtins.exec, f"import os; os.system('{_touch(p)}')")),
    "subprocess": saved(lambda p: Calls(subprocess.Popen, _touch(p).split())),
    "import": saved(lambda p: Calls(importlib.import_module, "antigravity")),
    "getattr": saved(lambda p: Calls(builtins.getattr, nn.Linear, "forward")),
    "open": saved(lambda p: Calls(builtins.open, str(p.with_name(CANARY)), "w")),
    "rmtree": saved(lambda p: Calls(shutil.rmtree, str(p.parent))),
    "webbrowser": saved(lambda p: Calls(webbrowser.open, "http://localhost:1")),
    "partial": saved(lambda p: Calls(functools.partial, os.system, _touch(p))),
    "methodcaller": saved(lambda p: Calls(operator.methodcaller, "system", _touch(p))),
    "nested pickle": saved(lambda p: Calls(pickle.loads, _hidden_pickle(p))),
    "nested torch.load": saved(lambda p: Calls(torch.load, _loaded_later(p))),
    "storage from bytes": saved(lambda p: Calls(torch.storage._load_from_bytes, _hidden_pickle(p))),
    "torch.from_file": saved(lambda p: Calls(torch.from_file, str(p.with_name(CANARY)), True, 100)),
    "call of a call": saved(lambda p: Calls(Calls(functools.partial, os.system), _touch(p))),
    # sizes
    "constructor of 3.6 GB": saved(lambda p: Calls(nn.Linear, 30_000, 30_000)),
    "constructor inside": saved(lambda p: {"m": Calls(nn.Linear, 30_000, 30_000)}),
    "bytearray of 1 TB": saved(lambda p: Calls(bytearray, 10**12)),
    "expanded tensor of 1e12": saved(lambda p: {"w": torch.zeros(1).expand(10**6, 10**6)}),
    "forged size": patched(lambda p: {"w": torch.zeros(77)}, b"KM\x85", b"K\xff\x85"),
    "forged storage": patched(lambda p: {"w": torch.zeros(300)}, b"M,\x01t", b"M\xff\xfft"),
    "a million layers": saved(_layers),
    "LSTM of no units": saved(lambda p: _with(nn.LSTM(3, 2), hidden_size=0)),
    "GRU of no layers": saved(lambda p: _with(nn.GRU(3, 2), num_layers=0)),
    "pooling over 2 ** 40": saved(lambda p: _with(nn.MaxPool1d(2), kernel_size=1 << 40)),
    "power iterations": saved(_spectral),
    "zip bomb": _bomb,
    "record twice": _twice,
    "nested too deeply": saved(_deep),
    # modules that are more than modules
    "forward replaced": saved(lambda p: _linear(forward=torch.relu)),
    "parameters replaced": saved(lambda p: _linear(parameters=torch.relu)),
    "call replaced": saved(lambda p: _linear(_call_impl=torch.relu)),
    "compiled call": saved(
        lambda p: rebuilt(nn.Linear, {**vars(nn.Linear(3, 3)), "_compiled_call_impl": torch.relu})
    ),
    "apply replaced": saved(lambda p: _linear(apply=torch.nn.functional.relu)),
    "forward hook": saved(lambda p: _linear(_forward_hooks=OrderedDict({0: torch.relu}))),
    "pre-hook": saved(lambda p: _linear(_forward_pre_hooks=OrderedDict({0: torch.tanh}))),
    "backward hook": saved(lambda p: _linear(_backward_hooks=OrderedDict({0: torch.relu}))),
    "state_dict hook": saved(lambda p: _linear(_state_dict_hooks=OrderedDict({0: torch.relu}))),
    "wrapped hook": saved(
        lambda p: _linear(
            _forward_hooks=OrderedDict(
                {0: rebuilt(_WrappedHook, {"hook": torch.relu, "with_module": False})}
            )
        )
    ),
    "torch.load as activation": saved(
        lambda p: _with(nn.TransformerEncoderLayer(4, 2, 4), activation=torch.load)
    ),
    "os.system as activation": saved(
        lambda p: _with(nn.TransformerEncoderLayer(4, 2, 4), activation=os.system)
    ),
    "class replaced": saved(lambda p: _linear(__class__=nn.Tanh)),
    "module that is a tensor": saved(
        lambda p: _with(nn.Sequential(), _modules={"0": torch.ones(1)})
    ),
    "parameter that is a module": saved(lambda p: _linear(_parameters={"weight": nn.Tanh()})),
    "state that is a list": saved(lambda p: rebuilt(nn.Linear, [1, 2, 3])),
    "cyclic modules": saved(_cyclic),
    "metadata with methods": saved(
        lambda p: Calls(OrderedDict, state={"items": torch.relu, "_metadata": {}})
    ),
    "parameter with hooks": saved(
        lambda p: Calls(
            torch._utils._rebuild_parameter, torch.zeros(2), True, OrderedDict({0: torch.relu})
        )
    ),
    "tensor with hooks": saved(
        lambda p: Calls(
            torch._utils._rebuild_tensor_v2, 1, 0, (1,), (1,), True, OrderedDict({0: torch.relu})
        )
    ),
    "counter": saved(lambda p: Calls(Counter, {"a": 10**9})),
    "array of objects": saved(lambda p: {"w": np.array([os.system], dtype=object)}),
    # broken
    "truncated at half": truncated(0.5),
    "truncated at the end": truncated(0.98),
    "legacy, truncated": truncated(0.5, legacy=True),
    "empty": raw(b""),
    "text": raw(b"hello, this is no model\n" * 20),
    "zeros": raw(b"\0" * 5000),
    "zip magic only": raw(b"PK\x03\x04" + b"\0" * 60),
    "plain pickle": raw(pickle.dumps({"a": 1}, protocol=4)),
    "pickle of an attack": raw(pickle.dumps(Calls(os.getcwd), protocol=2)),
    "folder": _folder,
    # no model
    "list": saved(lambda p: [1, 2, 3]),
    "text object": saved(lambda p: "model"),
    "no tensors": saved(lambda p: {"epoch": 3}),
}

_WRITTEN = {name: streamed(make) for name, make in (STREAMS | MODULES).items()}
HOSTILE = OBJECTS | _WRITTEN | ARCHIVES | WEIGHTS
"""Refused, whatever they try."""

HARMLESS = (
    {name: streamed(make) for name, make in HARMLESS_STREAMS.items()}
    | HARMLESS_ARCHIVES
    | HARMLESS_WEIGHTS
)
"""Opened: what they hold beside weights is left unread."""

"""Writes a model back in the form in which it came: the same file, with other numbers in it.

Only the bytes of the changed tensors differ. Classes, keys, nesting, optimizer state and metadata
are those of the original, whatever they are, since they are never taken apart.
"""

from __future__ import annotations

import json
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from gradscope.errors import LoadError
from gradscope.loading.detect import FileKind, detect
from gradscope.loading.exchange import in_pickle, in_program
from gradscope.loading.pickle_machine import run
from gradscope.loading.tensor_places import Place, places_of, read_root
from gradscope.model import Edit

Tensors = Mapping[str, torch.Tensor]
AS_IT_IS = Edit()
_ALIGNED = 64  # torch aligns records, so that they can be memory-mapped
_SAFE = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def save_like(
    original: str, target: Path, changed: Tensors, *, under: str = "", edit: Edit = AS_IT_IS
) -> None:
    """A copy of ``original`` in which some tensors have new values.

    Args:
        original: the file that the model came from; not changed.
        target: written over.
        changed: new values by the model's names.
        under: path of keys to the state_dict that the model was made from; "" finds it.
        edit: what is different beside these.

    Raises:
        LoadError: the format cannot be written, or a tensor is not found in the file.
    """
    check_saving(original)
    file = Path(original)
    _WRITERS[detect(file)](file, target, changed, under, edit)


def check_saving(original: str) -> None:
    """Raises :class:`LoadError` if files of this kind cannot be written back."""
    kind = detect(Path(original))
    if kind not in _WRITERS:
        hint = "--plan says what would be done."
        raise LoadError(f"a {kind} file cannot be written back yet", where=original, hint=hint)


def names_in_file(
    there: Iterable[str], wanted: Iterable[str], under: str, where: str
) -> dict[str, str]:
    """name in the model -> path in the file: one prefix for all of them (``model.state_dict.``).

    Raises:
        LoadError: there is no such prefix.
    """
    paths, names = set(there), list(wanted)
    prefixes = {p[: len(p) - len(names[0])] for p in paths if p.endswith(names[0])}
    fitting = [p for p in prefixes if all(p + n in paths for n in names)]
    fitting = [p for p in fitting if not p or p.endswith(".")]
    inside = [p for p in fitting if p.startswith(under)]
    if not inside:
        what = f"'{names[0]}' and the other parameters are not found in the file as they are called"
        raise LoadError(what, where=where)
    prefix = min(inside, key=lambda p: (len(p), p))
    return {n: prefix + n for n in names}


def _zip(file: Path, target: Path, changed: Tensors, under: str, edit: Edit) -> None:
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        main = next(e for e in entries if e.filename.partition("/")[2] == "data.pkl")
        top = main.filename.partition("/")[0]
        places = places_of(read_root(archive.read(main), file))
        named = names_in_file(places, changed, under, str(file))
        new = _storages(
            {named[n]: v for n, v in changed.items()},
            places,
            lambda key: bytearray(archive.read(f"{top}/data/{key}")),
        )
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as out:
            for entry in entries:
                key = entry.filename.removeprefix(f"{top}/data/")
                content = bytes(new[key] if key in new else archive.read(entry))
                _put(out, entry, in_pickle(content) if edit.tanh and entry is main else content)


def _exported(file: Path, target: Path, changed: Tensors, under: str, edit: Edit) -> None:
    """Raw numbers in records of their own, named by a table."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        table = next((e for e in entries if e.filename.endswith("_weights_config.json")), None)
        if table is None:
            raise LoadError("has no table of weights", where=str(file))
        folder = table.filename.rpartition("/")[0]
        known = json.loads(archive.read(table))["config"]
        named = names_in_file(known, changed, under, str(file))
        places = {p: _raw_place(known[p], changed[n], str(file)) for n, p in named.items()}
        new = _storages(
            {named[n]: v for n, v in changed.items()},
            places,
            lambda key: bytearray(archive.read(f"{folder}/{key}")),
        )
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as out:
            for entry in entries:
                key = entry.filename.removeprefix(f"{folder}/")
                content = bytes(new[key] if key in new else archive.read(entry))
                is_program = edit.tanh and entry.filename.endswith("/models/model.json")
                _put(out, entry, in_program(content) if is_program else content)


def _raw_place(known: Mapping[str, Any], value: torch.Tensor, where: str) -> Place:
    if known.get("use_pickle"):
        raise LoadError("keeps its weights pickled, which cannot be written yet", where=where)
    meta = known["tensor_meta"]
    stride = tuple(int(s["as_int"]) for s in meta["strides"])
    offset = int(meta["storage_offset"]["as_int"])
    return Place(known["path_name"], value.dtype, offset, tuple(value.shape), stride)


def _storages(
    values: Tensors, places: Mapping[str, Place], read: Callable[[str], bytearray]
) -> dict[str, bytearray]:
    found: dict[str, bytearray] = {}
    for path, value in values.items():
        place = places[path]
        if place.storage not in found:
            found[place.storage] = read(place.storage)
        place.write(found[place.storage], value)
    return found


def _put(out: zipfile.ZipFile, entry: zipfile.ZipInfo, content: bytes) -> None:
    assert out.fp is not None
    info = zipfile.ZipInfo(entry.filename, entry.date_time)
    info.external_attr = entry.external_attr
    head = out.fp.tell() + 30 + len(info.filename.encode()) + 4
    padding = -head % _ALIGNED
    info.extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding
    out.writestr(info, content, zipfile.ZIP_STORED)


def _legacy(file: Path, target: Path, changed: Tensors, under: str, edit: Edit) -> None:
    """Magic number, protocol, system, the object, keys of storages; then count and numbers each."""
    data = bytearray(file.read_bytes())
    stream = BytesIO(bytes(data))
    root = [run(stream) for _ in range(4)][3]
    keys = run(stream)
    places = places_of(root)
    sizes = {p.storage: p.dtype.itemsize for p in places.values()}
    spans, at = {}, stream.tell()
    for key in map(str, keys):
        (count,) = struct.unpack_from("<q", data, at)
        if key not in sizes:
            raise LoadError(f"storage {key} is of a type that cannot be written", where=str(file))
        spans[key] = (at + 8, at + 8 + count * sizes[key])
        at = spans[key][1]
    named = names_in_file(places, changed, under, str(file))
    new = _storages(
        {named[n]: v for n, v in changed.items()},
        places,
        lambda key: data[spans[key][0] : spans[key][1]],
    )
    for key, content in new.items():
        data[spans[key][0] : spans[key][1]] = content
    target.write_bytes(data)


def _safetensors(file: Path, target: Path, changed: Tensors, under: str, edit: Edit) -> None:
    shutil.copyfile(file, target)
    with target.open("r+b") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
        named = names_in_file(header, changed, under, str(file))
        for name, path in named.items():
            start, stop = header[path]["data_offsets"]
            data = bytearray(stop - start)
            dtype = _SAFE.get(header[path]["dtype"])
            if dtype is None:
                raise LoadError(f"'{path}' is of a type that cannot be written", where=str(file))
            torch.frombuffer(data, dtype=dtype).copy_(changed[name].detach().cpu().reshape(-1))
            stream.seek(8 + length + start)
            stream.write(data)


def _onnx(file: Path, target: Path, changed: Tensors, under: str, edit: Edit) -> None:
    from gradscope.loading.onnx import save_onnx

    save_onnx(file, target, changed, edit)


_WRITERS: dict[FileKind, Callable[[Path, Path, Tensors, str, Edit], None]] = {
    FileKind.TORCH_ZIP: _zip,
    FileKind.TORCH_LEGACY: _legacy,
    FileKind.SAFETENSORS: _safetensors,
    FileKind.TORCHSCRIPT: _zip,
    FileKind.EXPORTED: _exported,
    FileKind.ONNX: _onnx,
}

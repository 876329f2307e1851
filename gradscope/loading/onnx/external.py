"""Tensors kept in files beside the model: only inside its folder, only as large as declared."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx
from google.protobuf.message import DecodeError
from onnx import GraphProto, ModelProto, TensorProto

from gradscope.errors import LoadError

_SHOWN = 80  # characters of a place in messages


def load_external(model: ModelProto, file: Path) -> None:
    """Reads every external tensor into the model.

    Raises:
        LoadError: a place outside the model's folder, a missing or short file.
    """
    folder = file.parent.resolve()
    for tensor in tensors_of(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            _load(tensor, folder, str(file))


def external_files(file: Path) -> set[str]:
    """Names of the files that a model keeps tensors in, as they stand in it."""
    model = ModelProto()
    try:
        model.ParseFromString(file.read_bytes())
    except DecodeError:
        return set()
    outside = (t for t in tensors_of(model) if t.data_location == TensorProto.EXTERNAL)
    said = (entry for t in outside for entry in t.external_data)
    places = {_text(entry.value) for entry in said if entry.key == "location"}
    return {place for place in places if place is not None}


def tensors_of(model: ModelProto) -> Iterator[TensorProto]:
    """Every tensor of a model: initializers and attributes, subgraphs and functions included."""
    graphs = [model.graph]
    nodes = [n for f in model.functions for n in f.node]
    while graphs or nodes:
        if graphs:
            graph: GraphProto = graphs.pop()
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
            nodes.extend(graph.node)
            continue
        for attribute in nodes.pop().attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            graphs.extend([attribute.g] if attribute.HasField("g") else [])
            graphs.extend(attribute.graphs)


def _load(tensor: TensorProto, folder: Path, where: str) -> None:
    said = {entry.key: entry.value for entry in tensor.external_data}
    location = _text(said.get("location", ""))
    if location is None:
        what = f"tensor '{tensor.name}' lies in a file whose name is not UTF-8"
        raise LoadError(what, where=where, hint="Download or export the model again.")
    path = _inside(folder, location, tensor.name, where)
    location = location[:_SHOWN]
    try:
        offset, length = int(said.get("offset", 0)), said.get("length")
        size = path.stat().st_size
        count = size - offset if length is None else int(length)
    except (ValueError, OSError) as error:
        what = f"tensor '{tensor.name}' lies in '{location}', which cannot be read ({error})"
        raise LoadError(what, where=where, hint="Put the file beside the model.") from error
    wanted = _bytes(tensor)
    if offset < 0 or count < 0 or offset + count > size or (wanted is not None and count != wanted):
        what = (
            f"tensor '{tensor.name}' needs {wanted} bytes at {offset} of '{location}', "
            f"which has {size}"
        )
        raise LoadError(what, where=where, hint="Copy the model's folder again.")
    with path.open("rb") as stream:
        stream.seek(offset)
        tensor.raw_data = stream.read(count)
    tensor.data_location = TensorProto.DEFAULT
    del tensor.external_data[:]


def _text(value: str | bytes) -> str | None:
    """None for what is not UTF-8: protobuf gives its bytes, whatever the field's type says."""
    return value if isinstance(value, str) else None


def _inside(folder: Path, location: str, name: str, where: str) -> Path:
    """The file, if neither its name nor a link leads out of the folder."""
    outside = LoadError(
        f"tensor '{name}' lies outside of the model's folder ('{location[:_SHOWN]}')",
        where=where,
        hint="External data must lie beside the model.",
    )
    parts = PurePosixPath(location).parts
    if not parts or "\0" in location or ".." in parts or PurePosixPath(location).is_absolute():
        raise outside
    windows = PureWindowsPath(location)
    if windows.drive or windows.root or ".." in windows.parts:
        raise outside
    path = folder.joinpath(*parts)
    try:
        real = path.resolve()
    except (OSError, RuntimeError) as error:
        raise outside from error
    if os.path.commonpath([folder, real]) != str(folder):
        raise outside
    if not os.path.isfile(real):  # unlike Path's, also false for a name that is too long
        what = f"tensor '{name}' lies in '{location[:_SHOWN]}', which is missing"
        raise LoadError(what, where=where, hint="Put the file beside the model.")
    return real


def _bytes(tensor: TensorProto) -> int | None:
    """What a tensor takes; None for types that pack several elements into a byte."""
    if tensor.data_type in (TensorProto.INT4, TensorProto.UINT4):
        return None
    try:
        width = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except (KeyError, TypeError):
        return None
    count = 1
    for d in tensor.dims:
        count *= d
    return int(count * width)

"""Where the numbers of each tensor stand in a file that ``torch.save`` wrote, by name.

Read from the pickle's stand-ins: nothing is run, and nothing but numbers will be changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from gradscope.errors import LoadError
from gradscope.loading.pickle_machine import Built, Global, PickleError, Stored, run

_TENSORS = ("_rebuild_tensor_v2", "_rebuild_tensor")
_DEPTH = 100
_DTYPES = {
    "Double": torch.float64, "Float": torch.float32, "Half": torch.float16,
    "BFloat16": torch.bfloat16, "ComplexDouble": torch.complex128, "ComplexFloat": torch.complex64,
    "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8,
    "Byte": torch.uint8, "Bool": torch.bool,
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """One tensor: its storage, and how it lies in it.

    Attributes:
        storage: key of the storage in the file.
        dtype: of its numbers.
        offset, size, stride: in numbers, as torch has them.
    """

    storage: str
    dtype: torch.dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def write(self, data: bytearray, value: torch.Tensor) -> None:
        """Put a tensor of this shape into the bytes of the storage."""
        whole = torch.frombuffer(data, dtype=self.dtype)
        view = whole.as_strided(self.size, self.stride, self.offset)
        view.copy_(value.detach().cpu())


def places_of(root: Any) -> dict[str, Place]:
    """Dotted path of keys and attributes -> place, of every tensor under an object."""
    return dict(_walk(root, "", 0))


def read_root(data: bytes, file: Path) -> Any:
    """The first object of a pickle, as stand-ins.

    Raises:
        LoadError: it is broken.
    """
    try:
        return run(BytesIO(data))
    except PickleError as error:
        raise LoadError(f"cannot be read: {error}", where=str(file)) from error


def _walk(value: Any, path: str, depth: int) -> Iterator[tuple[str, Place]]:
    if depth > _DEPTH:
        return
    if isinstance(value, dict):
        yield from _pairs(value.items(), path, depth)
    elif isinstance(value, list | tuple):
        yield from _pairs(enumerate(value), path, depth)
    elif isinstance(value, Built) and isinstance(value.of, Global):
        yield from _built(value, path, depth)


def _pairs(items: Any, path: str, depth: int) -> Iterator[tuple[str, Place]]:
    for key, item in items:
        yield from _walk(item, f"{path}.{key}" if path else str(key), depth + 1)


def _built(value: Built, path: str, depth: int) -> Iterator[tuple[str, Place]]:
    if value.called and value.of.name in _TENSORS:
        place = _place(value.arguments)
        if place is not None:
            yield path, place
    elif value.called and value.of.name.startswith("_rebuild_parameter"):
        yield from _walk(value.arguments[0], path, depth + 1)
    elif value.items:
        yield from _pairs(value.items, path, depth)
    for state in value.states:
        if isinstance(state, dict) and value.of.module.startswith("__torch__"):
            yield from _pairs(state.items(), path, depth)  # a script keeps all by its names
        elif isinstance(state, dict) and "_modules" in state:
            for owned in ("_parameters", "_buffers", "_modules"):
                yield from _walk(state.get(owned), path, depth + 1)


def _place(arguments: tuple[Any, ...]) -> Place | None:
    stored, offset, size, stride = arguments[:4]
    if not isinstance(stored, Stored):
        return None
    dtype = _DTYPES.get(stored.key[1].name.removesuffix("Storage"))
    if dtype is None:
        return None
    if isinstance(size, Built):  # torch.Size
        size = size.arguments[0] if size.arguments else ()
    return Place(str(stored.key[2]), dtype, offset, tuple(size), tuple(stride))

"""Samples in ONNX's own form: ``test_data_set_N/input_K.pb``, one batch in each folder."""

from __future__ import annotations

import re
from pathlib import Path

import onnx
import torch
from google.protobuf.message import DecodeError
from onnx import TensorProto

from gradscope.errors import DataError, LoadError
from gradscope.loading.onnx.tensors import to_torch
from gradscope.loading.rows import Memory

_INPUT = re.compile(r"input_(\d+)\.pb")
_MOST = 1 << 31  # bytes of one tensor
_AGAIN = "Save or copy it again."


class DataSets(Memory):
    """The inputs of all folders, one after the other; single numbers stand by themselves.

    Args:
        path: as the user named it.
        tensors: by name of the input.
        outputs: how many files of expected outputs were left out.
    """

    def __init__(self, path: str, tensors: dict[str, torch.Tensor], outputs: int) -> None:
        super().__init__(path, tensors)
        self._singles = {n: t for n, t in tensors.items() if t.dim() == 0}
        if outputs:
            self.notes = (f"{outputs} files of expected outputs were left out: no labels",)

    def single(self, name: str) -> torch.Tensor:
        """A number."""
        return self._singles[name]


def open_data_sets(folder: Path) -> DataSets:
    """All samples of a ``test_data_set_N`` folder, or of a folder of these.

    Raises:
        DataError: broken, or of inputs that cannot be joined.
    """
    folders = [folder] if _inputs(folder) else sorted(p for p in folder.iterdir() if p.is_dir())
    sets = [read for f in folders if (read := _read(f))]
    outputs = sum(len(list(f.glob("output_*.pb"))) for f in folders)
    joined: dict[str, torch.Tensor] = {}
    for name in sets[0]:
        parts = [s[name] for s in sets if name in s]
        joined[name] = _joined(name, parts, len(sets), str(folder))
    return DataSets(str(folder), joined, outputs)


def _joined(name: str, parts: list[torch.Tensor], sets: int, where: str) -> torch.Tensor:
    if len(parts) < sets:
        raise DataError(f"not every data set has the input '{name}'", where=where)
    if all(torch.equal(p, parts[0]) for p in parts[1:]) and parts[0].shape[:1] in ((), (1,)):
        return parts[0]  # a number, or a state that all of them begin with
    if parts[0].dim() == 0:
        raise DataError(f"its data sets differ in the number '{name}'", where=where,
                        hint="Name one of them.")  # fmt: skip
    try:
        return torch.cat(parts)
    except RuntimeError as error:
        what = f"its data sets have shapes of '{name}' that cannot be joined"
        raise DataError(what, where=where, hint="Name one of them.") from error


def _inputs(folder: Path) -> dict[int, Path]:
    found = {int(m[1]): p for p in folder.iterdir() if (m := _INPUT.fullmatch(p.name))}
    return dict(sorted(found.items()))


def _read(folder: Path) -> dict[str, torch.Tensor]:
    return dict(_tensor(path, k) for k, path in _inputs(folder).items())


def _tensor(path: Path, index: int) -> tuple[str, torch.Tensor]:
    proto = TensorProto()
    try:
        if path.stat().st_size > _MOST:
            raise DataError("is too large for one tensor", where=str(path))
        proto.ParseFromString(path.read_bytes())
        if proto.data_location == TensorProto.EXTERNAL:
            raise DataError("keeps its numbers in another file", where=str(path))
        return proto.name or f"arr_{index}", to_torch(proto, str(path))
    except LoadError as error:
        raise DataError(error.what, where=str(path), hint=error.hint) from error
    except (DecodeError, OSError, ValueError, onnx.checker.ValidationError) as error:
        raise DataError(f"is no tensor: {error}", where=str(path), hint=_AGAIN) from error

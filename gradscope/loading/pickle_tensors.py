"""Are the tensors of a pickle what the file holds? Storages, sizes, strides, attributes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from gradscope.loading.pickle_machine import Built, Global, Stored
from gradscope.loading.pickle_parts import MAX_INT, Unsafe, filled, is_made_by

# Arguments without which they are not called, and with which at most.
_PLAIN = {
    "torch._utils._rebuild_tensor": (4, 4),
    "torch._utils._rebuild_tensor_v2": (6, 7),
    "torch._utils._rebuild_tensor_v3": (7, 8),
}
_WITH_TYPE = "torch._tensor._rebuild_from_type_v2"
_PARAMETERS = {
    "torch._utils._rebuild_parameter": (3, 3),
    "torch._utils._rebuild_parameter_with_state": (4, 4),
}
TENSORS = {*_PLAIN, _WITH_TYPE, *_PARAMETERS}
NOT_READ = {
    "torch._utils._rebuild_sparse_tensor": "a sparse tensor",
    "torch._utils._rebuild_sparse_csr_tensor": "a sparse tensor",
    "torch._utils._rebuild_qtensor": "a quantised tensor",
    "torch._utils._rebuild_nested_tensor": "a nested tensor",
    "torch._utils._rebuild_meta_tensor_no_storage": "a tensor on the meta device, without numbers",
    "torch._utils._rebuild_wrapper_subclass": "a tensor subclass",
    "torch._utils._rebuild_device_tensor_from_numpy": "a tensor of another kind of device",
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": "a tensor of another kind of device",
    "torch._utils._rebuild_xla_tensor": "a tensor of another kind of device",
}
"""How torch rebuilds what gradscope has no use for."""

NUMPY_SCALARS = {"numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"}
_NUMBER_TYPES = re.compile(r"^[<>=|]?[fiub](1|2|4|8)$")
_DTYPE_STATES = [(3, order, None, None, None, -1, -1, 0) for order in "<>|="]
_ITEM_BYTES = {
    "Double": 8, "Float": 4, "Half": 2, "Long": 8, "Int": 4, "Short": 2, "Char": 1, "Byte": 1,
    "Bool": 1, "BFloat16": 2, "ComplexDouble": 16, "ComplexFloat": 8, "Untyped": 1,
}  # fmt: skip
_QUANTISED = {"QInt8": 1, "QUInt8": 1, "QInt32": 4, "QUInt4x2": 1, "QUInt2x4": 1}
_EXPANDABLE = 1 << 20  # elements that a stride of 0 may stand for
_ALIASES = 256  # how often all tensors together may cover the file


@dataclass
class Storages:
    """What the tensors of one file claim.

    Attributes:
        room: bytes of storage that the file can hold, by key; None: only in total.
        total_room: bytes of the whole file.
    """

    room: Mapping[str, int] | None
    total_room: int
    _known: dict[str, tuple[str, int]] = field(default_factory=dict)
    _claimed: int = 0
    _elements: int = 0
    _expanded: int = 0

    def tensor(self, value: Built, where: str) -> None:
        """Raises :class:`Unsafe` unless the call rebuilds a tensor within what the file holds."""
        if not isinstance(value.of, Global):
            raise Unsafe("it calls something that it computed")
        path, arguments = value.of.path, value.arguments
        if not isinstance(arguments, tuple):
            raise Unsafe(f"it calls {path} with something odd", path)
        if value.states or value.items:
            raise Unsafe(f"it changes what {path} returned", path)
        if path == _WITH_TYPE:
            self._typed(arguments, where)
        elif path in _PARAMETERS:
            self._parameter(path, arguments, where)
        else:
            self._plain(path, arguments, where)

    def _typed(self, arguments: tuple[Any, ...], where: str) -> None:
        """A tensor with attributes: the function that rebuilds it, its class, arguments, state."""
        if len(arguments) != 4 or not isinstance(arguments[0], Global):
            raise Unsafe("it rebuilds a tensor from something odd")
        function, kind, inner, state = arguments
        if function.path not in _PLAIN:
            raise Unsafe(f"it rebuilds a tensor by {function.path}", function.path)
        of = kind.path if isinstance(kind, Global) else "something odd"
        if of not in ("torch.Tensor", "torch.nn.parameter.Parameter"):
            raise Unsafe(f"tensor {where} is of class {of}", of)
        if not isinstance(inner, tuple):
            raise Unsafe("it rebuilds a tensor from something odd")
        self._plain(function.path, inner, where)
        _check_attributes(state, where)

    def _parameter(self, path: str, arguments: tuple[Any, ...], where: str) -> None:
        data = arguments[0] if arguments else None
        least, most = _PARAMETERS[path]
        if is_made_by(data, set(NOT_READ)) and isinstance(data.of, Global):
            raise not_read(data.of.path)
        if not least <= len(arguments) <= most or not is_made_by(data, TENSORS):
            raise Unsafe("it rebuilds a parameter from something odd")
        if type(arguments[1]) is not bool or filled(arguments[2]):
            raise Unsafe("it rebuilds a parameter from something odd")
        if len(arguments) > 3:
            _check_attributes(arguments[3], where)

    def _plain(self, path: str, arguments: tuple[Any, ...], where: str) -> None:
        least, most = _PLAIN[path]
        if not least <= len(arguments) <= most or not isinstance(arguments[0], Stored):
            raise Unsafe("it rebuilds a tensor from something odd")
        held = self.storage(arguments[0])
        if len(arguments) > 4 and type(arguments[4]) is not bool:
            raise Unsafe(f"tensor {where} is not rebuilt as torch does it")
        if len(arguments) > 5 and filled(arguments[5]):
            raise Unsafe(f"tensor {where} carries hooks")
        rest = list(arguments[6:])
        if path.endswith("_v3"):
            held = (held * _item_size(arguments[0])) // _dtype_size(rest.pop(0), where)
        if rest and not _only_bits(rest[0]):
            raise Unsafe(f"tensor {where} carries odd metadata")
        self._extent(arguments[1:4], held, where)

    def _extent(self, extent: tuple[Any, ...], held: int, where: str) -> None:
        """Offset, size and stride within the elements that are held."""
        offset, size, stride = extent
        if is_made_by(size, {"torch.Size"}):
            of = size.arguments if isinstance(size.arguments, tuple) else ()
            size = of[0] if of else ()
        if not isinstance(size, tuple) or not isinstance(stride, tuple):
            raise Unsafe(f"tensor {where} has absurd sizes")
        if not all(type(n) is int and 0 <= n <= MAX_INT for n in (offset, *size, *stride)):
            raise Unsafe(f"tensor {where} has absurd sizes")
        if len(size) != len(stride) or len(size) > 64:
            raise Unsafe(f"tensor {where} has sizes that do not fit its strides")
        numel = math.prod(size)
        last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
        if numel and (last >= held or numel > max(held, _EXPANDABLE)):
            raise Unsafe(f"tensor {where} claims {numel} elements of a storage of {held}")
        self._elements += numel
        self._expanded += max(0, numel - held)
        if self._expanded > 16 * _EXPANDABLE or self._elements > (
            _ALIASES * self.total_room + 16 * _EXPANDABLE
        ):
            raise Unsafe("its tensors show the same numbers over and over")

    def storage(self, value: Stored) -> int:
        """Elements in a storage; raises :class:`Unsafe` if the file does not hold it."""
        key = value.key
        odd = not isinstance(key, tuple) or len(key) not in (5, 6) or key[0] != "storage"
        if odd or not isinstance(key[1], Global) or type(key[4]) is not int or key[4] < 0:
            raise Unsafe("it refers to storage in an unknown way")
        name = str(key[2]) if isinstance(key[2], int) and abs(key[2]) < 1 << 64 else key[2]
        if not isinstance(name, str) or not name.isascii() or not isinstance(key[3], str):
            raise Unsafe("it refers to storage in an unknown way")
        kind = key[1].name.removesuffix("Storage")
        size = key[4] * _item_size(value)
        room = self.total_room if self.room is None else self.room.get(name, 0)
        if size > room:
            raise Unsafe(f"storage {name:.40} claims {size} bytes, the file holds {room}")
        known = self._known.setdefault(name, (kind, -1))
        if known[1] < 0:
            self._known[name] = (kind, size)
            self._claimed += size
        elif known != (kind, size):
            raise Unsafe(f"storage {name:.40} is claimed twice, as different things")
        if self._claimed > self.total_room:
            raise Unsafe("its storages claim more bytes than the file holds")
        return key[4] if len(key) == 5 or key[5] is None else _view(key[5], key[4])


def not_read(path: str) -> Unsafe:
    """Refuses a kind of tensor, by the function that rebuilds it."""
    hint = "Save its state_dict() with torch.save, as dense tensors, and pass --arch."
    return Unsafe(f"it holds {NOT_READ[path]}", path, hint=hint)


def _view(view: Any, held: int) -> int:
    """Elements of a part of a storage, as files of before 2018 refer to it."""
    sound = isinstance(view, tuple) and len(view) == 3 and isinstance(view[0], str | int)
    if not sound or not all(type(n) is int and 0 <= n <= held for n in view[1:]):
        raise Unsafe("it refers to a part of a storage in an unknown way")
    if view[1] + view[2] > held:
        raise Unsafe("it refers to more of a storage than there is")
    return int(view[2])


def _item_size(value: Stored) -> int:
    of = value.key[1]
    kind = of.name.removesuffix("Storage")
    size = (_ITEM_BYTES | _QUANTISED).get(kind)
    if of.module not in ("torch", "torch.storage", "torch.cuda") or size is None:
        raise Unsafe(f"it holds storage of an unknown type ({of.path})", of.path)
    return size


def _dtype_size(kind: Any, where: str) -> int:
    name = kind.name if isinstance(kind, Global) and kind.module == "torch" else ""
    dtype = vars(torch).get(name)
    if not isinstance(dtype, torch.dtype):
        raise Unsafe(f"tensor {where} is of an unknown type")
    return dtype.itemsize


def _only_bits(metadata: Any) -> bool:
    """torch says so of complex tensors that are to be read conjugated or negated."""
    return metadata is None or (
        isinstance(metadata, dict)
        and set(metadata) <= {"conj", "neg"}
        and all(isinstance(value, bool) for value in metadata.values())
    )


def _check_attributes(state: Any, where: str) -> None:
    """Marks that training frameworks put on parameters: plain values under names of their own."""
    if isinstance(state, tuple) and len(state) == 2 and not state[1]:
        state = state[0]
    if state is None:
        return
    if not isinstance(state, dict):
        raise Unsafe(f"tensor {where} carries odd attributes")
    for key, value in state.items():
        taken = not isinstance(key, str) or key.startswith("__") or hasattr(torch.Tensor, key)
        if taken or not isinstance(value, str | int | float | None):
            raise Unsafe(f"tensor {where} carries odd attributes")


def check_numpy_number(path: str, value: Built) -> None:
    """A single number (``best_accuracy``), of a numeric type; never an object."""
    if path == "numpy.dtype":
        _numpy_type(value)
        return
    arguments = value.arguments
    fits = isinstance(arguments, tuple) and len(arguments) == 2
    if not fits or value.states or value.items or not is_made_by(arguments[0], {"numpy.dtype"}):
        raise Unsafe("it makes a numpy object that is no number", path)
    _numpy_type(arguments[0])
    if not is_bytes(arguments[1]) and not isinstance(arguments[1], str):
        raise Unsafe("it makes a numpy object that is no number", path)


def is_bytes(value: Any) -> bool:
    """Bytes, as any protocol has them."""
    if is_made_by(value, {"_codecs.encode"}):
        return not value.states and not value.items and is_text_for_bytes(value.arguments)
    return isinstance(value, bytes)


def is_text_for_bytes(arguments: Any) -> bool:
    """What pickle encodes bytes by. Other codecs take time, or load modules."""
    two = isinstance(arguments, tuple) and len(arguments) == 2
    return two and isinstance(arguments[0], str) and arguments[1] in ("latin1", "latin-1")


def _numpy_type(value: Built) -> None:
    """A forged state would make numpy take numbers for addresses of objects."""
    arguments = value.arguments if isinstance(value.arguments, tuple) and value.called else ()
    kind = arguments[0] if arguments and isinstance(arguments[0], str) else ""
    flags = all(type(a) in (bool, int) and a in (0, 1) for a in arguments[1:])
    if not _NUMBER_TYPES.match(kind) or len(arguments) > 3 or not flags:
        raise Unsafe("it makes a numpy type that is no number", "numpy.dtype")
    if value.items or any(state not in _DTYPE_STATES for state in value.states):
        raise Unsafe("it changes what a numpy type means", "numpy.dtype")

"""Is a pickle of a TorchScript archive inert? Its classes are the archive's own code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gradscope.loading.allowed import Allowed
from gradscope.loading.pickle_machine import Built, Global
from gradscope.loading.pickle_scan import Scan, Unsafe

_LISTS = {
    "torch.jit._pickle.build_intlist", "torch.jit._pickle.build_tensorlist",
    "torch.jit._pickle.build_doublelist", "torch.jit._pickle.build_boollist",
}  # fmt: skip
_TAG = "torch.jit._pickle.restore_type_tag"
_TYPE = re.compile(r"^[\w.,\[\] ()?]{1,4000}$")
_MAX_TYPE_DEPTH = 40
_NOTHING = Allowed({}, {}, {})


class ScriptScan(Scan):
    """Like :class:`Scan`, for what ``torch.jit.save`` writes.

    Args:
        room: bytes of each record of numbers, by key.
        total_room: of all of them.

    Attributes:
        classes: of the archive's own code, as the pickle names them.
    """

    def __init__(self, room: Mapping[str, int], total_room: int) -> None:
        super().__init__(_NOTHING, room, total_room)
        self.classes: set[str] = set()

    def _value(self, value: Any, depth: int, where: str) -> None:
        # Numbers are attributes of scripts here; no size is derived from them at loading.
        if type(value) is not int:
            super()._value(value, depth, where)

    def _built(self, value: Built, depth: int, where: str) -> None:
        of = value.of
        if isinstance(of, Global) and _is_script(of.module):
            self._object(of, value, depth, where)
        elif isinstance(of, Global) and value.called and of.path in (*_LISTS, _TAG):
            self._typed(of.path, value, depth, where)
        else:
            super()._built(value, depth, where)

    def _object(self, of: Global, value: Built, depth: int, where: str) -> None:
        if of.path.startswith("__torch__.torch.classes."):
            name = of.path.removeprefix("__torch__.torch.classes.")
            raise Unsafe(f"it holds an object of an extension written in C++ ({name})")
        self.classes.add(of.path)
        if value.called:
            # A member of an enumeration, by its value.
            if value.states or value.items or not isinstance(value.arguments, int | float | str):
                raise Unsafe(f"{of.path} is not rebuilt as TorchScript does it")
            return
        if value.arguments != () or value.items or len(value.states) != 1:
            raise Unsafe(f"{of.path} is not rebuilt as TorchScript does it")
        state = value.states[0]
        if isinstance(state, dict):
            for key, item in state.items():
                self._value(item, depth, f"{where}.{key}" if where else str(key))
        else:
            self._value(state, depth, where)

    def _typed(self, path: str, value: Built, depth: int, where: str) -> None:
        arguments = value.arguments
        count = 2 if path == _TAG else 1
        if not isinstance(arguments, tuple) or len(arguments) != count or value.states:
            raise Unsafe(f"it calls {path} with something odd")
        if value.items or not isinstance(arguments[0], list | dict):
            raise Unsafe(f"it calls {path} with something odd")
        if path == _TAG:
            tag = arguments[1]
            sound = isinstance(tag, str) and _TYPE.match(tag) is not None
            if not sound or tag.count("[") + tag.count("(") > _MAX_TYPE_DEPTH:
                raise Unsafe("it names a type in an unknown way")
        self._value(arguments[0], depth, where)


def _is_script(module: str) -> bool:
    return module == "__torch__" or module.startswith("__torch__.")

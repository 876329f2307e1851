"""Is the state of a pickled module inert? Nothing over a method, no hooks but torch's own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gradscope.loading.pickle_calls import COMPILED, NAMED, refused_call, refused_class
from gradscope.loading.pickle_machine import Built, Global
from gradscope.loading.pickle_parts import (
    Unsafe,
    below,
    is_made_by,
    is_table,
    pairs,
)
from gradscope.loading.pickle_tensors import TENSORS

_TABLES = ("_parameters", "_buffers", "_modules")
_NEEDED = (*_TABLES, "_forward_hooks", "_backward_hooks")
HOOK_TABLES = (
    "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks",
    "_state_dict_hooks", "_state_dict_pre_hooks", "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks", "_forward_hooks_with_kwargs",
    "_forward_pre_hooks_with_kwargs", "_forward_hooks_always_called",
)  # fmt: skip
_MARKS = ("_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs",
          "_forward_hooks_always_called")  # fmt: skip
_HOOK_STATE = {
    "name", "dim", "eps", "n_power_iterations", "fn", "hook", "with_module",
    "_tensor_name", "amount", "n", "mask", "_pruning_methods",
}  # fmt: skip
# What a hook writes on its module, from which parts: never over anything else of the module.
_HOOK_PARTS = {
    "torch.nn.utils.weight_norm.WeightNorm": ("_g", "_v"),
    "torch.nn.utils.spectral_norm.SpectralNorm": ("_orig", "_u"),
}
_PRUNING = "torch.nn.utils.prune."
# Sizes that a forward pass would allocate, whatever the file holds.
_GEOMETRY = {"padding", "output_padding", "output_size", "scale_factor", "size", "unflattened_size"}
_MOST = 1 << 26  # elements that one of them may stand for
_STEPS = {"kernel_size", "stride", "dilation"}
_LONGEST = (1 << 31) - 1  # torch counts beyond it for minutes, or wraps around
_AT_LEAST = {"hidden_size": 1, "num_layers": 1, "input_size": 0, "proj_size": 0}
_DEEPEST = 100  # modules within modules
_VISITS = 100_000  # calls of modules that one forward pass may make


def check_state(
    modules: Mapping[str, type], path: str, state: Mapping[str, Any], where: str
) -> None:
    """Raises :class:`Unsafe` if something stands where torch would run it or trip over it.

    Args:
        modules: classes of modules that may be built, by their full name.
        path: the name of this one's.
        state: what BUILD would set.
        where: the module's place, for messages.
    """
    cls = modules[path]
    for key in _NEEDED:
        if not is_table(state.get(key)):
            raise Unsafe(f"{where or path} has no table of {key.strip('_')}", path)
    if not isinstance(state.get("training"), bool):
        raise Unsafe(f"{below(where, 'training')} is neither true nor false", path)
    for key, item in state.items():
        place = below(where, key)
        if key in HOOK_TABLES:
            continue
        if key.startswith("__"):
            raise Unsafe(f"{path} gets an attribute {key}", path)
        if _is_code(cls, key) or (key == "_compiled_call_impl" and item is not None):
            raise Unsafe(f"it puts something in place of {path}.{key}", path)
        if key in _TABLES:
            _check_names(cls, path, item, place)
            _check_parts(modules, key, item, place)
        elif key in _GEOMETRY:
            _check_geometry(cls, item, place)
        elif key in _STEPS and any(abs(n) > _LONGEST for n in _numbers(item)):
            raise Unsafe(f"{place} is absurdly large")
    _check_recurrent(path, state, where)


def check_hooks(hooks: Mapping[str, type], state: Mapping[str, Any], where: str) -> None:
    """Raises :class:`Unsafe` unless all hooks are torch's own, each on a parameter of its own.

    Args:
        hooks: classes of hooks that may stand there, by their full name.
        state: of the module.
        where: its place, for messages.
    """
    for key in HOOK_TABLES:
        place = below(where, key)
        table = state.get(key)
        if table is not None and not is_table(table):
            raise Unsafe(f"{place} is no table of hooks")
        for _, hook in pairs(table):
            mark = key in _MARKS and isinstance(hook, bool)
            if not mark and not _is_hook(hook, hooks):
                raise Unsafe(f"{place} holds a hook that is none of torch's own")
            if not mark:
                _check_target(hook, state, place)


def hook_state(path: str, value: Built, hooks: Mapping[str, type]) -> Mapping[str, Any]:
    """The state of a hook, if it is what torch's own has.

    Raises:
        Unsafe: it is not.
    """
    if value.called or value.arguments != () or value.items or len(value.states) > 1:
        raise Unsafe(f"{path} is not rebuilt as torch does it", path)
    state = value.states[0] if value.states else {}
    if not isinstance(state, dict):
        raise Unsafe(f"the state of {path} is no dictionary", path)
    for key, item in state.items():
        if key not in _HOOK_STATE:
            raise Unsafe(f"{path} gets an attribute {key:.40}", path)
        if key in ("hook", "fn") and not _is_hook(item, hooks):
            raise Unsafe(f"{path} wraps something that is no hook of torch's", path)
        if isinstance(item, int) and abs(item) > 1000:
            raise Unsafe(f"{path}.{key} is absurdly large", path)
        if key == "_pruning_methods" and not _all_hooks(item, hooks):
            raise Unsafe(f"{path} wraps something that is no hook of torch's", path)
    return state


def check_visits(depth: int, visits: int, where: str) -> None:
    """Raises :class:`Unsafe` if modules are nested so that running them would take forever."""
    if depth > _DEEPEST:
        raise Unsafe(f"{where} is nested too deeply ({depth} modules)")
    if visits > _VISITS:
        raise Unsafe(f"{where or 'its module'} repeats its parts {visits:,} times")


def _is_code(cls: type, key: str) -> bool:
    own = getattr(cls, key, None)
    return callable(own) or isinstance(own, property)


def _check_names(cls: type, path: str, table: Any, where: str) -> None:
    """Names that torch itself would not register make reports wrong: ``a.b``, ``forward``."""
    for name, _ in pairs(table):
        if not isinstance(name, str) or not name or "." in name or len(name) > 1000:
            raise Unsafe(f"{where} has an entry without a proper name", path)
        if _is_code(cls, name) or name.startswith("__"):
            raise Unsafe(f"it puts something in place of {path}.{name}", path)


def _check_parts(modules: Mapping[str, type], key: str, table: Any, where: str) -> None:
    for name, child in pairs(table):
        if child is None:
            continue
        if key != "_modules" and not is_made_by(child, TENSORS):
            if is_made_by(child, NAMED) and isinstance(child.of, Global):
                raise refused_call(child.of.path)
            raise Unsafe(f"{below(where, name)} is no tensor")
        if key == "_modules" and not _is_module(child, modules):
            of = child.of if isinstance(child, Built) else None
            if isinstance(of, Global) and isinstance(child, Built) and not child.called:
                raise refused_class(of.path)
            raise Unsafe(f"{below(where, name)} is no module")


def _is_module(child: Any, modules: Mapping[str, type]) -> bool:
    return is_made_by(child, {COMPILED}) or (is_made_by(child, set(modules)) and not child.called)


def _check_geometry(cls: type, item: Any, where: str) -> None:
    numbers = _numbers(item)
    last = cls.__name__[-2:]
    if len(numbers) == 1 and last in ("2d", "3d") and not isinstance(item, tuple | list):
        numbers = numbers * int(last[0])
    if math.prod(min(max(1, abs(n)), _MOST + 1) for n in numbers) > _MOST:
        raise Unsafe(f"{where} is absurdly large")


def _numbers(item: Any) -> list[int | float]:
    """One, or a row of them."""
    found = item if isinstance(item, tuple | list) else (item,)
    return [n for n in found if isinstance(n, int | float)]


def _check_recurrent(path: str, state: Mapping[str, Any], where: str) -> None:
    """A number of layers that the weights do not bear out is a loop that does not end; a size of 0
    divides by it, in code that no exception comes out of."""
    if "mode" not in state or "_all_weights" not in state:
        return
    for key, least in _AT_LEAST.items():
        size = state.get(key, least)
        if not isinstance(size, int) or size < least:
            raise Unsafe(f"{below(where, key)} is {size!r:.20}, not {least} or more")
    layers = state.get("num_layers")
    if not isinstance(layers, int):
        return
    count = len(pairs(state["_parameters"]))
    if layers > max(count, 1):
        raise Unsafe(f"{where or path} claims {layers} layers and has {count} weights")


def _is_hook(item: Any, hooks: Mapping[str, type]) -> bool:
    return is_made_by(item, set(hooks)) and not item.called


def _all_hooks(items: Any, hooks: Mapping[str, type]) -> bool:
    return isinstance(items, tuple | list) and all(_is_hook(item, hooks) for item in items)


def _check_target(hook: Built, state: Mapping[str, Any], where: str) -> None:
    """The tensor that a hook sets must be one that it makes from the module's own parts."""
    path = hook.of.path if isinstance(hook.of, Global) else ""
    own = hook.states[0] if hook.states and isinstance(hook.states[0], dict) else {}
    parts, name = _HOOK_PARTS.get(path), own.get("name")
    if path.startswith(_PRUNING):
        parts, name = ("_orig", "_mask"), own.get("_tensor_name")
    if parts is None:
        return
    there = {key for table in ("_parameters", "_buffers") for key, _ in pairs(state[table])}
    if not isinstance(name, str) or not {name + part for part in parts} <= there:
        raise Unsafe(f"{where} holds a hook on something that is no parameter")

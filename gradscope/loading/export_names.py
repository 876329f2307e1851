"""What the text in an exported program may name: operations, variables, containers."""

from __future__ import annotations

import json
import keyword
import re
from typing import Any

import torch

from gradscope.loading.pickle_scan import Unsafe
from gradscope.loading.script_names import is_forbidden

_NAME = re.compile(r"^[A-Za-z_]\w{0,400}$")
_PART = re.compile(r"^\w[\w\-]{0,200}$")
_OPERATION = re.compile(r"^torch\.ops\.(aten|prims)\.(\w+)\.(\w+)$")
_HIGHER = frozenset({
    "associative_scan", "cond", "map_impl", "scan", "tag_activation_checkpoint", "while_loop",
    "wrap_activation_checkpoint", "wrap_with_autocast", "wrap_with_set_grad_enabled",
})  # fmt: skip
_SCALARS = frozenset(
    f"_operator.{n}"
    for n in (
        "add", "and_", "eq", "floordiv", "ge", "getitem", "gt", "le", "lshift", "lt", "mod",
        "mul", "ne", "neg", "not_", "or_", "pos", "pow", "rshift", "sub", "truediv", "xor",
    )
) | frozenset(
    f"torch.{n}"
    for n in (
        "sym_float", "sym_int", "sym_ite", "sym_max", "sym_min", "sym_not", "sym_sqrt", "sym_sum",
        "_sym_sqrt",
    )
) | frozenset(f"math.{n}" for n in ("ceil", "floor", "trunc", "sqrt"))  # fmt: skip
_CONTAINERS = frozenset({
    None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict",
})  # fmt: skip
_CALL = ["builtins.tuple", "builtins.tuple", "builtins.dict"]
_MAX_DEPTH = 60


def check_name(value: Any, what: str) -> None:
    """A variable: it becomes part of Python code that torch writes and runs."""
    if not isinstance(value, str) or not _NAME.match(value) or keyword.iskeyword(value):
        raise Unsafe(f"it names {what} {str(value)[:60]!r}, which is no plain name")


def check_path(value: Any, what: str) -> None:
    """A dotted path of a parameter or a module: it is set as an attribute."""
    parts = value.split(".") if isinstance(value, str) else [""]
    for part in parts:
        taken = part.startswith("__") or hasattr(torch.nn.Module, part)
        if not _PART.match(part) or taken:
            raise Unsafe(f"it names {what} {str(value)[:60]!r}, which is no parameter's path")


def check_target(value: Any) -> None:
    """What a node calls."""
    if not isinstance(value, str):
        raise Unsafe("it calls what has no name")
    found = _OPERATION.match(value)
    if found is not None:
        if is_forbidden(found.group(2)):
            raise Unsafe(f"it calls {value}")
        return
    namespace, _, name = value.rpartition(".")
    if value in _SCALARS or (namespace == "torch.ops.higher_order" and name in _HIGHER):
        return
    if value.startswith("torch.ops.quantized"):
        raise Unsafe(f"it is quantized (calls {value}): a quantized model has no gradients")
    raise Unsafe(f"it calls {value[:100]}, which is not one of PyTorch's own calculations")


def read_spec(text: Any, *, lenient: bool) -> tuple[str, list[str]]:
    """The form of nested inputs or outputs, written anew.

    torch imports by name what such a text refers to (enumerations, factories of dictionaries).

    Args:
        text: JSON in a string.
        lenient: take containers of unknown classes for tuples.

    Returns:
        (the text, the classes that were taken for tuples).

    Raises:
        Unsafe: it refers to anything but PyTorch's plain containers.
    """
    try:
        protocol, form = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise Unsafe("the form of its inputs or outputs cannot be read") from error
    unknown: list[str] = []
    written = _spec(form, 0, unknown if lenient else None)
    return json.dumps([int(protocol) if protocol == 1 else _odd(), written]), unknown


def read_arguments(text: Any) -> str:
    """The form of the arguments of a call: positional ones, then those by name.

    Raises:
        Unsafe: it is not, or refers to anything but PyTorch's plain containers.
    """
    written, _ = read_spec(text, lenient=False)
    form = json.loads(written)[1]
    if [form["type"], *(c["type"] for c in form["children_spec"])] != _CALL:
        raise Unsafe("it does not say how it is called")
    return written


def _odd() -> int:
    raise Unsafe("the form of its inputs or outputs is of an unknown version")


def _spec(form: Any, depth: int, unknown: list[str] | None) -> dict[str, Any]:
    if depth > _MAX_DEPTH or not isinstance(form, dict):
        raise Unsafe("the form of its inputs or outputs cannot be read")
    kind, context = form.get("type"), form.get("context")
    children = form.get("children_spec")
    if not isinstance(children, list) or not isinstance(kind, str | None):
        raise Unsafe("the form of its inputs or outputs cannot be read")
    written = [_spec(c, depth + 1, unknown) for c in children]
    if kind not in _CONTAINERS:
        if unknown is None:
            raise Unsafe(f"its inputs are of class {str(kind)[:80]}")
        unknown.append(str(kind)[:80])
        kind, context = "builtins.tuple", "null"
    if kind is None:
        return {"type": None, "context": None, "children_spec": []}
    return {"type": kind, "context": _keys(kind, context, len(written)), "children_spec": written}


def _keys(kind: str, context: Any, count: int) -> str:
    try:
        keys = json.loads(context) if isinstance(context, str) else context
    except (ValueError, RecursionError) as error:
        raise Unsafe("the form of its inputs or outputs cannot be read") from error
    if kind in ("builtins.tuple", "builtins.list"):
        return "null"
    plain = isinstance(keys, list) and len(keys) == count
    if not plain or not all(isinstance(k, str | int) for k in keys):
        raise Unsafe("a dictionary among its inputs or outputs has odd keys")
    return json.dumps(keys)

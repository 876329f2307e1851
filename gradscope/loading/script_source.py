"""Reads the source text in a TorchScript archive, which is a subset of Python's.

torch compiles this text when it opens the file, and runs parts of it at once: ``__setstate__``,
default arguments, class constants. What passes is written anew from its syntax tree, so that no
trick of the text (comments, escapes, odd line ends) makes torch read what was not read here.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from gradscope.loading.pickle_scan import Unsafe
from gradscope.loading.script_names import BUILTINS, is_forbidden, unknown_operation

_MAX_DEPTH = 120
_ROOTS = frozenset({"torch", "ops", "__torch__", "CONSTANTS"})
_BASES = frozenset({"Module", "NamedTuple", "Enum", "ModuleInterface", "Interface"})
_NODES = (
    ast.Module, ast.Import, ast.alias, ast.ClassDef, ast.FunctionDef, ast.arguments, ast.arg,
    ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Return, ast.If, ast.For, ast.While, ast.Pass,
    ast.Break, ast.Continue, ast.Expr, ast.With, ast.withitem, ast.Assert, ast.Raise, ast.Delete,
    ast.Name, ast.Attribute, ast.Call, ast.keyword, ast.Constant, ast.Tuple, ast.List, ast.Dict,
    ast.Subscript, ast.Slice, ast.UnaryOp, ast.BinOp, ast.BoolOp, ast.Compare, ast.IfExp,
    ast.expr_context, ast.operator, ast.unaryop, ast.boolop, ast.cmpop,
)  # fmt: skip
_LITERAL = (
    ast.Constant, ast.Tuple, ast.List, ast.Dict, ast.UnaryOp, ast.unaryop, ast.Name,
    ast.expr_context,
)  # fmt: skip
_PACKING = (
    ast.FunctionDef, ast.arguments, ast.arg, ast.Assign, ast.AnnAssign, ast.Return, ast.Pass,
    ast.Attribute, ast.Subscript, ast.Slice, *_LITERAL,
)  # fmt: skip
_CASTS = frozenset({"annotate", "unchecked_cast", "int", "float", "bool"})
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True)
class Source:
    """One file of code that was found harmless.

    Attributes:
        text: written anew.
        assigned: names of attributes that methods assign.
        defines: names of its functions and methods.
        calls: operations that it calls (``lstm``, ``batch_norm``), whatever the namespace.
        devices: devices other than the CPU that stand in it.
        trains: whether it calls dropout or batch norm in train mode, come what may.
    """

    text: str
    assigned: frozenset[str]
    defines: frozenset[str]
    calls: frozenset[str]
    devices: frozenset[str]
    trains: bool


def read_source(text: str, name: str, *, on_cpu: bool) -> Source:
    """Check one file.

    Args:
        text: of the file.
        name: of the record, for messages.
        on_cpu: write ``cpu`` in place of every other device.

    Raises:
        Unsafe: it would do more than calculate, or something at the time of loading.
    """
    if _CONTROL.search(text):
        raise Unsafe(f"its code ({name}) holds control characters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Unsafe(f"its code ({name}) is no TorchScript: {error}") from error
    nodes = list(_walk(tree, name))
    bases = {id(n.value) for n in nodes if isinstance(n, ast.Attribute)}
    # A function may be given a short name before it is called; what it is was checked there.
    called = BUILTINS | {
        n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    }
    for node in nodes:
        _check(node, name, bases)
        function = node.func if isinstance(node, ast.Call) else None
        if isinstance(function, ast.Name) and function.id not in called:
            raise Unsafe(f"its code ({name}) calls {function.id}")
    devices = frozenset(_devices(nodes, on_cpu))  # before the text is written
    return Source(
        ast.unparse(tree) + "\n",
        frozenset(_assigned(nodes)),
        frozenset(n.name for n in nodes if isinstance(n, ast.FunctionDef)),
        frozenset(n.func.attr for n in nodes
                  if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)),
        devices,
        any(_is_training(n) for n in nodes),
    )  # fmt: skip


def _walk(tree: ast.AST, name: str) -> Iterator[ast.AST]:
    stack = [(tree, 0)]
    while stack:
        node, depth = stack.pop()
        if depth > _MAX_DEPTH:
            raise Unsafe(f"its code ({name}) is nested too deeply")
        yield node
        stack.extend((child, depth + 1) for child in ast.iter_child_nodes(node))


def _check(node: ast.AST, name: str, bases: set[int]) -> None:
    if not isinstance(node, _NODES):
        raise Unsafe(f"its code ({name}) holds a {type(node).__name__}, which TorchScript has not")
    if isinstance(node, ast.Attribute):
        _attribute(node, name)
    elif isinstance(node, ast.Call):
        _call(node, name)
    elif isinstance(node, ast.Name):
        stored = not isinstance(node.ctx, ast.Load)
        if node.id in _ROOTS and (stored or id(node) not in bases):
            raise Unsafe(f"its code ({name}) passes {node.id} around")
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bytes):
            raise Unsafe(f"its code ({name}) holds bytes")
    elif isinstance(node, ast.ClassDef):
        _class(node, name)
    elif isinstance(node, ast.FunctionDef):
        _function(node, name)
    elif isinstance(node, ast.Import) and not all(
        a.name.startswith("__torch__") and not a.asname for a in node.names
    ):
        raise Unsafe(f"its code ({name}) imports {node.names[0].name}")


def _chain(node: ast.expr) -> list[str]:
    """``ops.prim.dtype`` -> its three names; the first is empty unless it is a plain name."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    names.append(node.id if isinstance(node, ast.Name) else "")
    return names[::-1]


def _attribute(node: ast.Attribute, name: str) -> None:
    chain = _chain(node)
    if is_forbidden(node.attr):
        raise Unsafe(f"its code ({name}) calls {'.'.join(chain).lstrip('.')}")
    if chain[0] == "__torch__" and chain[1:3] == ["torch", "classes"]:
        what = ".".join(chain[3:]) or "a class"
        raise Unsafe(f"its code ({name}) uses torch.classes.{what}, an extension written in C++")
    if chain[0] == "ops" and len(chain) >= 3:
        refusal = unknown_operation(chain[1], chain[2])
        if refusal is not None:
            raise Unsafe(refusal)
        if len(chain) > 3:
            raise Unsafe(f"its code ({name}) looks into {'.'.join(chain[:3])}")


def _call(node: ast.Call, name: str) -> None:
    if any(k.arg is None for k in node.keywords):
        raise Unsafe(f"its code ({name}) unpacks keywords")
    if isinstance(node.func, ast.Attribute):
        chain = _chain(node.func)
        if chain[0] == "ops" and len(chain) != 3:
            raise Unsafe(f"its code ({name}) calls {'.'.join(chain)}")
        return
    if not isinstance(node.func, ast.Name):
        raise Unsafe(f"its code ({name}) calls {ast.unparse(node.func)[:60]}")
    if node.func.id in ("getattr", "hasattr"):
        named = node.args[1] if len(node.args) == 2 else None
        if not isinstance(named, ast.Constant) or not isinstance(named.value, str):
            raise Unsafe(f"its code ({name}) looks up an attribute that it computes")
        if is_forbidden(named.value):
            raise Unsafe(f"its code ({name}) calls {named.value}")


def _class(node: ast.ClassDef, name: str) -> None:
    """The body of a class is evaluated when the file is opened."""
    known = [b.id for b in node.bases if isinstance(b, ast.Name) and b.id in _BASES]
    if len(known) != len(node.bases) or node.keywords or node.decorator_list:
        raise Unsafe(f"its code ({name}) derives class {node.name} from something odd")
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef | ast.Pass):
            continue
        value = getattr(statement, "value", None)
        if not isinstance(statement, ast.Assign | ast.AnnAssign):
            raise Unsafe(f"its code ({name}) has statements in class {node.name}")
        is_type = isinstance(statement, ast.Assign) and isinstance(
            statement.targets[0], ast.Subscript
        )
        if not is_type and value is not None and not _is_literal(value):
            raise Unsafe(f"its code ({name}) computes a constant of class {node.name}")


def _function(node: ast.FunctionDef, name: str) -> None:
    arguments = node.args
    odd = arguments.vararg or arguments.kwarg or arguments.posonlyargs or node.decorator_list
    if odd:
        raise Unsafe(f"its code ({name}) has a function {node.name} of an odd form")
    defaults = [*arguments.defaults, *(d for d in arguments.kw_defaults if d is not None)]
    if not all(_is_literal(d) for d in defaults):
        raise Unsafe(f"its code ({name}) computes a default of {node.name}, when it is opened")
    if node.name == "__setstate__":
        _packing(node, name)


def _packing(node: ast.FunctionDef, name: str) -> None:
    """What runs when the file is opened may put values into attributes and no more."""
    for part in (n for statement in node.body for n in ast.walk(statement)):
        if isinstance(part, ast.Call):
            if isinstance(part.func, ast.Name) and part.func.id in _CASTS:
                continue
            what = ast.unparse(part.func)[:60]
            raise Unsafe(f"its code ({name}) calls {what} in {node.name}, when it is opened")
        if not isinstance(part, _PACKING):
            what = type(part).__name__
            raise Unsafe(f"its code ({name}) runs more than assignments in {node.name} ({what})")


def _is_literal(value: ast.expr) -> bool:
    if _is_device(value) or (isinstance(value, ast.Attribute) and _chain(value)[0] == "CONSTANTS"):
        return True
    if isinstance(value, ast.Call):
        named = isinstance(value.func, ast.Name) and value.func.id in ("annotate", "complex")
        return named and all(_is_literal(a) or i == 0 for i, a in enumerate(value.args))
    return all(isinstance(n, _LITERAL) for n in ast.walk(value))


def _is_device(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call) or _chain(node.func) != ["torch", "device"]:
        return False
    return all(isinstance(a, ast.Constant) for a in node.args) and not node.keywords


def _devices(nodes: list[ast.AST], on_cpu: bool) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Call) and _is_device(node) and node.args:
            named = node.args[0]
            if isinstance(named, ast.Constant) and named.value != "cpu":
                yield str(named.value)
                if on_cpu:
                    node.args = [ast.Constant("cpu")]


_FLAGS = {"batch_norm": 5, "dropout": 2, "feature_dropout": 2, "alpha_dropout": 2}


def _is_training(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    at = _FLAGS.get(node.func.attr)
    flag = node.args[at] if at is not None and len(node.args) > at else None
    return isinstance(flag, ast.Constant) and flag.value is True


def _assigned(nodes: list[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr

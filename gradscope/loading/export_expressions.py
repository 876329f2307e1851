"""Symbolic sizes in an exported program: arithmetic, and nothing else.

torch hands this text to ``sympy.sympify``, which evaluates it as Python code.
"""

from __future__ import annotations

import ast
import re
from typing import Any

from gradscope.loading.pickle_scan import Unsafe

_MAX_TEXT, _MAX_NODES, _MAX_NUMBER, _MAX_POWER = 4000, 600, 1 << 63, 16
_SYMBOL = re.compile(r"^[A-Za-z_]\w{0,80}$")
_FREE = re.compile(r"^[a-z]{1,3}\d{1,6}$")
_DECIMAL = re.compile(r"^-?[\d.]{1,400}(e[+-]?\d{1,5})?$")
_FUNCTIONS = frozenset({
    "Abs", "Add", "And", "CeilDiv", "CeilToInt", "CleanDiv", "Eq", "Equality", "Float", "FloatPow",
    "FloatTrueDiv", "FloorDiv", "FloorToInt", "Ge", "GreaterThan", "Gt", "Identity", "IntTrueDiv",
    "Integer", "IsNonOverlappingAndDenseIndicator", "Le", "LessThan", "Lt", "Max", "Min", "Mod",
    "ModularIndexing", "Mul", "Ne", "Not", "Or", "Pow", "PowByNatural", "PythonMod", "Rational",
    "RoundToInt", "StrictGreaterThan", "StrictLessThan", "Symbol", "ToFloat", "TruncToFloat",
    "TruncToInt", "Unequality", "Where", "ceiling", "floor", "sqrt",
})  # fmt: skip
_CONSTANTS = frozenset({"true", "false", "oo", "int_oo", "nan"})
_POWERS = frozenset({"Pow", "PowByNatural", "FloatPow"})
_NODES = (
    ast.Expression, ast.Constant, ast.Name, ast.Call, ast.keyword, ast.UnaryOp, ast.USub, ast.UAdd,
    ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.Compare,
    ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Load,
)  # fmt: skip
_ASSUMPTIONS = frozenset({"integer", "positive", "nonnegative", "real", "precision", "finite",
                          "negative", "nonzero", "zero", "commutative", "evaluate"})  # fmt: skip


def read_expression(text: Any) -> str:
    """An expression, written anew from its syntax tree.

    Raises:
        Unsafe: it is more than arithmetic on sizes.
    """
    if not isinstance(text, str) or len(text) > _MAX_TEXT:
        raise Unsafe("a size in it is no expression")
    shown = f"a size in it is no arithmetic: {text[:60]!r}"
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Unsafe(shown) from error
    nodes = list(ast.walk(tree))
    calls = [n for n in nodes if isinstance(n, ast.Call)]
    texts = {id(n.args[0]) for n in calls if _is_named(n, "Symbol", "Float") and n.args}
    functions = {id(n.func) for n in calls}
    powers = sum(_is_named(n, *_POWERS) or isinstance(n, ast.Pow) for n in nodes)
    if len(nodes) > _MAX_NODES or powers > 3 or not all(isinstance(n, _NODES) for n in nodes):
        raise Unsafe(shown)
    for node in nodes:
        if not _is_sound(node, texts, functions):
            raise Unsafe(shown)
    return ast.unparse(tree)


def _is_named(node: ast.AST, *names: str) -> bool:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        return False
    return node.func.id in names


def _is_sound(node: ast.AST, texts: set[int], functions: set[int]) -> bool:
    if isinstance(node, ast.Constant):
        return _is_sound_constant(node, texts)
    if isinstance(node, ast.Name):
        known = _FUNCTIONS if id(node) in functions else _CONSTANTS
        return node.id in known or (id(node) not in functions and bool(_FREE.match(node.id)))
    if isinstance(node, ast.Call):
        named = all(k.arg in _ASSUMPTIONS for k in node.keywords)
        power = not _is_named(node, *_POWERS) or (len(node.args) == 2 and _is_small(node.args[1]))
        return isinstance(node.func, ast.Name) and named and power
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        return _is_small(node.right)
    return True


def _is_sound_constant(node: ast.Constant, texts: set[int]) -> bool:
    value = node.value
    if isinstance(value, str):
        sound = _SYMBOL.match(value) or _DECIMAL.match(value)
        return id(node) in texts and sound is not None
    if isinstance(value, bool | None):
        return True
    return isinstance(value, int | float) and abs(value) <= _MAX_NUMBER


def _is_small(power: ast.expr) -> bool:
    if _is_named(power, "Integer") and isinstance(power, ast.Call) and len(power.args) == 1:
        power = power.args[0]
    if isinstance(power, ast.UnaryOp):
        power = power.operand
    if not isinstance(power, ast.Constant) or not isinstance(power.value, int | float):
        return False
    return abs(power.value) <= _MAX_POWER

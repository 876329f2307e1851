"""Checks the JSON of an exported program, and writes it anew without what no run needs.

What torch does with it: sizes are evaluated (``sympify``), guards and names become Python source
that is executed, targets are looked up in torch, ``math`` and ``operator``, forms of inputs and
outputs import classes by name. So each kind of text is held to its own small language.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gradscope.loading.export_expressions import read_expression
from gradscope.loading.export_names import (
    check_name,
    check_path,
    check_target,
    read_arguments,
    read_spec,
)
from gradscope.loading.pickle_scan import Unsafe

_MAX_DEPTH = 120
_MAX_NUMBER = 1 << 63
_DEVICES = frozenset({"cpu", "cuda", "mps", "meta", "xpu", "mtia", "hpu"})
_VERIFIERS = frozenset({"ATEN", "TRAINING", ""})
_VARIABLES = frozenset({"as_name", "arg_name"})
_PATHS = frozenset({
    "parameter_name", "buffer_name", "tensor_constant_name", "user_input_name",
})  # fmt: skip
_TEXTS = frozenset({"as_string", "as_strings", "torch_version"})
_CUSTOM = frozenset({"as_custom_obj", "custom_obj", "token"})
_NAMED = frozenset({
    "tensor_values", "sym_int_values", "sym_bool_values", "sym_float_values", "opset_version",
    "range_constraints",
})  # fmt: skip
_FLOATS = frozenset({"Infinity", "-Infinity", "NaN"})


@dataclass
class Program:
    """What was read.

    Attributes:
        kinds: path of a layer -> its class (``torch.nn.modules.linear.Linear``), as noted by torch.
        calls: operations that it calls.
        devices: other than the CPU, on which its tensors were.
        taken: classes of outputs that were taken for tuples.
        trains: whether it runs dropout or batch norm in train mode.
    """

    on_cpu: bool
    kinds: dict[str, str] = field(default_factory=dict)
    calls: set[str] = field(default_factory=set)
    devices: set[str] = field(default_factory=set)
    taken: list[str] = field(default_factory=list)
    trains: bool = False

    def read(self, value: Any) -> dict[str, Any]:
        """The whole program, written anew.

        Raises:
            Unsafe: it would do more than calculate.
        """
        if not isinstance(value, dict) or not isinstance(value.get("graph_module"), dict):
            raise Unsafe("its program is not of a known form")
        verifiers = value.get("verifiers", [])
        if not isinstance(verifiers, list) or not set(map(str, verifiers)) <= _VERIFIERS:
            raise Unsafe(f"its dialect is unknown ({str(verifiers)[:60]})")
        rest = {k: v for k, v in value.items() if k not in ("verifiers", "guards_code")}
        _widen(rest.get("range_constraints"))
        # Guards are Python code; shapes are checked against the inputs' own description.
        return {**self._dictionary(rest, "", 0), "verifiers": verifiers, "guards_code": []}

    def _value(self, value: Any, key: str, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise Unsafe("its program is nested too deeply")
        if isinstance(value, dict):
            return self._dictionary(value, key, depth + 1)
        if isinstance(value, list):
            return [self._value(v, key, depth + 1) for v in value]
        if isinstance(value, str):
            return self._text(value, key)
        if isinstance(value, int | float) and abs(value) > _MAX_NUMBER:
            raise Unsafe(f"its program holds an absurd number ({str(value)[:20]})")
        return value

    def _dictionary(self, value: Mapping[str, Any], key: str, depth: int) -> dict[str, Any]:
        if key in _NAMED:
            for name in value:
                check_name(name, "a variable")
        if "target" in value and "inputs" in value:
            self._node(value)
        found = {}
        for name, item in value.items():
            special = _SPECIAL.get(name)
            if name in _CUSTOM and item:
                raise Unsafe("it holds an object of a class of its own")
            if special is not None and key not in _NAMED:
                found[name] = special(self, item)
            elif name == "name" and item == "" and key == "inputs":
                found[name] = item  # arguments of control flow have no names
            else:
                found[name] = self._value(item, name, depth)
        return found

    def _text(self, value: str, key: str) -> str:
        if key == "expr_str":
            return read_expression(value)
        if key in ("target", "as_operator"):
            check_target(value)
        elif key == "name" or key in _VARIABLES:
            if value:
                check_name(value, "a variable")
        elif key in _PATHS:
            check_path(value, "a parameter")
        elif key == "type":
            if value not in _DEVICES:
                raise Unsafe(f"it names a device {value[:40]!r}")
            if value != "cpu":
                self.devices.add(value)
            return "cpu" if self.on_cpu else value
        elif key not in _TEXTS and value not in _FLOATS:
            raise Unsafe(f"its program holds text where none is known ({key}: {value[:40]!r})")
        return value

    def _node(self, node: Mapping[str, Any]) -> None:
        target = node["target"]
        check_target(target)
        operation = target.split(".")[3] if target.count(".") >= 4 else target
        self.calls.add(operation)
        for given in node["inputs"] if isinstance(node["inputs"], list) else ():
            if isinstance(given, dict) and given.get("name") in ("train", "training"):
                self.trains |= given.get("arg") == {"as_bool": True}
        said = node.get("metadata")
        stack = said.get("nn_module_stack") if isinstance(said, dict) else None
        for item in stack.split(";") if isinstance(stack, str) else ():
            parts = item.split(",")
            if len(parts) == 3 and parts[1]:
                self.kinds.setdefault(parts[1], parts[2])

    def _calls_of_modules(self, value: Any) -> list[dict[str, Any]]:
        """Only the root's: how the whole is called."""
        roots = [e for e in value if isinstance(e, dict)] if isinstance(value, list) else []
        if (
            not roots
            or roots[0].get("fqn") != ""
            or not isinstance(roots[0].get("signature"), dict)
        ):
            raise Unsafe("it does not say how it is called")
        signature = dict(roots[0]["signature"])
        form = read_arguments(signature.pop("in_spec", None))
        result, self.taken = read_spec(signature.pop("out_spec", None), lenient=True)
        names = signature.pop("forward_arg_names", None)
        if not isinstance(names, list | None):
            raise Unsafe("it does not say how it is called")
        for name in names or ():
            check_name(name, "an argument")
        rest = self._dictionary(signature, "signature", 0)
        rest |= {"in_spec": form, "out_spec": result, "forward_arg_names": names}
        return [{"fqn": "", "signature": rest}]

    def _nothing(self, value: Any) -> dict[str, Any]:
        return {}


def _widen(ranges: Any) -> None:
    """Sizes from 2 up are torch's own assumption; a last batch of one sample is no other graph."""
    for bounds in ranges.values() if isinstance(ranges, dict) else ():
        if isinstance(bounds, dict) and bounds.get("min_val") == 2:
            bounds["min_val"] = 1


_SPECIAL: dict[str, Callable[[Program, Any], Any]] = {
    "metadata": Program._nothing,
    "treespec_namedtuple_fields": Program._nothing,
    "custom_obj_values": Program._nothing,
    "module_call_graph": Program._calls_of_modules,
}

"""Exported programs that try something. Each builder writes one file; ``CANARY`` is what a file
that runs would leave behind in the folder."""

from __future__ import annotations

import functools
import json
import os
import pickle
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.hostile import CANARY, Calls

Records = dict[str, bytes]
Builder = Callable[[Path], Path]
MODEL = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"


@functools.cache
def sound() -> dict[str, bytes]:
    """The records of a sound program."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "model.pt2"
        net = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3)).eval()
        shapes = ({0: torch.export.Dim("n", min=2, max=99)},)
        program = torch.export.export(net, (torch.randn(4, 3),), dynamic_shapes=shapes)
        torch.export.save(program, path)
        with zipfile.ZipFile(path) as archive:
            return {e.filename.partition("/")[2]: archive.read(e) for e in archive.infolist()}


def write(records: Records, folder: Path, root: str = "model/") -> Path:
    """An archive of these records."""
    path = folder / "model.pt2"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in records.items():
            archive.writestr(root + name, data)
    return path


def edited(record: str, change: Callable[[Any, str], None]) -> Builder:
    """A sound program whose JSON was changed; ``change`` also gets a command that sings."""

    def build(folder: Path) -> Path:
        records = dict(sound())
        value = json.loads(records[record])
        change(value, f"touch {folder / CANARY}")
        records[record] = json.dumps(value).encode()
        return write(records, folder)

    return build


def added(make: Callable[[Path], Records]) -> Builder:
    """A sound program with other records."""
    return lambda folder: write({**sound(), **make(folder)}, folder)


def _pickled(folder: Path) -> bytes:
    path = folder / "payload"
    torch.save(Calls(os.system, f"touch {folder / CANARY}"), path)
    data = path.read_bytes()
    path.unlink()
    return data


def _signature(**values: Any) -> Builder:
    """Another description of how the program is called."""
    return edited(
        MODEL,
        lambda v, c: v["graph_module"]["module_call_graph"][0]["signature"].update(values),
    )


def _expression(text: str) -> Builder:
    def change(value: Any, command: str) -> None:
        for size in _sizes(value):
            size["as_expr"]["expr_str"] = text.replace("COMMAND", command)

    return edited(MODEL, change)


def _sizes(value: Any) -> list[Any]:
    metas = value["graph_module"]["graph"]["tensor_values"].values()
    return [s for m in metas for s in m["sizes"] if "as_expr" in s]


def _target(text: str) -> Builder:
    return edited(MODEL, lambda v, c: v["graph_module"]["graph"]["nodes"][-1].update(target=text))


def _argument(argument: Any) -> Builder:
    def change(value: Any, command: str) -> None:
        node = value["graph_module"]["graph"]["nodes"][-1]
        node["inputs"].append({"name": "x", "arg": argument, "kind": 1})

    return edited(MODEL, change)


def _renamed(old: str, new: str) -> Builder:
    """Everywhere, so that the program still fits together."""

    def build(folder: Path) -> Path:
        records = dict(sound())
        text = new.replace("COMMAND", f"touch {folder / CANARY}")
        for name in (MODEL, WEIGHTS):
            quoted = json.dumps(old)
            records[name] = records[name].replace(quoted.encode(), json.dumps(text).encode())
        return write(records, folder)

    return build


def _form(which: str, form: Any) -> Builder:
    def change(value: Any, command: str) -> None:
        signature = value["graph_module"]["module_call_graph"][0]["signature"]
        text = json.dumps(form) if not isinstance(form, str) else form
        signature[which] = text.replace("COMMAND", command)

    return edited(MODEL, change)


def _tuple(*parts: Any) -> dict[str, Any]:
    return {"type": "builtins.tuple", "context": "null", "children_spec": list(parts)}


def _leaf() -> dict[str, Any]:
    return {"type": None, "context": None, "children_spec": []}


def _weight(**changes: Any) -> Builder:
    def change(value: Any, command: str) -> None:
        first = value["config"]["0.weight"]
        first["tensor_meta"].update(changes)

    return edited(WEIGHTS, change)


def _payload(record: str, name: str, folder: Path, **changes: Any) -> Records:
    value = json.loads(sound()[record])
    meta = json.loads(sound()[WEIGHTS])["config"]["0.weight"]
    value["config"][name] = {**meta, **changes}
    return {record: json.dumps(value).encode()}


_ENUM = {"__enum__": True, "fqn": "antigravity:X", "name": "Y"}
HOSTILE_EXPORTS: dict[str, Builder] = {
    # expressions, which sympy evaluates
    "export: os.system as a size": _expression("__import__('os').system('COMMAND')"),
    "export: lambda as a size": _expression("(lambda: 1)()"),
    "export: eval as a size": _expression("eval('1')"),
    "export: attribute of a symbol": _expression("Symbol('s0').__class__"),
    "export: power of powers": _expression("9**9**9**9"),
    "export: string as a size": _expression("Symbol('a') + 'b'"),
    "export: long size": _expression("+".join(["s0"] * 5000)),
    # targets, looked up by name
    "export: torch.load as target": _target("torch.load"),
    "export: torch.hub.load as target": _target("torch.hub.load"),
    "export: methodcaller as target": _target("_operator.methodcaller"),
    "export: attrgetter as target": _target("_operator.attrgetter"),
    "export: imported module as target": _target("torch.os.system"),
    "export: file operation as target": _target("torch.ops.aten.from_file.default"),
    "export: custom operation": _target("torch.ops.mylib.run.default"),
    "export: extension target": _target("#mylib:run"),
    "export: operator argument": _argument({"as_operator": "torch.os.system"}),
    "export: custom object argument": _argument(
        {"as_custom_obj": {"name": "o", "class_fqn": "__torch__.torch.classes.mylib.Shell"}}
    ),
    "export: text in an unknown place": _argument({"as_code": "import os"}),
    # names, which become source code
    "export: code as the name of a node": _renamed(
        "tanh", "t = __import__('os').system('COMMAND')#"
    ),
    "export: code as the name of an input": _renamed(
        "input", "x=__import__('os').system('COMMAND')"
    ),
    "export: code as the name of an argument": edited(
        MODEL,
        lambda v, c: v["graph_module"]["module_call_graph"][0]["signature"].update(
            forward_arg_names=[f"x=__import__('os').system('{c}')"]
        ),
    ),
    "export: code as the name of a parameter": _renamed("0.weight", "a\");__import__('os');(\""),
    "export: parameter over a method": _renamed("0.weight", "forward.weight"),
    "export: parameter over a class": _renamed("0.weight", "__class__"),
    # forms, which import by name
    "export: enumeration in a form": _form(
        "in_spec", [1, {"type": "builtins.dict", "context": json.dumps([_ENUM]),
                        "children_spec": [_leaf()]}],
    ),
    "export: defaultdict in a form": _form(
        "in_spec", [1, {"type": "collections.defaultdict", "context": json.dumps(
            {"default_factory_module": "os", "default_factory_name": "system",
             "dict_context": []}), "children_spec": []}],
    ),
    "export: unknown class in a form": _form(
        "in_spec", [1, {"type": "antigravity.X", "context": "null", "children_spec": []}]
    ),
    "export: form that is no JSON": _form("out_spec", "import os"),
    "export: unknown form version": _form("out_spec", [7, _leaf()]),
    # weights and constants
    "export: pickled weight": added(
        lambda f: {**_payload(WEIGHTS, "0.weight", f, use_pickle=True),
                   "data/weights/weight_0": _pickled(f)}
    ),
    "export: opaque constant": added(
        lambda f: {**_payload(CONSTANTS, "c", f, path_name="opaque_obj_0", use_pickle=True),
                   "data/constants/opaque_obj_0":
                   pickle.dumps(Calls(os.system, f"touch {f / CANARY}"))}
    ),
    "export: custom constant": added(
        lambda f: {**_payload(CONSTANTS, "c", f, path_name="custom_obj_0", use_pickle=True),
                   "data/constants/custom_obj_0": _pickled(f)}
    ),
    "export: weights as one pickle": added(lambda f: {"data/weights/model.pt": _pickled(f)}),
    "export: weight outside": added(
        lambda f: _payload(WEIGHTS, "0.weight", f, path_name="../../weight_0")
    ),
    "export: weight larger than its record": _weight(
        sizes=[{"as_int": 3000}, {"as_int": 3}]
    ),
    "export: expanded weight of 1e12": _weight(
        sizes=[{"as_int": 10**6}, {"as_int": 10**6}], strides=[{"as_int": 0}, {"as_int": 0}]
    ),
    "export: weight with an offset": _weight(storage_offset={"as_int": 10**9}),
    "export: weight of negative size": _weight(sizes=[{"as_int": -3}, {"as_int": -3}]),
    "export: sizes that are a number": _weight(sizes=0.5),
    "export: type that is a list": _weight(dtype=[7]),
    "export: weight without numbers": added(lambda f: {"data/weights/weight_0": b""}),
    "export: sizes that are expressions": _weight(
        sizes=[{"as_expr": {"expr_str": "__import__('os')"}}, {"as_int": 3}]
    ),
    # archives and forms
    "export: compiled code": added(lambda f: {"data/aotinductor/model/x.so": b"\x7fELF"}),
    "export: two programs": added(lambda f: {"models/other.json": b"{}"}),
    "export: other schema": edited(
        MODEL, lambda v, c: v.update(schema_version={"major": 99, "minor": 0})
    ),
    "export: other archive version": added(lambda f: {"archive_version": b"7"}),
    "export: unknown dialect": edited(MODEL, lambda v, c: v.update(verifiers=["EVIL"])),
    "export: form of 2.7": lambda folder: write(
        {"serialized_exported_program.json": b"{}", "version": b"8.1",
         "serialized_state_dict.pt": _pickled(folder)}, folder, root=""
    ),
    "export: nested JSON": added(lambda f: {MODEL: b"[" * 100_000 + b"]" * 100_000}),
    "export: no JSON": added(lambda f: {MODEL: b"import os"}),
    "export: JSON of another thing": added(lambda f: {MODEL: b"[1, 2]"}),
    "export: call that is one value": _form("in_spec", [1, _leaf()]),
    "export: call of positional arguments alone": _form("in_spec", [1, _tuple(_tuple(_leaf()))]),
    "export: named arguments in a tuple": _form("in_spec", [1, _tuple(_tuple(), _tuple(_leaf()))]),
    "export: names of arguments that are a number": _signature(forward_arg_names=5),
    "export: names of arguments by name": _signature(forward_arg_names={"x": 1}),
    "export: target in a list": edited(
        MODEL, lambda v, c: v["graph_module"]["graph"]["nodes"][0].update(target=["a.b.c.d.e"])
    ),
    "export: absurd number": _argument({"as_int": 10**40}),
    "export: number beyond floats": _argument({"as_int": 10**400}),
    "export: path that leaves": added(lambda f: {"data/../../evil": b""}),
}  # fmt: skip

HARMLESS_EXPORTS: dict[str, Builder] = {
    "export: guards are code": edited(
        MODEL, lambda v, c: v.update(guards_code=[f"__import__('os').system('{c}') == 0"])
    ),
    "export: sample inputs are a pickle": added(
        lambda f: {"data/sample_inputs/model.pt": _pickled(f)}
    ),
    "export: metadata names functions": edited(
        MODEL,
        lambda v, c: v["graph_module"]["graph"]["nodes"][0]["metadata"].update(
            source_fn_stack="x,torch.os.system", from_node="[1]", custom="["
        ),
    ),
    "export: extra files": added(lambda f: {"extra/evil.py": b"import os"}),
}
"""What torch would run or trip over and is dropped: these open, and nothing happens."""

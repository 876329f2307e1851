"""Models made to do harm, and folders around them: each builds a file and says what is wrong."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, helper

from tests.loading.onnx.broken import NODE, beside, loop_of
from tests.loading.onnx.graphs import model, saved

Build = Callable[[Path], Path]


def _file(proto: onnx.ModelProto) -> Build:
    return lambda folder: Path(saved(proto, folder))


def _graph(
    nodes: Sequence[NodeProto],
    weights: Mapping[str, np.ndarray] | None = None,
    x: Sequence[int | str] = ("n", 4),
    opset: int = 18,
) -> onnx.ModelProto:
    return model(nodes, {"x": list(x)}, {"y": ["a", "b"]}, weights, opset=opset)


def _numbers(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.int64)


# External data.


def _elsewhere(location: str, **said: str) -> Build:
    def build(folder: Path) -> Path:
        path = beside(folder)
        proto = onnx.load(path, load_external_data=False)
        entries = {"location": location, **said}
        tensor = proto.graph.initializer[0]
        del tensor.external_data[:]
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=value)
        path.write_bytes(proto.SerializeToString())
        return path

    return build


def _linked(target: str, link: str, location: str) -> Build:
    def build(folder: Path) -> Path:
        (folder / "inside").mkdir()
        outside = folder / "outside"
        outside.mkdir()
        (outside / "weights.bin").write_bytes(bytes(4096))
        path = _elsewhere(location)(folder / "inside")
        os.symlink(folder / target, folder / "inside" / link)
        return path

    return build


def _hard(folder: Path) -> Path:
    path = _elsewhere("pipe")(folder)
    os.mkfifo(folder / "pipe")
    return path


EXTERNAL: dict[str, tuple[Build, str]] = {
    "a folder above": (_elsewhere("../weights.bin"), "outside of the model's folder"),
    "above and back": (_elsewhere("a/../../weights.bin"), "outside of the model's folder"),
    "backslashes": (_elsewhere("..\\weights.bin"), "outside of the model's folder"),
    "an absolute path": (_elsewhere("/etc/passwd"), "outside of the model's folder"),
    "a drive": (_elsewhere("C:\\weights.bin"), "outside of the model's folder"),
    "no path": (_elsewhere(""), "outside of the model's folder"),
    "the folder itself": (_elsewhere("."), "outside of the model's folder"),
    "a null byte": (_elsewhere("weights.bin\0.txt"), "outside of the model's folder"),
    "a name too long": (_elsewhere("w" * 5000), "www', which is missing"),
    "a missing file": (_elsewhere("other.bin"), "'other.bin', which is missing"),
    "a device": (_linked("/dev/zero", "zero", "zero"), "outside of the model's folder"),
    "a pipe": (_hard, "'pipe', which is missing"),
    "a link out": (_linked("outside/weights.bin", "w.bin", "w.bin"), "outside of the model's"),
    "a folder linked out": (_linked("outside", "sub", "sub/weights.bin"), "outside of the model's"),
    "a link to itself": (_linked("inside/loop", "loop", "loop"), "outside|missing"),
    "an offset past the end": (_elsewhere("weights.bin", offset="100000"), "which has 320"),
    "an offset below 0": (_elsewhere("weights.bin", offset="-8"), "at -8"),
    "an offset in words": (_elsewhere("weights.bin", offset="one"), "cannot be read"),
    "a length too large": (_elsewhere("weights.bin", length="1000000000000"), "which has 320"),
    "another length": (_elsewhere("weights.bin", length="4"), "needs 192 bytes"),
}

# Graphs.


def _cycle() -> onnx.ModelProto:
    return _graph([NODE("Add", ["x", "b"], ["a"]), NODE("Relu", ["a"], ["b"]),
                   NODE("Relu", ["b"], ["y"])])  # fmt: skip


def _function(calls: Mapping[str, Sequence[str]]) -> onnx.ModelProto:
    """Functions that call one another in a row."""
    proto = model([NODE("f", ["x"], ["y"], domain="own")], {"x": ["n", 4]}, {"y": ["a", "b"]},
                  domains=["own"])  # fmt: skip
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    for name, called in calls.items():
        nodes, last = [], "a"
        for i, other in enumerate(called):
            made = "b" if i == len(called) - 1 else f"t{i}"
            domain = "own" if other in calls else ""
            nodes.append(NODE(other, [last], [made], domain=domain))
            last = made
        proto.functions.append(helper.make_function("own", name, ["a"], ["b"], nodes, opsets))
    return proto


def _claims(*dims: int, data: bytes = b"") -> onnx.ModelProto:
    proto = _graph([NODE("MatMul", ["x", "w"], ["y"])], {"w": np.zeros((4, 4), np.float32)})
    tensor = proto.graph.initializer[0]
    tensor.dims[:] = dims
    tensor.raw_data = data
    return proto


def _with(change: Callable[[onnx.ModelProto], object]) -> onnx.ModelProto:
    proto = _graph([NODE("MatMul", ["x", "w"], ["h"]), NODE("Tanh", ["h"], ["y"])],
                   {"w": np.ones((4, 4), np.float32)})  # fmt: skip
    change(proto)
    return proto


_MANY = {f"f{i}": [f"f{i + 1}"] * 10 for i in range(9)} | {"f": ["f0"], "f9": ["Relu"]}

GRAPHS: dict[str, tuple[onnx.ModelProto, str]] = {
    "a cycle": (_cycle(), "topologically sorted"),
    "a node that feeds itself": (_graph([NODE("Add", ["x", "y"], ["y"])]), "topologically|valid"),
    "an output that nothing makes": (
        model([NODE("Relu", ["x"], ["h"])], {"x": [4]}, {"y": [4]}), "'y'|output"
    ),
    "two nodes with one output": (
        _graph([NODE("Relu", ["x"], ["y"]), NODE("Tanh", ["x"], ["y"])]), "valid"
    ),
    "no nodes": (_with(lambda p: p.graph.ClearField("node")), "without a graph"),
    "no operator set": (_with(lambda p: p.ClearField("opset_import")), "valid"),
    "an operator set of the future": (
        _with(lambda p: setattr(p.opset_import[0], "version", 4000)), "opset|valid"
    ),
    "a format of the future": (_with(lambda p: setattr(p, "ir_version", 4000)), "valid"),
    "an attribute of another type": (
        _graph([NODE("Conv", ["x", "w"], ["y"], pads="none")], {"w": np.ones((1, 1, 1))}),
        "Mismatched attribute type",
    ),
    "too few inputs": (_graph([NODE("MatMul", ["x"], ["y"])]), "valid"),
    "weights of integers": (
        _graph([NODE("MatMul", ["x", "w"], ["y"])], {"w": np.ones((4, 4), np.int64)}),
        "node 'y' \\(MatMul\\): expected m1 and m2 to have the same dtype",
    ),
    "sizes that do not fit": (
        _graph([NODE("MatMul", ["x", "w"], ["y"])], {"w": np.ones((5, 4), np.float32)}),
        "node 'y' \\(MatMul\\): mat1 and mat2 shapes cannot be multiplied",
    ),
    "a body that is no loop's": (
        _with(lambda p: p.graph.node.add(op_type="Loop", input=["", ""], output=["l"])), "valid"
    ),
    "a function that calls itself": (_function({"f": ["f"]}), "calls itself"),
    "functions in a circle": (_function({"f": ["g"], "g": ["f"]}), "calls itself"),
    "functions that unfold to a billion nodes": (_function(_MANY), "unfolds to|at most"),
    "a weight of 10^12 numbers": (_claims(10**6, 10**6, data=bytes(64)), "too small"),
    "a weight of 2^62 numbers": (_claims(2**31, 2**31, data=bytes(64)), "too large to validate"),
    "a weight of sizes that overflow": (_claims(2**32, 2**32, 4), "overflow"),
    "a weight of a negative size": (_claims(-1, 4), "shape|valid"),
    "half a number": (_claims(4, 4, data=bytes(63)), "valid|elements"),
    "a weight of an unknown type": (
        _with(lambda p: setattr(p.graph.initializer[0], "data_type", 77)), "type 77|valid"
    ),
    "an input of 2^62 numbers": (
        model([NODE("Relu", ["x"], ["y"])], {"x": [2**31, 2**31]}, {"y": ["a", "b"]}),
        "too much to be made up",
    ),
}  # fmt: skip

# What only grows when it is run. Status 2 in little memory and time.


def _doubling(op: str) -> onnx.ModelProto:
    nodes, last = [], "x"
    for i in range(60):
        options = {"axis": 0} if op == "Concat" else {}
        nodes.append(NODE(op, [last, last], [f"t{i}"], **options))
        last = f"t{i}"
    return _graph([*nodes, NODE("Relu", [last], ["y"])])


def _sized(op: str, inputs: Sequence[str], **given: np.ndarray) -> onnx.ModelProto:
    """An operator that is told how large its output is."""
    nodes = [NODE(op, list(inputs), ["big"]), NODE("ReduceSum", ["big"], ["s"], keepdims=0)]
    return _graph([*nodes, NODE("Mul", ["x", "s"], ["y"])], given)


def _wide(op: str, **given: object) -> onnx.ModelProto:
    """A window that reads far beyond the picture."""
    inputs = ["x", "w"] if op == "Conv" else ["x"]
    nodes = [NODE(op, inputs, ["big"], **given),
             NODE("ReduceMean", ["big", "axes"], ["y"], keepdims=0)]  # fmt: skip
    weights = {"w": np.ones((1, 1, 2, 2), np.float32), "axes": _numbers(2, 3)}
    return _graph(nodes, weights, ("n", 1, 4, 4))


def _outer(size: int, op: str = "MatMul", **given: object) -> onnx.ModelProto:
    ones = np.ones((1, 1), np.float32)
    tall, wide = _numbers(size, 1), _numbers(1, size)
    nodes = [
        NODE("Expand", ["one", "tall"], ["a"]),
        NODE("Expand", ["one", "wide"], ["b"]),
        NODE(op, ["a", "b"], ["big"], **given),
        NODE("ReduceSum", ["big"], ["s"], keepdims=0),
        NODE("Mul", ["x", "s"], ["y"]),
    ]
    return _graph(nodes, {"one": ones, "tall": tall, "wide": wide})


def _transposed() -> onnx.ModelProto:
    nodes = [NODE("ConvTranspose", ["x", "w"], ["big"], strides=[200000, 200000]),
             NODE("ReduceMean", ["big", "axes"], ["y"], keepdims=0)]  # fmt: skip
    weights = {"w": np.ones((1, 1, 2, 2), np.float32), "axes": _numbers(2, 3)}
    return _graph(nodes, weights, ("n", 1, 4, 4))


def _nested_loop() -> onnx.ModelProto:
    """A thousand times a thousand steps."""
    proto = loop_of(1000)
    outer = next(n for n in proto.graph.node if n.op_type == "Loop")
    body = outer.attribute[0].g
    inner = onnx.NodeProto()
    inner.CopyFrom(outer)
    inner.input[:] = ["trips", "true", "h"]
    inner.output[:] = ["inner_last", "inner_sums"]
    for value in (*inner.attribute[0].g.input, *inner.attribute[0].g.output):
        value.name = f"inner_{value.name}"
    for node in inner.attribute[0].g.node:
        for names in (node.input, node.output):
            names[:] = [n if n == "w" else f"inner_{n}" for n in names]
    body.node.insert(0, inner)
    body.node[1].input[0] = "inner_last"
    return proto


def _filled(shape: Sequence[int], *nodes: onnx.NodeProto, **given: object) -> onnx.ModelProto:
    """Zeros ``z`` of a shape, which nodes make into ``big``."""
    opset = int(given.pop("opset", 18))
    made = [NODE("ConstantOfShape", ["n"], ["z"]), *nodes,
            NODE("ReduceSum", ["big"], ["s"], keepdims=0),
            NODE("Mul", ["x", "s"], ["y"])]  # fmt: skip
    proto = _graph(made, {"n": _numbers(*shape), **given})
    proto.opset_import[0].version = opset
    return proto


def _weights(*shape: int) -> np.ndarray:
    return np.full(shape, 0.1, np.float32)


def _open_loop() -> onnx.ModelProto:
    """A condition that is computed, and always holds."""
    proto = loop_of(2**62)
    body = next(n for n in proto.graph.node if n.op_type == "Loop").attribute[0].g
    on = next(n for n in body.node if n.output[0] == "on")
    on.op_type, on.input[:] = "Less", ["i", "never"]
    body.initializer.append(onnx.numpy_helper.from_array(np.array(2**62, np.int64), "never"))
    return proto


_SPLIT = NODE("SplitToSequence", ["z"], ["q"], axis=0)
_ONE = np.float32([1.0])
_BIG = 3 * 10**9  # 12 GB of float32: less than some machines have

BOMBS: dict[str, onnx.ModelProto] = {
    "ConstantOfShape, 10^12": _sized("ConstantOfShape", ["n"], n=_numbers(10**6, 10**6)),
    "ConstantOfShape, 12 GB": _sized("ConstantOfShape", ["n"], n=_numbers(_BIG)),
    "Expand, 10^12": _sized("Expand", ["x", "n"], n=_numbers(10**12, 1, 1)),
    "Expand, 12 GB": _sized("Expand", ["one", "n"], one=_ONE, n=_numbers(_BIG)),
    "Tile, 10^12": _sized("Tile", ["x", "n"], n=_numbers(10**6, 10**6)),
    "Tile, 12 GB": _sized("Tile", ["one", "n"], one=_ONE, n=_numbers(_BIG)),
    "Pad, 10^12": _sized("Pad", ["x", "n"], n=_numbers(10**6, 10**6, 10**6, 10**6)),
    "Pad, 12 GB": _sized("Pad", ["one", "n"], one=_ONE, n=_numbers(_BIG, 0)),
    "Resize, 10^12": _sized("Resize", ["x", "", "", "n"], n=_numbers(10**6, 10**6)),
    "Resize, by 10^8": _sized("Resize", ["x", "", "f"], f=np.float32([1, 1e8])),
    "Range, 10^12": _sized(
        "Range", ["a", "b", "c"], a=np.float32(0), b=np.float32(1e12), c=np.float32(1)
    ),
    "OneHot, 10^12": _sized(
        "OneHot", ["i", "d", "v"], i=_numbers(1, 2, 3), d=_numbers(10**12), v=np.float32([0, 1])
    ),
    "Loop in a loop": _nested_loop(),
    "Concat, sixty times": _doubling("Concat"),
    "MatMul of two long vectors": _outer(10**6),
    "MatMul of two vectors, 14 GB": _outer(60_000),
    "Add of a column and a row": _outer(60_000, "Add"),
    "Max of a column and a row": _outer(10**6, "Max"),
    "Einsum of two long vectors": _outer(10**6, "Einsum", equation="ab,bc->ac"),
    "Gemm of two long vectors": _outer(10**6, "Gemm"),
    "Conv with wide pads": _wide("Conv", pads=[10**6] * 4),
    "Conv with uneven pads": _wide("Conv", pads=[0, 0, 10**6, 10**6]),
    "AveragePool over wide pads": _wide(
        "AveragePool", kernel_shape=[10**6, 10**6], pads=[10**6 - 1] * 4
    ),
    "ConvTranspose by long strides": _transposed(),
    "ConstantOfShape, 4 GB": _sized("ConstantOfShape", ["n"], n=_numbers(2**30)),
    "Expand, 4 GB": _sized("Expand", ["one", "n"], one=_ONE, n=_numbers(2**30)),
    "EyeLike, 8 GB": _filled([2**15, 2**15 + 1], NODE("EyeLike", ["z"], ["big"])),
    "Gather of rows": _filled(
        [2**10, 2**12], NODE("Gather", ["z", "at"], ["big"]), at=np.zeros(2**15, np.int64)
    ),
    "GridSample": _filled(
        [1, 2**12, 2, 2],
        NODE("Expand", ["place", "places"], ["grid"]),
        NODE("GridSample", ["z", "grid"], ["big"]),
        place=np.zeros((1, 1, 1, 2), np.float32),
        places=_numbers(1, 2**10, 2**10, 2),
    ),
    "Attention over a long sequence": _filled(
        [1, 1, 2**17, 1], NODE("Attention", ["z", "z", "z"], ["big"]), opset=23
    ),
    "Einsum without an arrow": _filled(
        [2**17], NODE("Einsum", ["z", "z"], ["big"], equation="i,j")
    ),
    "Einsum with an ellipsis": _filled(
        [2**17], NODE("Einsum", ["z", "z"], ["big"], equation="...i,...j->...ij")
    ),
    "a sequence of one tensor": _filled(
        [2**22],
        NODE("SequenceConstruct", ["z"] * 2**10, ["q"]),
        NODE("ConcatFromSequence", ["q"], ["big"], axis=0),
    ),
    "a sequence of numbers": _filled(
        [2**21], _SPLIT, NODE("ConcatFromSequence", ["q"], ["big"], axis=0)
    ),
    "LSTM of 8 million steps": _filled(
        [2**23, 1, 1],
        NODE("LSTM", ["z", "W", "R"], ["big"], hidden_size=1),
        W=_weights(1, 4, 1),
        R=_weights(1, 4, 1),
    ),
    "GRU of 8 million steps": _filled(
        [1, 2**23, 1],
        NODE("GRU", ["z", "W", "R"], ["big"], hidden_size=1, layout=1),
        W=_weights(1, 3, 1),
        R=_weights(1, 3, 1),
    ),
    "LpPool of large windows": _filled(
        [1, 1, 1200, 1200], NODE("LpPool", ["z"], ["big"], kernel_shape=[1000, 1000])
    ),
    "MaxPool of many channels over pads": _filled(
        [1, 256, 8, 8],
        NODE("MaxPool", ["z"], ["big"], kernel_shape=[1, 1], pads=[0, 0, 16000, 16000]),
    ),
    "Resize of a long line": _filled(
        [1, 1, 2**17],
        NODE("Resize", ["z", "", "", "to"], ["big"], mode="linear"),
        to=_numbers(1, 1, 2**17 + 1),
    ),
    "MelWeightMatrix of 10^8 bands": _sized(
        "MelWeightMatrix",
        ["bands", "length", "rate", "low", "high"],
        bands=np.array(10**8),
        length=np.array(2),
        rate=np.array(16000),
        low=np.float32(0),
        high=np.float32(8000),
    ),
    "RoiAlign of 4 million boxes": _filled(
        [2**22, 4],
        NODE(
            "ConstantOfShape",
            ["boxes"],
            ["which"],
            value=onnx.numpy_helper.from_array(np.zeros(1, np.int64)),
        ),
        NODE("RoiAlign", ["image", "z", "which"], ["big"]),
        boxes=_numbers(2**22),
        image=_weights(1, 1, 4, 4),
    ),
    "STFT of steps of one": _filled(
        [1, 2**18, 1],
        NODE("STFT", ["z", "step", "", "length"], ["big"]),
        step=np.array(1),
        length=np.array(2**16),
    ),
    "MatMul of zeros, a hundred times": _filled(
        [2**12, 2**12],
        *(NODE("MatMul", [f"t{i}" if i else "z", "z"], [f"t{i + 1}"]) for i in range(99)),
        NODE("MatMul", ["t99", "z"], ["big"]),
    ),
    "Loop, as long as a condition holds": _open_loop(),
    "Loop, 10^15 times": loop_of(10**15),
    "Loop, without end": loop_of(2**63 - 1),
}

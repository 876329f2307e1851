"""Good small models, damage to them, and models made to do harm; and a process to open them in."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from onnx import TensorProto, helper

from tests.loading.onnx.graphs import constant, model, saved

NODE = helper.make_node
ROOM = 3 << 30  # bytes that one file may take, beside what an idle process has
SECONDS = 60


def _noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.3, shape).astype(np.float32)


def plain(folder: Path) -> Path:
    """A convolution, a matrix, activations."""
    nodes = [
        NODE("Conv", ["x", "k", "b"], ["h"], pads=[1, 1, 1, 1]),
        NODE("Tanh", ["h"], ["a"]),
        NODE("Flatten", ["a"], ["f"]),
        NODE("MatMul", ["f", "w"], ["m"]),
        NODE("Sigmoid", ["m"], ["y"]),
    ]
    weights = {"k": _noise(3, 1, 3, 3), "b": _noise(3), "w": _noise(48, 4, seed=1)}
    proto = model(nodes, {"x": ["n", 1, 4, 4]}, {"y": ["n", 4]}, weights)
    return Path(saved(proto, folder))


def beside(folder: Path) -> Path:
    """Weights in a file of their own."""
    nodes = [
        NODE("Gemm", ["x", "w", "b"], ["h"]),
        NODE("Relu", ["h"], ["a"]),
        NODE("MatMul", ["a", "v"], ["y"]),
    ]
    weights = {"w": _noise(6, 8), "b": _noise(8), "v": _noise(8, 3, seed=1)}
    proto = model(nodes, {"x": ["n", 6]}, {"y": ["n", 3]}, weights)
    path = folder / "model.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def looped(folder: Path) -> Path:
    """A loop around a layer, and a sum over its steps."""
    path = folder / "model.onnx"
    path.write_bytes(loop_of(4).SerializeToString())
    return path


def loop_of(trips: int) -> onnx.ModelProto:
    """h = tanh(h W), so many times."""
    body = helper.make_graph(
        [
            NODE("MatMul", ["h", "w"], ["m"]),
            NODE("Tanh", ["m"], ["t"]),
            NODE("Identity", ["c"], ["on"]),
            NODE("ReduceSum", ["t"], ["s"], keepdims=0),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("h", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("t", TensorProto.FLOAT, None),
            helper.make_tensor_value_info("s", TensorProto.FLOAT, []),
        ],
    )
    nodes = [
        constant("trips", np.int64(trips)),
        constant("true", np.array(True)),
        NODE("Loop", ["trips", "true", "x"], ["last", "sums"], body=body),
        NODE("ReduceSum", ["sums"], ["total"], keepdims=0),
        NODE("Add", ["last", "total"], ["y"]),
    ]
    return model(nodes, {"x": ["n", 5]}, {"y": ["n", 5]}, {"w": _noise(5, 5)})


GOOD: dict[str, Callable[[Path], Path]] = {"plain": plain, "beside": beside, "looped": looped}


def damaged(whole: bytes, seed: int) -> bytes:
    """Cut off (one in three), or one to eight bits turned over."""
    rng = random.Random(seed)
    if rng.randrange(3) == 0:
        return whole[: rng.randrange(len(whole))]
    data = bytearray(whole)
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


@dataclass(frozen=True)
class Told:
    """What came of one file: 70 and the traceback's end for an exception that nobody expects."""

    status: int
    text: str
    seconds: float
    megabytes: float


def in_a_child(jobs: Sequence[Callable[[], tuple[int, str]]]) -> Iterator[Told]:
    """Each job's status and words, from a process that may die of one.

    A death is a :class:`Told` of status 128 + signal; the next job gets a fresh process.
    """
    done = 0
    while done < len(jobs):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.close(reader)
                _work(jobs[done:], writer)
            finally:
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as stream:
            for line in stream:
                yield Told(*json.loads(line))
                done += 1
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            yield Told(128 + os.WTERMSIG(status), "the process died", 0.0, 0.0)
            done += 1


def _work(jobs: Sequence[Callable[[], tuple[int, str]]], writer: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    torch.set_num_threads(1)  # OpenMP's do not outlive a fork
    for job in jobs:
        signal.alarm(SECONDS)
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        before, start = _peak(), time.perf_counter()
        try:
            status, text = job()
        except BaseException as error:
            status, text = 70, f"{type(error).__name__}: {error}"
        row = (status, text[:2000], time.perf_counter() - start, (_peak() - before) / 1024)
        os.write(writer, (json.dumps(row) + "\n").encode())


def _peak() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


_NUMBERS = (0, -1, 1, 2, 3, 7, 255, 10**6, 10**12, 2**31 - 1, 2**62, -(2**63))
_NAMES = (
    "x", "h", "y", "w", "", "trips", "com.microsoft", "Conv", "Loop", "If", "Gather", "Expand",
    "Tile", "Resize", "LSTM", "Einsum", "Reshape", "Softmax", "Concat", "Pad", "Split", "Slice",
    "ConvTranspose", "MaxPool", "BatchNormalization", "OneHot", "Cast", "Scan",
)  # fmt: skip


def forged(whole: bytes, seed: int) -> bytes:
    """One to three fields changed, taken out or doubled: still a message of this kind."""
    rng = random.Random(seed)
    proto = onnx.ModelProto()
    proto.ParseFromString(whole)
    for _ in range(rng.randint(1, 3)):
        owner, field = rng.choice(list(_fields(proto)))
        repeated = field.is_repeated
        value = getattr(owner, field.name)
        if field.message_type is not None:
            if repeated and rng.random() < 0.5:
                value.append(rng.choice(list(value)))
            elif repeated:
                del value[rng.randrange(len(value))]
            else:
                owner.ClearField(field.name)
            continue
        try:
            if repeated:
                value[rng.randrange(len(value))] = _other(value[0], rng)
            else:
                setattr(owner, field.name, _other(value, rng))
        except (ValueError, TypeError):
            continue  # beyond this field's range
    return proto.SerializeToString()


def _fields(message: Message) -> Iterator[tuple[Message, FieldDescriptor]]:
    for field, value in message.ListFields():
        yield message, field
        if field.message_type is not None:
            for inner in value if field.is_repeated else [value]:
                yield from _fields(inner)


def _other(value: object, rng: random.Random) -> object:
    if isinstance(value, bool | int):
        return rng.choice((*_NUMBERS, rng.randrange(40)))
    if isinstance(value, float):
        return rng.choice((0.0, -1.0, 1e38, float("nan"), float("inf")))
    if isinstance(value, bytes):
        return value[: rng.randrange(len(value) + 1)] + bytes(rng.randrange(5))
    return rng.choice(_NAMES)

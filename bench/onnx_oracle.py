"""Gradients of exported models against onnx-ad, which shares nothing with the lowering here.

onnx-ad writes an ONNX graph of the derivatives, and onnxruntime runs it; here the graph is lowered
onto torch. Every weight and every floating input of each export is compared: the largest norm of a
difference over the norm of the gradient (over the largest gradient's, times 1e-3, where one is all
but 0).

    python bench/onnx_oracle.py [--write] [NAME ...]

needs what onnx-ad 0.3.0 and torch's newer exporter need: pip install onnx-ad==0.3.0 onnxscript
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import onnx_ad
import onnxruntime
import torch
from onnx import ModelProto, helper
from onnx_backend import lowered  # the script beside this one
from torch import Tensor

from gradscope.loading.onnx.module import OnnxModule
from tests.loading.onnx.exported import MODELS, Built, built, exported

RESULTS = Path(__file__).parent / "results" / "onnx_oracle.md"
LIMIT = 1e-4
# (newer exporter?, operator set); the older exporter knows fused attention from 14 on.
FORMS = ((False, 14), (False, 17), (True, 20))


@dataclass(frozen=True)
class Row:
    """One export: number of gradients compared, the largest error, or why there is none."""

    name: str
    form: str
    compared: int
    error: float
    said: str


def here(module: OnnxModule, inputs: dict[str, Tensor], seed: Tensor) -> dict[str, Tensor]:
    """Gradients of ``sum(seed * y)`` by tensor of the file."""
    leaves = {
        n: x.clone().requires_grad_() if x.is_floating_point() else x for n, x in inputs.items()
    }
    y = module(**leaves)["y"]
    named = dict(module.named_parameters())
    tensors = {**named, **{n: x for n, x in leaves.items() if x.requires_grad}}
    parts = torch.autograd.grad((y * seed).sum(), list(tensors.values()), allow_unused=True)
    own = {
        n: torch.zeros_like(t) if g is None else g
        for (n, t), g in zip(tensors.items(), parts, strict=True)
    }
    found = {n: own[n] for n in leaves if n in own}
    for (_, name), binding in module.weights.bindings.items():
        pieces = [own[k] for k in binding.keys]
        found[name] = torch.stack(pieces) if binding.pieces else pieces[0]
    return found


def there(
    model: ModelProto, names: list[str], inputs: dict[str, Tensor], seed: Tensor
) -> dict[str, Tensor]:
    """The same by onnx-ad: weights become inputs, which are all that it differentiates."""
    model = _with_inputs(_sized(model, inputs, seed), [n for n in names if n not in inputs])
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    for tensor in [t for t in model.graph.initializer if t.name in names]:
        model.graph.initializer.remove(tensor)
    adjoint = onnx_ad.reverse(model, inputs=names, outputs=["y"], layout="onnx")
    for node in adjoint.graph.node:
        node.name = ""  # it gives an If and its derivative the same
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(adjoint.SerializeToString(), options)
    feeds = {n: x.numpy() for n, x in inputs.items()}
    feeds |= {n: weights[n] for n in names if n not in inputs}
    feeds["adj_y"] = seed.unsqueeze(-1).numpy()
    results = session.run([f"adj_{n}" for n in names], feeds)
    return {n: torch.from_numpy(r).squeeze(-1) for n, r in zip(names, results, strict=True)}


def _sized(model: ModelProto, inputs: dict[str, Tensor], y: Tensor) -> ModelProto:
    """With all shapes declared: onnx-ad asks for those of convolutions and slices."""
    copy = ModelProto()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]
    for info in (*copy.graph.input, *copy.graph.output):
        sizes = inputs[info.name].shape if info.name in inputs else y.shape
        for dim, size in zip(info.type.tensor_type.shape.dim, sizes, strict=True):
            dim.dim_value = size
    return onnx.shape_inference.infer_shapes(copy, data_prop=True)


def _with_inputs(model: ModelProto, names: list[str]) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.name in names:
            info = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            copy.graph.input.append(info)
    return copy


def compared(name: str, both: Built, *, dynamo: bool, opset: int) -> Row:
    """One export."""
    form = f"{'newer' if dynamo else 'older'} exporter, opset {opset}"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        exported(name, both, path, dynamo=dynamo, opset=opset)
        model = onnx.load(path)
    inputs = both[1]
    module = lowered(model, name)
    with torch.no_grad():
        y = module(**inputs)["y"]
    seed = torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    own = here(module, inputs, seed)
    try:
        other = there(model, list(own), inputs, seed)
    except Exception as error:  # its refusals, and whatever onnxruntime says of its graph
        said = str(error).strip().split("\n")[0]
        return Row(name, form, 0, 0.0, f"{type(error).__name__}: {said}"[:160])
    largest = max(float(g.norm()) for g in own.values())
    error = max(
        float((own[n] - other[n]).norm() / max(float(own[n].norm()), 1e-3 * largest)) for n in own
    )
    return Row(name, form, len(own), error, "")


def report(rows: list[Row]) -> str:
    """A table for people."""
    done = [r for r in rows if r.compared]
    worst = max((r.error for r in done), default=float("nan"))
    good = sum(r.error <= LIMIT for r in done)
    lines = [
        "# Gradients of exports against onnx-ad",
        "",
        f"`python bench/onnx_oracle.py --write`, {date.today()}, onnx-ad {version('onnx-ad')}, "
        f"onnxruntime {onnxruntime.__version__}, torch {torch.__version__}, float32.",
        "",
        f"{good} of {len(done)} exports agree to {LIMIT:g} in every weight and every floating "
        f"input ({sum(r.compared for r in done)} gradients); largest relative error {worst:.1e}. "
        f"{len(rows) - len(done)} more are not differentiated by onnx-ad.",
        "",
        "| network | export | gradients | largest relative error |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {r.name} | {r.form} | {r.compared} | {r.error:.1e} |"
        if r.compared
        else f"| {r.name} | {r.form} | 0 | {r.said} |"
        for r in rows
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Print the table; status 1 where a gradient differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="to bench/results as well")
    parser.add_argument("names", nargs="*", help="only these networks")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    rows = []
    for name in options.names or MODELS:
        both = built(name)
        for dynamo, opset in FORMS:
            if dynamo and name == "loop":
                continue  # written out step by step by that exporter: no loop is left
            start = time.perf_counter()
            row = compared(name, both, dynamo=dynamo, opset=opset)
            took = time.perf_counter() - start
            text = f"{name:16} {row.form:26} {row.compared:4} {row.error:.1e} {row.said}"
            print(f"{text} ({took:.1f} s)", file=sys.stderr)
            rows.append(row)
    text = report(rows)
    print(text)
    if options.write:
        RESULTS.write_text(text, encoding="utf-8")
    return int(any(r.error > LIMIT for r in rows))


if __name__ == "__main__":
    sys.exit(main())

"""ONNX's own backend tests through the lowering: outputs, refusals, and gradients in float64.

Every test of the suite (``onnx.backend.test``) with a floating input and a floating output is run:
``passed`` has the suite's outputs (within the tolerances of the parity gate), ``refused`` names a
node and a reason, ``failed`` raises something else, ``wrong`` runs and differs. Gradients are
compared with directional differences in float64 on every test that passes and whose output a
gradient can reach.

    python bench/onnx_backend.py [--write] [NAME ...]
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import ModelProto, TensorProto, numpy_helper

from gradscope.errors import GradscopeError
from gradscope.loading.onnx.execute import NodeError
from gradscope.loading.onnx.graph import read_graph
from gradscope.loading.onnx.module import OnnxModule
from gradscope.loading.onnx.parity import ATOL
from gradscope.loading.onnx.proto import prepare
from gradscope.loading.onnx.refusal import check_supported
from gradscope.loading.onnx.registry import Refusal
from gradscope.loading.onnx.tensors import from_array
from gradscope.loading.onnx.weights import find_weights

KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator")
RESULTS = Path(__file__).parent / "results" / "onnx_backend.md"
STEP, TOLERANCE = 1e-6, 1e-5
_FLOATS = {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}


@dataclass(frozen=True)
class Case:
    """One test of the suite."""

    name: str
    kind: str
    model: ModelProto
    inputs: list[Any]
    outputs: list[Any]
    rtol: float
    atol: float


@dataclass
class Result:
    """What came of a test.

    Attributes:
        outcome: passed, refused, failed or wrong.
        reason: in words.
        gradient: checked, none (no gradient can reach an output), or wrong.
        error: largest relative error of a directional derivative.
        cut: floating inputs that the output depends on and no gradient reaches.
    """

    case: Case
    outcome: str
    reason: str = ""
    gradient: str = ""
    error: float = 0.0
    cut: list[str] = field(default_factory=list)


def cases(only: frozenset[str] = frozenset(), kinds: tuple[str, ...] = KINDS) -> Iterator[Case]:
    """Every test with a floating input and a floating output, in the suite's order."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for kind in kinds:
            for test in sorted(load_model_tests(kind=kind), key=lambda t: t.name):
                if only and test.name not in only:
                    continue
                case = _case(test, kind)
                if case is not None:
                    yield case


def _case(test: Any, kind: str) -> Case | None:
    if test.model is not None:
        model, (inputs, outputs) = test.model, test.data_sets[0]
    else:
        folder = Path(test.model_dir)
        model = onnx.load(folder / "model.onnx")
        inputs = _read(folder, "input", model.graph.input)
        outputs = _read(folder, "output", model.graph.output)
    if not (_has_float(inputs) and _has_float(outputs)):
        return None
    return Case(
        test.name, kind, model, [_value(v) for v in inputs], [_value(v) for v in outputs],
        test.rtol, test.atol,
    )  # fmt: skip


def _read(folder: Path, what: str, declared: Any) -> list[Any]:
    found = []
    for i, info in enumerate(declared):
        path = folder / "test_data_set_0" / f"{what}_{i}.pb"
        if path.is_file():
            kinds = {"sequence_type": onnx.SequenceProto, "optional_type": onnx.OptionalProto}
            proto = kinds.get(info.type.WhichOneof("value"), TensorProto)()
            proto.ParseFromString(path.read_bytes())
            found.append(proto)
    return found


def _has_float(values: list[Any]) -> bool:
    for value in values:
        if isinstance(value, TensorProto) and value.data_type in _FLOATS:
            return True
        if isinstance(value, np.ndarray | np.generic) and _is_float(np.asarray(value)):
            return True
        if isinstance(value, list) and _has_float(value):
            return True
        if isinstance(value, onnx.SequenceProto) and _has_float(list(value.tensor_values)):
            return True
        if isinstance(value, onnx.OptionalProto) and _has_float([value.tensor_value]):
            return True
    return False


def _is_float(array: np.ndarray[Any, Any]) -> bool:
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"


def _value(value: Any) -> Any:
    """As torch tensors, lists of them, None, or (types that torch lacks) as arrays."""
    if isinstance(value, TensorProto):
        return _value(numpy_helper.to_array(value))
    if isinstance(value, onnx.SequenceProto):
        return [_value(v) for v in numpy_helper.to_list(value)]
    if isinstance(value, onnx.OptionalProto):
        return _value(numpy_helper.to_optional(value))
    if isinstance(value, list):
        return [_value(v) for v in value]
    if value is None:
        return None
    array = np.asarray(value)
    own = array.dtype.isbuiltin == 1 and array.dtype.kind in "biufc"
    known = own or array.dtype.name in ("bfloat16", "int4", "uint4")
    return from_array(array) if known else array


def lowered(model: ModelProto, name: str) -> OnnxModule:
    """The module of a test's model.

    Raises:
        GradscopeError: it is refused.
    """
    graph = read_graph(prepare(model, name), name)
    check_supported(graph, name)
    return OnnxModule(graph, find_weights(graph))


def run(case: Case) -> Result:
    """One test: outputs, then gradients."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            module = lowered(case.model, case.name)
        except GradscopeError as error:
            return Result(case, "refused", str(error).partition(": ")[2])
        try:
            with torch.no_grad():
                got = module(**_named(module, case.inputs))
        except (NodeError, ValueError, TypeError, KeyError, AttributeError) as error:
            if isinstance(error.__cause__, Refusal):
                return Result(case, "refused", str(error))
            return Result(case, "failed", f"{type(error).__name__}: {error}")
        reason = _differs(list(got.values()), case.outputs, case)
        if reason:
            return Result(case, "wrong", reason)
        result = Result(case, "passed")
        try:
            check_gradients(case, lowered(case.model, case.name).in_double(), result)
        except (NodeError, RuntimeError) as error:
            result.gradient, result.reason = "wrong", f"{type(error).__name__}: {error}"
        return result


def _named(module: OnnxModule, values: list[Any]) -> dict[str, Any]:
    """The suite leaves nothing out, so position is name."""
    return {i.name: v for i, v in zip(module.graph.inputs, values, strict=False)}


def _differs(got: Any, wanted: Any, case: Case) -> str:
    if isinstance(wanted, list):
        if not isinstance(got, list) or len(got) != len(wanted):
            return "another number of tensors"
        return next(
            (r for g, w in zip(got, wanted, strict=True) if (r := _differs(g, w, case))), ""
        )
    if not isinstance(wanted, torch.Tensor):
        return "" if got is None or wanted is not None else "not empty"
    if not isinstance(got, torch.Tensor) or got.shape != wanted.shape:
        have = tuple(got.shape) if isinstance(got, torch.Tensor) else type(got).__name__
        return f"shape {have} instead of {tuple(wanted.shape)}"
    if got.dtype != wanted.dtype:
        return f"type {got.dtype} instead of {wanted.dtype}"
    # Two units in the last place of the short types, as the suite itself takes for bfloat16.
    short = {torch.bfloat16: 2**-6, torch.float16: 2**-9}
    rtol = max(case.rtol, short.get(wanted.dtype, 0.0))
    a, b = (t.to(torch.complex128 if t.is_complex() else torch.float64) for t in (got, wanted))
    if torch.allclose(a, b, rtol=rtol, atol=max(case.atol, ATOL), equal_nan=True):
        return ""
    return f"values differ by up to {float((a - b).abs().max()):.3g}"


def check_gradients(case: Case, module: OnnxModule, result: Result) -> None:
    """Directional differences of a random projection of the outputs, for each floating input.

    At a kink the derivative must lie between those from the left and from the right.
    """
    generator = torch.Generator().manual_seed(0)
    values = [_double(v) for v in case.inputs]
    if not all(isinstance(v, torch.Tensor) for v in values):
        result.gradient = "sequences"
        return
    leaves = [v.requires_grad_() if v.is_floating_point() else v for v in values]
    leaves = _off_the_kinks(module, leaves, generator)
    weights: list[torch.Tensor] = []

    def project(inputs: list[torch.Tensor]) -> torch.Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for i, y in enumerate(_tensors(module(**_named(module, inputs)))):
            if i == len(weights):
                weights.append(torch.randn(y.shape, generator=generator, dtype=torch.float64))
            total = total + (torch.nan_to_num(y, 0, 0, 0) * weights[i]).sum()
        return total

    total = project(leaves)
    floats = [v for v in leaves if v.is_floating_point() and v.numel()]
    if not total.requires_grad or not floats:
        result.gradient = "none"
        return
    gradients = torch.autograd.grad(total, floats, allow_unused=True)
    result.gradient = "checked"
    with torch.no_grad():
        for leaf, gradient in zip(floats, gradients, strict=True):
            _check_one(leaf, gradient, leaves, project, generator, result)


def _off_the_kinks(
    module: OnnxModule, leaves: list[torch.Tensor], generator: torch.Generator
) -> list[torch.Tensor]:
    """The inputs moved a little, away from ties and zeros, where the outputs keep their shapes."""
    moved = [
        (v + 1e-3 * torch.randn(v.shape, generator=generator, dtype=v.dtype)).detach()
        .requires_grad_() if v.is_floating_point() else v
        for v in leaves
    ]  # fmt: skip
    with torch.no_grad():
        try:
            before = [t.shape for t in _tensors(module(**_named(module, leaves)))]
            after = list(_tensors(module(**_named(module, moved))))
        except (NodeError, ValueError, RuntimeError):
            return leaves
    same = before == [t.shape for t in after]
    finite = all(bool(torch.isfinite(t).all()) for t in after)
    return moved if same and finite else leaves


def _check_one(leaf, gradient, leaves, project, generator, result) -> None:  # type: ignore[no-untyped-def]
    direction = torch.randn(leaf.shape, generator=generator, dtype=torch.float64)
    scale = STEP * max(1.0, float(leaf.abs().nan_to_num(0, 0, 0).mean()))

    def at(step: float) -> float:
        moved = [v + step * direction if v is leaf else v for v in leaves]
        return float(project(moved))

    index = next(i for i, v in enumerate(leaves) if v is leaf)
    name = result.case.model.graph.input[index].name
    try:
        here, right, left = at(0.0), at(scale), at(-scale)
        further = (at(8 * scale) - at(-8 * scale)) / (16 * scale)
    except (NodeError, ValueError, RuntimeError):
        return  # it decides a size or stands for an index: it cannot be moved a little
    slopes = ((right - here) / scale, (here - left) / scale)
    noise = 1e-9 * max(1.0, abs(here)) / scale * 1e-4
    if gradient is None:
        if max(map(abs, slopes)) > noise + TOLERANCE:
            result.cut.append(name)
        return
    if bool(gradient.isnan().any()):
        result.gradient = "nan"  # a state of its own, and reported as such
        return
    if abs(right - left) / (2 * scale) > 4 * abs(further) + 1e3:
        return  # a jump: no derivative is defined
    claimed = float((gradient * direction).nan_to_num(0, 0, 0).sum())
    low, high = min(slopes), max(slopes)
    apart = max(low - claimed, claimed - high, 0.0)
    apart = min(apart, abs(claimed - (right - left) / (2 * scale)))
    error = apart / max(1.0, abs(claimed), abs(low), abs(high))
    if noise > TOLERANCE:
        return  # numbers so large that their differences are rounding
    result.error = max(result.error, error)
    if not error <= TOLERANCE + noise:
        result.gradient = "wrong"
        result.reason = f"gradient of '{name}': {claimed:.6g}, differences {low:.6g} to {high:.6g}"


def _double(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.double() if value.is_floating_point() else value.clone()
    return value


def _tensors(outputs: dict[str, Any]) -> Iterator[torch.Tensor]:
    for value in outputs.values():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, torch.Tensor) and item.is_floating_point():
                yield item


def report(results: list[Result]) -> str:
    """A table for people."""
    outcomes = ("passed", "refused", "failed", "wrong")
    lines = [
        "# ONNX's backend tests",
        "",
        "`python bench/onnx_backend.py --write`",
        "",
        f"onnx {onnx.__version__}, torch {torch.__version__}; {len(results)} tests with floating "
        "input and output.",
        "",
        "| tests | " + " | ".join(outcomes) + " | gradients checked | NaN | wrong |",
        "|---|" + "---|" * (len(outcomes) + 3),
    ]
    for kind in (*KINDS, "all"):
        mine = [r for r in results if kind in (r.case.kind, "all")]
        counts = Counter(r.outcome for r in mine)
        checked = sum(r.gradient == "checked" for r in mine)
        wrong = sum(r.gradient == "wrong" for r in mine)
        nan = sum(r.gradient == "nan" for r in mine)
        cells = " | ".join(str(counts[o]) for o in outcomes)
        lines.append(f"| {kind} | {cells} | {checked} | {nan} | {wrong} |")
    worst = max((r.error for r in results), default=0.0)
    lines += ["", f"Largest relative error of a directional derivative: {worst:.1e}.", ""]
    for outcome in outcomes[1:]:
        mine = [r for r in results if r.outcome == outcome]
        if mine:
            lines += [f"## {outcome.capitalize()}", "", "| test | reason |", "|---|---|"]
            lines += [f"| {r.case.name} | {r.reason} |" for r in mine]
            lines += [""]
    wrong = [r for r in results if r.gradient == "wrong"]
    if wrong:
        lines += ["## Gradients that differ", "", "| test | what |", "|---|---|"]
        lines += [f"| {r.case.name} | {r.reason} |" for r in wrong] + [""]
    cut = [r for r in results if r.cut]
    if cut:
        lines += ["## Inputs that no gradient reaches, although the output depends on them", "",
                  "| test | inputs |", "|---|---|"]  # fmt: skip
        lines += [f"| {r.case.name} | {', '.join(r.cut)} |" for r in cut] + [""]
    return "\n".join(lines)


def main() -> int:
    """Print the table; status 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="to bench/results as well")
    parser.add_argument("names", nargs="*", help="only these tests")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = [run(case) for case in cases(frozenset(options.names))]
    text = report(results)
    print(text)
    if options.write:
        RESULTS.write_text(text, encoding="utf-8")
    return int(any("wrong" in (r.outcome, r.gradient) for r in results))


if __name__ == "__main__":
    sys.exit(main())

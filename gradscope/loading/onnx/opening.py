"""From an ONNX file to a :class:`~gradscope.model.LoadedModel`."""

from __future__ import annotations

from pathlib import Path

from gradscope.loading.onnx.fusions import fused
from gradscope.loading.onnx.graph import Graph, ValueInfo, read_graph
from gradscope.loading.onnx.module import OnnxModule
from gradscope.loading.onnx.parity import ParityGate
from gradscope.loading.onnx.proto import has_functions, read_proto
from gradscope.loading.onnx.refusal import check_supported
from gradscope.loading.onnx.tensors import DTYPES
from gradscope.loading.onnx.weights import Weights, find_weights
from gradscope.model import Exchange, Explicit, Input, LoadedModel

_SHOWN = 3


def open_model(path: str, file: Path) -> LoadedModel:
    """Reads, refuses, lowers.

    Raises:
        LoadError: see :func:`gradscope.loading.onnx.open_onnx`.
    """
    proto = read_proto(file)
    graph = read_graph(proto, path)
    check_supported(graph, path)
    graph = fused(graph)
    weights = find_weights(graph)
    module = OnnxModule(graph, weights, shared_inputs(graph))
    producer = f", {proto.producer_name}" if proto.producer_name else ""
    return LoadedModel(
        path,
        f"ONNX opset {graph.opsets.get('', 0)}{producer}",
        module,
        notes=tuple(_notes(graph, weights)),
        inputs=tuple(_input(i) for i in module.order if i.name not in module.shared),
        shared=tuple(_input(i) for i in module.order if i.name in module.shared),
        batch=_batch(graph),
        origins=weights.origins,
        verify=ParityGate(path, proto, module),
        exchange=_exchange(module),
        explicit=None if has_functions(file) else Explicit(module.watch, module.put),
    )


def _exchange(module: OnnxModule) -> Exchange | str:
    count = module.exchange(False)

    def swap(tanh: bool) -> None:
        module.exchange(tanh)

    return Exchange(count, swap) if count else "its graph has no Sigmoid node"


def _input(declared: ValueInfo) -> Input:
    return Input(declared.name, declared.shape, DTYPES.get(declared.dtype))


def shared_inputs(graph: Graph) -> frozenset[str]:
    """Inputs without samples: single numbers, and those of fixed sizes beside one whose first size
    is free."""
    free = any(i.shape and i.shape[0] is None for i in graph.inputs)
    return frozenset(
        i.name
        for i in graph.inputs
        if i.shape == () or (free and i.shape is not None and None not in i.shape)
    )


def _batch(graph: Graph) -> int | None:
    """The first size of the first input that has axes, if it is fixed."""
    for declared in graph.inputs:
        if declared.shape:
            return declared.shape[0]
    return None


def _notes(graph: Graph, weights: Weights) -> list[str]:
    notes = []
    branches = [n for g in graph.walk() for n in g.nodes if n.op == "If"]
    if branches:
        notes.append(f"{len(branches)} If nodes: only the branch that runs is measured")
    if weights.fixed:
        named = ", ".join(weights.fixed[:_SHOWN])
        rest = ", ..." if len(weights.fixed) > _SHOWN else ""
        notes.append(
            f"{len(weights.fixed)} constant filter banks are no weights: of their outputs only "
            f"the magnitude is used ({named}{rest})"
        )
    shared = [k for k, p in weights.places.items() if len(p.consumers) > 1]
    if shared:
        named = ", ".join(shared[:_SHOWN]) + (", ..." if len(shared) > _SHOWN else "")
        notes.append(f"{len(shared)} weights are used by several nodes: {named}")
    return notes

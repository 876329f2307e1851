"""From a file to a checked ModelProto without functions; nothing in it is run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx
import onnx.inliner
from google.protobuf.message import DecodeError
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto

from gradscope.errors import LoadError
from gradscope.loading.onnx import operators  # noqa: F401  (registers them)
from gradscope.loading.onnx.external import load_external
from gradscope.loading.onnx.registry import known

_MAX_BYTES = 2**31 - 1  # protobuf holds no more in one message
_MAX_NODES = 500_000
_AGAIN = "Export or copy it again."


def read_proto(file: Path) -> ModelProto:
    """The model with external data read in and local functions inlined.

    Raises:
        LoadError: broken, too large, cyclic, or against the ONNX specification.
    """
    where = str(file)
    if file.stat().st_size > _MAX_BYTES:
        hint = "Export it with its weights as external data."
        raise LoadError("is larger than 2 GiB, the most that one ONNX file holds", where=where,
                        hint=hint)  # fmt: skip
    model = ModelProto()
    try:
        model.ParseFromString(file.read_bytes())
    except DecodeError as error:
        raise LoadError(f"is a broken ONNX file ({error})", where=where, hint=_AGAIN) from error
    if not model.HasField("graph") or not model.graph.node:
        raise LoadError("is an ONNX file without a graph", where=where, hint=_AGAIN)
    load_external(model, file)
    return prepare(model, where)


def has_functions(file: Path) -> bool:
    """Whether some of the nodes that run stand in functions of the file, and not in its graphs."""
    model = ModelProto()
    model.ParseFromString(file.read_bytes())
    return bool(model.functions)


def prepare(model: ModelProto, where: str) -> ModelProto:
    """A complete model checked, and without functions of its own.

    Raises:
        LoadError: cyclic, or against the ONNX specification.
    """
    _check_functions(model, where)
    _check(model, where)
    if model.functions:
        model = _inlined(model, where)
    return _unfolded(model)


def _unfolded(model: ModelProto) -> ModelProto:
    """Operators that nothing here runs, but that ONNX defines by others, as those others."""
    versions = {o.domain: o.version for o in model.opset_import}
    names = {
        (n.domain, n.op_type)
        for n in nodes_of(model.graph)
        if not known(n.domain, n.op_type) and _is_function(n, versions.get(n.domain, 0))
    }
    if not names:
        return model
    copy = ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        info = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        copy.graph.value_info.append(info)  # the inliner asks for the type of everything
    try:
        return onnx.inliner.inline_selected_functions(
            copy, sorted(names), inline_schema_functions=True
        )
    except (ValueError, RuntimeError, DecodeError):
        return model  # a type it cannot tell: the nodes are then refused by name


def _is_function(node: NodeProto, version: int) -> bool:
    try:
        schema = onnx.defs.get_schema(node.op_type, version, node.domain)
    except onnx.defs.SchemaError:
        return False
    body, builder = "has_function", "has_context_dependent_function"  # not in its type stubs
    return bool(getattr(schema, body) or getattr(schema, builder))


def nodes_of(graph: GraphProto) -> Iterator[NodeProto]:
    """All nodes of a graph, subgraphs included."""
    stack = [graph]
    while stack:
        for node in stack.pop().node:
            yield node
            stack.extend(subgraphs(node))


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """Graphs among a node's attributes."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            yield from attribute.graphs


def _check(model: ModelProto, where: str) -> None:
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        first = str(error).strip().split("\n")[0]
        raise LoadError(f"is no valid ONNX model: {first}", where=where, hint=_AGAIN) from error
    except (ValueError, RuntimeError, DecodeError, IndexError) as error:
        first = str(error).strip().split("\n")[0]
        raise LoadError(f"cannot be checked ({first})", where=where, hint=_AGAIN) from error


def _check_functions(model: ModelProto, where: str) -> None:
    """Refuses functions that call one another in a circle or would unfold without bound."""
    functions = {(f.domain, f.name): f for f in model.functions}
    sizes: dict[tuple[str, str], int] = {}
    for key in functions:
        _size(key, functions, sizes, (), where)
    total = sum(sizes.get((n.domain, n.op_type), 1) for n in nodes_of(model.graph))
    if total > _MAX_NODES:
        raise LoadError(f"unfolds to {total} nodes; at most {_MAX_NODES} are read", where=where)


def _size(
    key: tuple[str, str],
    functions: Mapping[tuple[str, str], FunctionProto],
    sizes: dict[tuple[str, str], int],
    above: tuple[tuple[str, str], ...],
    where: str,
) -> int:
    if key in above or len(above) > 100:
        what = f"function '{key[1]}' calls itself" if key in above else "nests its functions"
        raise LoadError(f"{what}: this cannot be unfolded", where=where, hint=_AGAIN)
    if key not in sizes:
        calls = [n for top in functions[key].node for n in _with_inner(top)]
        sizes[key] = sum(
            _size((n.domain, n.op_type), functions, sizes, (*above, key), where)
            if (n.domain, n.op_type) in functions
            else 1
            for n in calls
        )
    return sizes[key]


def _with_inner(node: NodeProto) -> Iterator[NodeProto]:
    yield node
    for graph in subgraphs(node):
        yield from nodes_of(graph)


def _inlined(model: ModelProto, where: str) -> ModelProto:
    try:
        return onnx.inliner.inline_local_functions(model)
    except (ValueError, RuntimeError, DecodeError) as error:
        first = str(error).strip().split("\n")[0]
        raise LoadError(f"its functions cannot be unfolded: {first}", where=where) from error

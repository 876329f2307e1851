"""Which constants are weights, wherever the file keeps them, and to which layer they belong."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from gradscope.loading.onnx.filters import FixedFilters
from gradscope.loading.onnx.graph import Constant, Graph, Node
from gradscope.loading.onnx.registry import Call, Slot, Types, find
from gradscope.loading.onnx.uses import Id, Uses, uses_of
from gradscope.model import Origin

_TERMS = {"Add", "Sub", "Mul", "Div", "Sum"}
_RECURRENT = {"LSTM", "GRU", "RNN"}
_DOTTED = re.compile(r"^\w+(\.\w+)*\.[A-Za-z_]\w*$")
_SIDES = ("[forward]", "[reverse]")


@dataclass(frozen=True)
class Place:
    """Where a parameter stands in the file.

    Attributes:
        path: of its graph.
        name: of the tensor.
        index: the part of its first axis, for one direction of a recurrent layer; None: all of it.
        node: whether it stands in a Constant node.
        consumers: the nodes that use it, by output tensor.
    """

    path: str
    name: str
    index: int | None
    node: bool
    consumers: tuple[str, ...]


@dataclass(frozen=True)
class Binding:
    """The parameters that stand for one constant.

    Attributes:
        keys: names of the parameters.
        pieces: they are parts along its first axis, and handed on as a list.
    """

    keys: tuple[str, ...]
    pieces: bool


@dataclass(frozen=True)
class Weights:
    """What of a model is trained.

    Attributes:
        tensors: by parameter name, in execution order.
        origins: layer, kind and fan-in of each.
        places: where each stands in the file.
        bindings: per constant.
        fixed: names of the filter banks that were left out.
    """

    tensors: dict[str, torch.Tensor]
    origins: dict[str, Origin]
    places: dict[str, Place]
    bindings: dict[Id, Binding]
    fixed: tuple[str, ...]


@dataclass(frozen=True)
class _Found:
    """A weight and the first slot that it stands in."""

    constant: Constant
    node: Node
    slot: Slot
    direct: bool


def find_weights(graph: Graph) -> Weights:
    """Weights of the graph and of everything below it."""
    return _Search(uses_of(graph)).run()


class _Search:
    def __init__(self, uses: Uses) -> None:
        self._uses = uses
        self._filters = FixedFilters(uses, self._behind)
        names = [name for _, name in uses.constants]
        self._ambiguous = {n for n in names if names.count(n) > 1} if _repeats(names) else set()

    def run(self) -> Weights:
        fixed = self._filters.find()
        found: dict[Id, _Found] = {}
        for key in self._uses.constants:
            if key not in fixed:
                weight = self._weight(key)
                if weight is not None:
                    found[key] = weight
        order = {node: i for i, node in enumerate(self._uses.nodes)}
        result = Weights({}, {}, {}, {}, tuple(name for _, name in sorted(fixed)))
        for key in sorted(found, key=lambda k: order[found[k].node]):
            self._enter(key, found[key], found, result)
        return result

    def _behind(self, tensor: Id | None) -> Id | None:
        """The constant that a tensor is made of by reordering alone."""
        for _ in range(16):
            if tensor is None or tensor in self._uses.constants:
                return tensor
            node = self._uses.makers.get(tensor)
            operator = find(node) if node is not None else None
            if node is None or operator is None or not operator.carries:
                return None
            tensor = self._uses.reads[node][0]
        return None

    def _slots(self, key: Id, direct: bool = True, depth: int = 0) -> Iterator[_Found]:
        """Every slot that a constant stands in, reordered or not."""
        for node, index in self._uses.of.get(key, []):
            operator = find(node)
            if operator is None or depth > 16:
                continue
            if index in operator.weights:
                constant = self._uses.constants.get(key)
                if constant is None or self._fits(constant, node, index):
                    yield _Found(constant, node, operator.weights[index], direct)  # type: ignore[arg-type]
            elif (operator.carries and index == 0) or node.op == "Concat":
                for made in self._uses.made(node):
                    yield from self._slots(made, False, depth + 1)

    def _weight(self, key: Id) -> _Found | None:
        constant = self._uses.constants[key]
        if not constant.tensor.is_floating_point() or constant.tensor.numel() == 0:
            return None
        for slot in self._slots(key):
            if self._fits(constant, slot.node, None):
                return _Found(constant, slot.node, slot.slot, slot.direct)
        return None

    def _fits(self, constant: Constant, node: Node, index: int | None) -> bool:
        """Whether it can be trained there: a factor of 0.5 in a formula cannot."""
        reads = [r for r in self._uses.reads[node] if r is not None]
        others = [r for r in reads if not self._filters.is_pure(r)]
        if not others:
            return False  # arithmetic of constants alone
        if node.op == "Gather":
            return constant.tensor.dim() == 2  # a table of embeddings; a list of numbers is none
        if node.op not in _TERMS:
            return True
        tensor = constant.tensor
        if tensor.numel() == 1:
            named = bool(_DOTTED.match(constant.name)) and not constant.node
            return named and tensor.dim() > 0
        if all(self._filters.is_raw(o) for o in others):
            return False  # the mean or the deviation that the input is normalised with
        return tensor.squeeze().dim() < 2 or len(torch.unique(tensor)) > 2  # no mask

    def _enter(self, key: Id, found: _Found, all_found: dict[Id, _Found], into: Weights) -> None:
        name = key[0] + key[1] if key[1] in self._ambiguous else key[1]
        tensor, node = found.constant.tensor, found.node
        consumers = tuple(dict.fromkeys(n.where for n, _ in self._uses.of.get(key, [])))
        users = [n for n, _ in self._uses.of.get(key, [])]
        pieces = all(n.op in _RECURRENT for n in users) and tensor.shape[0] in (1, 2)
        layer = self._layer(found, all_found)
        keys = []
        for i in range(tensor.shape[0]) if pieces else (None,):
            side = _SIDES[i] if i is not None and tensor.shape[0] == 2 else ""
            part = tensor if i is None else tensor[i].clone()
            fan_in, units = self._shape_of(found, part)
            keys.append(name + side)
            into.tensors[name + side] = part
            into.origins[name + side] = Origin(layer + side, node.op, fan_in, units)
            into.places[name + side] = Place(*key, i, found.constant.node, consumers)
        into.bindings[key] = Binding(tuple(keys), pieces)

    def _beside(self, term: Node, all_found: dict[Id, _Found]) -> str | None:
        """For a bias: the layer of the product, convolution or scale that it is added to."""
        for read in self._uses.reads[term] if term.op == "Add" else ():
            maker = self._uses.makers.get(read) if read is not None else None
            for other in self._uses.reads[maker] if maker is not None else ():
                behind = self._behind(other)
                if behind in all_found and all_found[behind].node is maker:
                    return self._layer(all_found[behind], all_found)
        return None

    def _shape_of(self, found: _Found, tensor: torch.Tensor) -> tuple[int | None, int]:
        """Inputs of one unit, and the axis of the units: of a matrix it may be either."""
        if found.slot.fan_in is None:
            return None, 0
        shape = tuple(tensor.shape)
        turned = len(shape) == 2 and self._fan_in(found, (2, 3)) == 2
        return self._fan_in(found, shape), int(turned)

    def _fan_in(self, found: _Found, shape: tuple[int, ...]) -> int | None:
        assert found.slot.fan_in is not None
        if not found.direct:
            # Reordered on its way: turned around, where it is a matrix that a node transposes.
            first = self._uses.of[(found.constant.path, found.constant.name)][0][0]
            if first.op == "Transpose" and len(shape) == 2:
                shape = shape[::-1]
            elif len(shape) < 2:
                return None
        return found.slot.fan_in(Call(found.node, Types()), shape)

    def _layer(self, found: _Found, all_found: dict[Id, _Found]) -> str:
        """The path in a dotted name; else that of the bias beside it; else the node."""
        name = found.constant.name
        if _DOTTED.match(name):
            return name.rpartition(".")[0]
        if found.node.op in _TERMS:
            return self._beside(found.node, all_found) or _short(found.node.where)
        near = [found.node]
        if found.node.op == "MatMul":
            near += [n for m in self._uses.made(found.node) for n, _ in self._uses.of.get(m, [])]
        for node in near:
            if node is not found.node and node.op != "Add":
                continue
            for read in self._uses.reads[node]:
                behind = self._behind(read)
                if behind in all_found and _DOTTED.match(behind[1]):
                    return behind[1].rpartition(".")[0]
        return _short(found.node.where)


def _short(name: str) -> str:
    """TensorFlow joins the names of all nodes that it merged by semicolons: the first will do."""
    return name.partition(";")[0]


def _repeats(names: list[str]) -> bool:
    return len(set(names)) < len(names)

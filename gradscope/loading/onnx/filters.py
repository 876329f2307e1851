"""Constants that no training made: filter banks in front of a network.

A Fourier, wavelet or constant-Q transform is a linear map of the raw signal of which only the
magnitude is used: its outputs are squared (or made absolute) and nothing else. A trained layer has
a bias, or feeds an activation or a normalisation. The bank of (mel) bands that may follow is a
matrix without negative entries, applied to those magnitudes, whose logarithm is taken. Where a
value stands, in an initializer or in a Constant node, says nothing: whole networks keep their
weights in the latter.
"""

from __future__ import annotations

from collections.abc import Callable

from gradscope.loading.onnx.graph import Node, graphs_of
from gradscope.loading.onnx.registry import find
from gradscope.loading.onnx.uses import Id, Uses

_MOVES = {
    "Slice", "Split", "Pad", "Concat", "Gather", "Expand", "Tile", "DepthToSpace", "SpaceToDepth",
}  # fmt: skip
_SUMS = {"Add", "Sub", "Neg", "Sum", "ReduceSum", "ReduceMean"}
_SCALES = {"Mul", "Div"}
_SQUARES = {"Abs", "ReduceL2", "ReduceSumSquare", "ReduceL1"}
_SHAPES = {"Shape", "Size"}
_AFTER = {"Sqrt", "Log", "Pow"}
_FLOORS = {"Clip", "Max", "Add"}


class FixedFilters:
    """Finds them.

    Args:
        uses: the model.
        behind: the constant that an input of a node is made of by reordering alone, if it is.
    """

    def __init__(self, uses: Uses, behind: Callable[[Id | None], Id | None]) -> None:
        self._uses, self._behind = uses, behind
        self._fixed: set[Id] = set()
        self._pure = set(uses.constants)
        self._raw = set(uses.inputs)
        self._magnitudes: set[Id] = set()
        self._only_squared: dict[Id, bool] = {}

    def find(self) -> frozenset[Id]:
        """The constants, in one pass over the nodes in execution order."""
        for node in self._uses.nodes:
            reads = self._uses.reads[node]
            data = [r for r in reads if r is not None and r not in self._pure]
            made = self._uses.made(node)
            # A body may read, from the graphs around it, what its node does not name.
            if node.op in _SHAPES or not (data or any(graphs_of(node))):
                self._pure.update(made)
                continue
            bank = self._bank(node)
            if bank is not None and data and data[0] in self._raw:
                if all(self._ends_squared(m) for m in made):
                    self._fixed.add(bank)
                    self._raw.update(made)
            elif bank is not None and data and data[0] in self._magnitudes:
                if self._is_bands(bank) and all(self._ends_logged(m) for m in made):
                    self._fixed.add(bank)
                    self._magnitudes.update(made)
            elif data and all(d in self._raw for d in data):
                if _is_square(node, reads):
                    self._magnitudes.update(made)
                elif self._keeps_linear(node) or node.op in _SUMS:  # also less its mean
                    self._raw.update(made)
            elif data and all(d in self._magnitudes for d in data) and self._keeps_magnitude(node):
                self._magnitudes.update(made)
        return frozenset(self._fixed | self._idle_biases())

    def is_pure(self, tensor: Id | None) -> bool:
        """Whether a tensor is made of constants and shapes alone."""
        return tensor in self._pure

    def is_raw(self, tensor: Id | None) -> bool:
        """Whether a tensor is the model's input, at most moved, scaled and filtered."""
        return tensor in self._raw or tensor in self._magnitudes

    def _bank(self, node: Node) -> Id | None:
        """The constant factor of a linear map without bias."""
        operator = find(node)
        if operator is None or not any(s.linear for s in operator.weights.values()):
            return None
        factors, bias = self._uses.reads[node][:2], self._uses.reads[node][2:]
        if any(b is not None and not self._is_zero(b) for b in bias):
            return None
        found = [self._behind(r) for r in factors if r is not None]
        constants = [f for f in found if f is not None]
        return constants[0] if len(constants) == 1 else None

    def _is_zero(self, tensor: Id) -> bool:
        constant = self._uses.constants.get(tensor)
        return constant is not None and not bool(constant.tensor.any())

    def _idle_biases(self) -> set[Id]:
        """Zeros that an exporter gave to filter banks as their bias."""
        found = set()
        for key in self._uses.constants:
            users = self._uses.of.get(key, [])
            if users and all(i == 2 and self._bank(n) in self._fixed for n, i in users):
                found.add(key)
        return found

    def _keeps_linear(self, node: Node) -> bool:
        operator = find(node)
        if (operator is not None and operator.carries) or node.op in _MOVES:
            return True
        pure = [self.is_pure(r) for r in self._uses.reads[node] if r is not None]
        if operator is not None and any(s.linear for s in operator.weights.values()):
            return len(pure) == 2 and any(pure) and self._bank(node) is None
        if node.op in _SUMS:
            return not pure[0] and (node.op.startswith("Reduce") or not any(pure))
        return node.op in _SCALES and any(pure)

    def _keeps_magnitude(self, node: Node) -> bool:
        return node.op in _AFTER | _FLOORS or self._keeps_linear(node)

    def _ends_squared(self, tensor: Id) -> bool:
        """Whether everything that is made of a tensor is first squared."""
        if tensor in self._only_squared:
            return self._only_squared[tensor]
        self._only_squared[tensor] = False  # a tensor that leads nowhere, or out of the model
        users = self._uses.of.get(tensor, [])
        result = bool(users) and tensor not in self._uses.outputs
        for node, _ in users:
            if not result:
                break
            if _is_square(node, self._uses.reads[node]):
                continue
            passes = self._keeps_linear(node) or self._bank(node) is not None
            result = passes and all(self._ends_squared(m) for m in self._uses.made(node))
        self._only_squared[tensor] = result
        return result

    def _is_bands(self, bank: Id) -> bool:
        return bool((self._uses.constants[bank].tensor >= 0).all())

    def _ends_logged(self, tensor: Id) -> bool:
        for _ in range(12):
            users = self._uses.of.get(tensor, [])
            if not users:
                return False
            if any(node.op == "Log" for node, _ in users):
                return True
            node = users[0][0]
            if not (node.op in _FLOORS or self._keeps_linear(node)):
                return False
            tensor = self._uses.made(node)[0]
        return False


def _is_square(node: Node, reads: list[Id | None]) -> bool:
    if node.op == "Mul":
        return reads[0] == reads[1]
    return node.op in _SQUARES or node.op == "Pow"

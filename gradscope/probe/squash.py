"""What a model's last operations squash: softmax, sigmoid, unit length, also written by hand.

Read from the backward graph, from the output down. A gradient that vanishes in there says that the
output is confident, and nothing about the network before it.
"""

from __future__ import annotations

from dataclasses import dataclass

from gradscope.probe.graph import SHAPE_OPS, Node, op_name

_SQUASH = {
    "SoftmaxBackward": "softmax",
    "LogSoftmaxBackward": "log-softmax",
    "SigmoidBackward": "sigmoid",
    "LogSigmoidBackward": "log-sigmoid",
    "TanhBackward": "tanh",
    "HardsigmoidBackward": "hardsigmoid",
    "AtanBackward": "atan",
}
_ARITHMETIC = {"AddBackward", "SubBackward", "MulBackward", "DivBackward", "NegBackward"}
_LIMITS = {"ClampBackward", "ClampMinBackward", "ClampMaxBackward"}
_BY_HAND = ("ReciprocalBackward", "AddBackward", "ExpBackward", "NegBackward")  # 1 / (1 + exp(-z))
_LOGARITHM = {"softmax": "log-softmax", "sigmoid": "log-sigmoid"}
_LENGTHS = frozenset(
    {"SumBackward", "SqrtBackward", "PowBackward", "NormBackward", "LinalgVectorNormBackward"}
)
_LARGEST = frozenset({"MaxBackward", "AmaxBackward"})
_STEPS = 8


@dataclass(frozen=True)
class Squash:
    """A squashing and what enters it."""

    name: str
    edge: tuple[Node, int]


def before_squash(node: Node) -> Squash | None:
    """The squashing that ends at ``node``; None if the output ends otherwise.

    Reshaping, limits and arithmetic with constants may follow it, and a logarithm.
    """
    logarithm = False
    while node is not None:
        found = _squash_at(node)
        if found is not None:
            if _is_leaf(found.edge[0]):
                return None  # squashing of the input itself is no head to enter before
            return Squash(_LOGARITHM[found.name], found.edge) if logarithm else found
        name = op_name(node)
        present = [n for n, _ in node.next_functions if n is not None]
        passes = name in SHAPE_OPS or name in _LIMITS or name in _ARITHMETIC
        if len(present) != 1 or _is_leaf(present[0]) or not (passes or name == "LogBackward"):
            return None
        if name == "LogBackward" and not _probability(present[0]):
            return None
        logarithm = logarithm or name == "LogBackward"
        node = present[0]
    return None


def _probability(node: Node) -> bool:
    found = before_squash(node)
    return found is not None and found.name in _LOGARITHM


def _squash_at(node: Node) -> Squash | None:
    name, inputs = op_name(node), node.next_functions
    if name in _SQUASH and inputs[0][0] is not None:
        return Squash(_SQUASH[name], inputs[0])
    if name == "ReciprocalBackward":
        return _sigmoid_by_hand(node)
    if len(inputs) != 2 or inputs[0][0] is None or inputs[1][0] is None:
        return None
    for one, other in (inputs, inputs[::-1]) if name == "MulBackward" else (inputs,):
        steps = _steps_between(other[0], one[0])
        if name in ("DivBackward", "MulBackward") and steps & _LENGTHS:
            return _softmax_by_hand(one[0], steps) or Squash("normalisation", one)
    by_hand = name == "SubBackward" and op_name(inputs[1][0]) == "LogsumexpBackward"
    if by_hand and inputs[1][0].next_functions[0] == inputs[0]:
        return Squash("log-softmax", inputs[0])
    return None


def _softmax_by_hand(exponential: Node, steps: frozenset[str]) -> Squash | None:
    """exp(z) over its own sum, whether or not the largest z is taken off before."""
    if op_name(exponential) != "ExpBackward" or steps & _LENGTHS != {"SumBackward"}:
        return None
    edge = exponential.next_functions[0]
    if edge[0] is not None and op_name(edge[0]) == "SubBackward":
        whole, largest = edge[0].next_functions
        if largest[0] is not None and _steps_between(largest[0], whole[0]) & _LARGEST:
            edge = whole
    return None if edge[0] is None else Squash("softmax", edge)


def _sigmoid_by_hand(node: Node) -> Squash | None:
    edge = (node, 0)
    for name in _BY_HAND:
        if edge[0] is None or op_name(edge[0]) != name:
            return None
        present = [e for e in edge[0].next_functions if e[0] is not None]
        if len(present) != 1:
            return None
        edge = present[0]
    return Squash("sigmoid", edge)


def _is_leaf(node: Node) -> bool:
    return not node.next_functions


def _steps_between(later: Node, earlier: Node) -> frozenset[str]:
    """Operations that make ``later`` of ``earlier`` alone; none if it is made of more."""
    steps = set[str]()
    for _ in range(_STEPS):
        if later is earlier:
            return frozenset(steps)
        steps.add(op_name(later))
        present = {n for n, _ in later.next_functions if n is not None}
        if len(present) != 1:
            return frozenset()
        later = present.pop()
    return frozenset()

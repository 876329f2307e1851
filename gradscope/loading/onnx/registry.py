"""Which function runs which operator, by domain, name and version of the operator set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from gradscope.loading.onnx.graph import Node
from gradscope.loading.onnx.tensors import DTYPES, FLOATS

Run = Callable[..., Any]
FanIn = Callable[["Call", tuple[int, ...]], int | None]


class Refusal(ValueError):
    """What only the inputs show to be without a gradient; the message is the reason."""


@dataclass(frozen=True)
class Slot:
    """An input of an operator that holds trained numbers.

    Attributes:
        fan_in: inputs of one unit, from the shape of the weight; None for vectors and tables.
        linear: the operator is linear in its other inputs: a Fourier basis may stand here too.
    """

    fan_in: FanIn | None = None
    linear: bool = False


@dataclass(frozen=True)
class Operator:
    """One operator.

    Attributes:
        run: ``run(call, *inputs)``; several outputs come as a tuple; None for one left out.
        since: first version of the operator set that it serves.
        weights: slots of trained numbers.
        scoped: also takes the scope that its subgraphs see: ``run(call, scope, *inputs)``.
        carries: hands its input on in another form: a weight remains a weight.
    """

    run: Run
    since: int
    weights: Mapping[int, Slot] = field(default_factory=dict)
    scoped: bool = False
    carries: bool = False


_OPERATORS: dict[tuple[str, str], list[Operator]] = {}
_REFUSED: dict[tuple[str, str], str] = {}


def operator(
    *names: str,
    domain: str = "",
    since: int = 1,
    weights: Mapping[int, Slot] | None = None,
    scoped: bool = False,
    carries: bool = False,
) -> Callable[[Run], Run]:
    """Registers a function for one or more operators, from a version on."""

    def register(run: Run) -> Run:
        for name in names:
            known = _OPERATORS.setdefault((domain, name), [])
            known.append(Operator(run, since, weights or {}, scoped, carries))
            known.sort(key=lambda o: o.since)
        return run

    return register


def refuse(reason: str, *names: str, domain: str = "") -> None:
    """Says why operators are not served."""
    _REFUSED.update({(domain, name): reason for name in names})


def find(node: Node) -> Operator | None:
    """What runs a node; None if nothing does."""
    known = _OPERATORS.get((node.domain, node.op), ())
    return next((o for o in reversed(known) if o.since <= node.version), None)


def known(domain: str, name: str) -> bool:
    """Whether any version of an operator is served, or refused with a reason of its own."""
    key = ("" if domain == "ai.onnx" else domain, name)
    return key in _OPERATORS or key in _REFUSED


def why_refused(node: Node) -> str:
    """The reason for a node that :func:`find` does not find."""
    reason = _REFUSED.get((node.domain, node.op))
    if reason is not None:
        return reason
    if node.domain:
        return f"the operators of '{node.domain}' are not known"
    if ("", node.op) in _OPERATORS:
        return f"its form of opset {node.version} is not known"
    return "its gradient is not known"


class Types:
    """Which torch type stands for which ONNX type.

    Attributes:
        floating: a type to use in place of every floating one, for checks in float64; None for
            those that the file says.
    """

    def __init__(self) -> None:
        self.floating: torch.dtype | None = None

    def of(self, code: int) -> torch.dtype:
        """The torch type of an ONNX type.

        Raises:
            ValueError: there is none.
        """
        if self.floating is not None and code in FLOATS:
            return self.floating
        if code not in DTYPES:
            raise ValueError(f"there is no arithmetic for ONNX's type {code}")
        return DTYPES[code]


@dataclass(frozen=True, eq=False)
class Call:
    """What an operator knows beside its inputs.

    Attributes:
        node: the node.
        types: see there.
        programs: its subgraphs, ready to run, by attribute.
    """

    node: Node
    types: Types
    programs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def version(self) -> int:
        """Of the operator set."""
        return self.node.version

    @property
    def outputs(self) -> int:
        """How many outputs are wanted, counted to the last one that has a name."""
        return len(self.node.outputs)

    def wants(self, index: int) -> bool:
        """Whether an output has a name."""
        return index < len(self.node.outputs) and bool(self.node.outputs[index])

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute as it stands."""
        value = self.node.attributes.get(name)
        return default if value is None else value


def ints(value: Any) -> list[int]:
    """An input of indices or sizes as plain numbers."""
    if isinstance(value, torch.Tensor):
        return [int(v) for v in value.reshape(-1).tolist()]
    return [int(v) for v in value]


def number(value: Any) -> Any:
    """An input that holds one number as that number."""
    return value.reshape(-1)[0].item() if isinstance(value, torch.Tensor) else value


def number_or(value: Any, default: Any) -> Any:
    """The same with a default where the input was left out."""
    return default if value is None else number(value)

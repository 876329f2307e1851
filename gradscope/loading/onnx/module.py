"""An ONNX graph as an nn.Module: its weights as parameters under their ONNX names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import torch

from gradscope.loading.onnx import operators  # noqa: F401  (registers them)
from gradscope.loading.onnx.budget import Budget
from gradscope.loading.onnx.execute import Program, Scope, Trace
from gradscope.loading.onnx.graph import Graph, Node, ValueInfo
from gradscope.loading.onnx.registry import Types
from gradscope.loading.onnx.weights import Weights
from gradscope.model import Products


class _Lowered:
    """The graph and what runs it, which no call changes but for what constants alone make.

    Callable, and without a ``__dict__``: what keeps and restores the state of a module leaves it
    alone, with all of its constants.
    """

    __slots__ = ("graph", "program", "trace", "types", "weights")

    def __init__(self, graph: Graph, weights: Weights) -> None:
        self.graph, self.weights = graph, weights
        self.types = Types()
        self.trace: Trace | None = None
        self.program = Program(graph, self.types, weights.bindings)

    def __call__(self, inputs: list[Any], scope: Scope) -> list[Any]:
        return self.program.run(inputs, scope)


class OnnxModule(torch.nn.Module):
    """Runs a graph whose operators are all known.

    Args:
        graph: the outermost graph.
        weights: what of it is trained.
        shared: inputs without samples; zeros where a call leaves them out.

    Attributes:
        order: of the inputs by position: first those that have samples.
    """

    def __init__(
        self, graph: Graph, weights: Weights, shared: frozenset[str] = frozenset()
    ) -> None:
        super().__init__()
        self.shared = shared
        self.order = tuple(sorted(graph.inputs, key=lambda i: i.name in shared))
        self._lowered = _Lowered(graph, weights)
        for name, tensor in weights.tensors.items():
            # Names with dots and slashes are what the file calls them; register_parameter would
            # refuse them, since it reads dots as modules.
            self._parameters[name] = torch.nn.Parameter(tensor)
        self.training = False

    @property
    def graph(self) -> Graph:
        """The outermost graph."""
        return self._lowered.graph

    @property
    def weights(self) -> Weights:
        """What of it is trained."""
        return self._lowered.weights

    def exchange(self, tanh: bool) -> int:
        """See :meth:`Program.exchange`."""
        return self._lowered.program.exchange(tanh)

    def put(self, products: Products) -> None:
        """See :meth:`Program.put`."""
        self._lowered.program.put(products)

    def watch(self, told: Callable[[str, torch.Tensor], None] | None) -> None:
        """``told`` has every node that makes a tensor named from then on, with its first output."""

        def trace(node: Node, index: int, value: Any) -> None:
            if told is not None and index == 0 and isinstance(value, torch.Tensor):
                told(node.where, value)

        self._lowered.trace = trace if told is not None else None

    def train(self, mode: bool = True) -> Self:
        """Only False: the graph was exported for inference, and holds nothing else.

        Raises:
            NotImplementedError: for True.
        """
        if mode:
            raise NotImplementedError("an ONNX graph has no training mode")
        return self

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._lowered.program.apply(fn)
        return self

    def in_double(self) -> Self:
        """All floating arithmetic in float64, whatever types the file says: for checks."""
        self._lowered.types.floating = torch.float64
        return self.double()

    def forward(self, *args: torch.Tensor, **kwargs: torch.Tensor) -> dict[str, Any]:
        """Outputs by name.

        Args:
            args: inputs in :attr:`order`.
            kwargs: inputs by name; those with a default in the file may be left out.

        Raises:
            ValueError: an input is missing, unknown, or of another type than declared.
        """
        return self.run(args, kwargs, self._lowered.trace)

    def run(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], trace: Trace | None = None
    ) -> dict[str, Any]:
        """As :meth:`forward`; ``trace`` is told every tensor that is made."""
        given = self.bound(args, kwargs)
        values = [self._checked(i, given[i.name]) for i in self.graph.inputs]
        scope = Scope(None, self._parameters, trace, Budget(self._given(values)))
        results = self._lowered(values, scope)
        return {o.name: r for o, r in zip(self.graph.outputs, results, strict=True)}

    def _given(self, values: Sequence[Any]) -> int:
        """Elements of inputs, parameters and constants."""
        held = (*values, *self._parameters.values(), *self._lowered.program.constants.values())
        return sum(t.numel() for t in held if isinstance(t, torch.Tensor))

    def bound(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs of a call by name, those that it may leave out included.

        Raises:
            ValueError: an input is missing or unknown.
        """
        declared = self.order
        if len(args) > len(declared):
            raise ValueError(f"takes {len(declared)} inputs, not {len(args)}")
        given = dict(zip((i.name for i in declared), args, strict=False))
        for name, value in kwargs.items():
            if name in given or name not in {i.name for i in declared}:
                known = ", ".join(i.name for i in declared)
                raise ValueError(f"there is no input '{name}' beside those given; it has: {known}")
            given[name] = value
        for info in declared:
            if info.name in self.shared and info.name not in given:
                given[info.name] = self._zeros(info, given)
        missing = [i.name for i in declared if i.name not in given]
        if missing:
            raise ValueError(f"the input '{missing[0]}' is missing")
        return given

    def _zeros(self, info: ValueInfo, given: Mapping[str, Any]) -> torch.Tensor:
        device = next((v.device for v in given.values() if isinstance(v, torch.Tensor)), None)
        shape = [int(s or 0) for s in info.shape or ()]
        return torch.zeros(shape, dtype=self._lowered.types.of(info.dtype), device=device)

    def _checked(self, declared: ValueInfo, value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or declared.dtype == 0:
            return value
        wanted = self._lowered.types.of(declared.dtype)
        if value.dtype is not wanted:
            have, want = (str(t).removeprefix("torch.") for t in (value.dtype, wanted))
            raise ValueError(f"the input '{declared.name}' is {have}, but must be {want}")
        shape = declared.shape
        if shape is not None and (
            len(shape) != value.dim()
            or any(d is not None and d != s for d, s in zip(shape, value.shape, strict=True))
        ):
            want = "x".join("?" if d is None else str(d) for d in shape) or "a single number"
            raise ValueError(
                f"the input '{declared.name}' is {tuple(value.shape)}, but must be {want}"
            )
        return value

"""Listens to a backward pass: per-sample gradient norms at activations and cuts.

Hooks stand on the nodes of the backward graph, never on the model, and vanish with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from gradscope.probe.graph import Graph
from gradscope.probe.hosted import to_host
from gradscope.probe.layout import BatchLayout, guess
from gradscope.probe.match import softsign_parts
from gradscope.probe.stats import PerSample

LayoutOf = Callable[[int, tuple[int, ...]], BatchLayout | None]


class Listener:
    """Collects norms while backward passes run.

    After each pass call :meth:`end_draw`, after the last one :meth:`settle`; :meth:`pre`,
    :meth:`out`, :meth:`cut` then give squared norms of shape (samples, draws).

    Args:
        graph: whose nodes to listen at.
        samples: samples in the batch; 1 if they are coupled.
        layout: (node, shape) -> where the samples lie.
    """

    def __init__(self, graph: Graph, samples: int, layout: LayoutOf) -> None:
        self._graph, self._samples, self._layout = graph, samples, layout
        self._now: dict[tuple[str, int], torch.Tensor] = {}
        self._draws: list[dict[tuple[str, int], torch.Tensor]] = []
        self._squares: dict[tuple[str, int], PerSample] = {}
        self._handles: list[Any] = []

    def listen(self, activations: Iterable[int], cuts: Iterable[int]) -> None:
        """Put the hooks up."""
        for node in activations:
            if self._graph.names[node] == "DivBackward":
                self._listen_softsign(node)
            else:
                listen = self._graph.nodes[node].register_hook
                self._handles.append(listen(self._activation_hook(node)))
        for node in cuts:
            self._handles.append(self._graph.nodes[node].register_prehook(self._cut_hook(node)))

    def close(self) -> None:
        """Take all hooks down."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def end_draw(self) -> None:
        """One backward pass is over."""
        self._draws.append(self._now)
        self._now = {}

    def settle(self) -> None:
        """All passes are over: what arrived in each of them, together and on the CPU."""
        draws, self._draws = self._draws, []
        keys = [k for k in draws[0] if all(k in d for d in draws)] if draws else []
        if not keys:
            return
        norms = to_host([draw[key] for key in keys for draw in draws])
        wide = norms if len({t.dtype for t in norms}) == 1 else [t.double() for t in norms]
        each = torch.stack(wide).double().square_().view(len(keys), len(draws), -1)
        rows = each.transpose(1, 2).contiguous()
        self._squares = {key: PerSample((rows[i],)) for i, key in enumerate(keys)}

    def pre(self, node: int) -> PerSample | None:
        """Squared norms of dL/dz, through this activation alone; None if none arrived."""
        return self._collected(("pre", node))

    def out(self, node: int) -> PerSample | None:
        """Squared norms of dL/da."""
        return self._collected(("out", node))

    def cut(self, node: int) -> PerSample | None:
        """Squared norms of the gradient at what the node made."""
        return self._collected(("cut", node))

    def _collected(self, key: tuple[str, int]) -> PerSample | None:
        return self._squares.get(key)

    def _norms(self, node: int, gradient: torch.Tensor) -> torch.Tensor:
        """L2 norm of each sample, shape (samples,)."""
        shape = tuple(gradient.shape)
        layout = self._layout(node, shape) or guess(shape, self._samples)
        if layout is None:
            return torch.full((self._samples,), torch.nan, device=gradient.device)
        full = gradient.dtype in (torch.float32, torch.float64) or gradient.is_complex()
        wide = gradient if full else gradient.float()
        norms: torch.Tensor = torch.linalg.vector_norm(layout.rows(wide, self._samples), dim=1)
        return norms

    def _activation_hook(self, node: int) -> Callable[[Any, Any], None]:
        plain = self._plain_rows(node)
        out, pre = ("out", node), ("pre", node)
        edges = self._graph.inputs[node]
        place = next((i for i, e in enumerate(edges) if e is not None), 0)  # maximum(0, z): 1

        def hook(grad_inputs: Any, grad_outputs: Any) -> None:
            for key, gradient in ((out, grad_outputs[0]), (pre, grad_inputs[place])):
                if gradient is None:
                    continue
                if plain:  # a recurrent network runs this thousands of times a pass
                    self._now[key] = torch.linalg.vector_norm(gradient, dim=1)
                else:
                    self._now[key] = self._norms(node, gradient)

        return hook

    def _plain_rows(self, node: int) -> bool:
        """Whether the gradient is (samples, units) already, in a type of full precision."""
        if self._graph.names[node] == "GluBackward":
            return False
        meta = self._graph.nodes[node]._input_metadata[0]
        shape = tuple(int(s) for s in meta.shape)
        full = meta.dtype in (torch.float32, torch.float64)
        layout = self._layout(node, shape) or guess(shape, self._samples)
        return full and len(shape) == 2 and layout == BatchLayout(0)

    def _cut_hook(self, node: int) -> Callable[[Any], None]:
        def hook(gradients: Any) -> None:
            norms = [self._norms(node, g) for g in gradients if g is not None]
            if norms:
                joint = norms[0] if len(norms) == 1 else torch.stack(norms).norm(dim=0)
                self._now["cut", node] = joint

        return hook

    def _listen_softsign(self, node: int) -> None:
        """z / (1 + |z|): the gradient of z arrives in two parts, through z and through |z|."""
        parts = softsign_parts(self._graph, node)
        assert parts is not None
        waiting: list[torch.Tensor] = []

        def divided(grad_inputs: Any, grad_outputs: Any) -> None:
            if grad_outputs[0] is not None and grad_inputs[0] is not None:
                self._now["out", node] = self._norms(node, grad_outputs[0])
                waiting[:] = [grad_inputs[0]]

        def absolute(grad_inputs: Any, grad_outputs: Any) -> None:
            if waiting and grad_inputs[0] is not None:
                self._now["pre", node] = self._norms(node, waiting.pop() + grad_inputs[0])

        self._handles.append(self._graph.nodes[node].register_hook(divided))
        self._handles.append(self._graph.nodes[parts[1]].register_hook(absolute))


def joint(parts: Iterable[PerSample | None]) -> PerSample | None:
    """Sum of squared norms; None if none of them was measured."""
    known = [p.whole() for p in parts if p is not None]
    if not known:
        return None
    if len(known) == 1:
        return PerSample((known[0],))
    return PerSample((torch.stack(known).sum(dim=0),))


def scaled(part: PerSample | None, factor: float) -> PerSample | None:
    """Squared norms of ``factor`` times the gradient."""
    if part is None or factor == 1:
        return part
    return PerSample((part.whole() * factor**2,))

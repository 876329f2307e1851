"""How far down the backward passes of the draws have to go.

Per sample and draw only the gradients at activations and cuts are looked at. Of parameters it is
the gradient of all draws together, which is that of the sum of their cotangents: one pass. So the
passes of the draws leave out the products that make gradients of parameters, half of the work.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch.autograd.graph import GradientEdge

from gradscope.probe.forward import ForwardPass

PAYS_FROM = 3
"""Draws from which the pass for the parameters costs less than it saves."""


def activation_targets(run: ForwardPass, cuts: Iterable[int]) -> list[GradientEdge] | None:
    """What makes the engine run every activation and cut, and no product for a parameter.

    The engine runs what leads to a target, and the target itself without what it would hand on: so
    these are the cuts, and what made the inputs of the activations. None where that would put
    something into a parameter's gradient.
    """
    graph = run.graph
    wanted = set(cuts)
    for node in run.record_of:
        made = [e.node for e in graph.inputs[node] if e is not None]
        computed = [n for n in made if n not in graph.parameters]
        if not computed:
            return None
        wanted.update(computed)
        if graph.names[node] == "DivBackward":  # a softsign, whose |z| stands beside z
            wanted.update(e.node for n in computed for e in graph.inputs[n] if e is not None)
    if wanted & graph.parameters.keys() or not wanted:
        return None
    return [GradientEdge(graph.nodes[n], 0) for n in sorted(wanted)]

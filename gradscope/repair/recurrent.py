"""Torch's recurrent layers: their weights by name, and the trajectory that they follow.

The trajectory is computed here, step by step in float64, since the gates of a fused layer cannot be
seen from outside. Weights are named ``weight_ih_l0``, ``weight_hh_l0_reverse``, ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from gradscope.repair.base import Case

GATES = {"LSTM": ("input", "forget", "cell", "output"), "GRU": ("reset", "update", "new"),
         "RNN_TANH": ("state",), "RNN_RELU": ("state",)}  # fmt: skip
"""Blocks of rows, in torch's order."""


@dataclass(frozen=True)
class Part:
    """One layer and direction of a recurrent module.

    Attributes:
        module: LSTM, GRU or RNN.
        kind: key of :data:`GATES`.
        names: of W_ih, W_hh and, where there are biases, b_ih and b_hh, as the model names them.
        hidden: units.
        backward: reads the sequence from its end.
        depth: number of the layer.
    """

    module: torch.nn.RNNBase
    kind: str
    names: tuple[str, ...]
    hidden: int
    backward: bool
    depth: int


def find_parts(case: Case) -> list[Part]:
    """All that may be changed, in the order of the model."""
    found = []
    for path, module in case.trainee.module.named_modules():
        if not isinstance(module, torch.nn.RNNBase) or module.mode not in GATES:
            continue
        if getattr(module, "proj_size", 0):
            continue
        for i, own in enumerate(module._all_weights):  # per layer, then per direction
            names = tuple(f"{path}.{n}" if path else n for n in own)
            if all(n in case.tensors for n in names):
                two = 2 if module.bidirectional else 1
                found.append(
                    Part(module, module.mode, names, module.hidden_size, i % two == 1, i // two)
                )
    return found


def why_none(case: Case) -> str:
    """Why no part was found."""
    gates = sorted({s.id for s in case.measured.sites if s.gate})
    if gates:
        return f"{gates[0]}: only torch's own LSTM, GRU and RNN layers without projection, unfrozen"
    return "no recurrent layer was found"


def inputs_of(case: Case, module: torch.nn.RNNBase) -> Iterator[torch.Tensor]:
    """What enters a module, batch by batch, as (steps, samples, features) in float64."""
    seen: list[Any] = []
    handle = module.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    try:
        case.trainee.set_training(False)
        for batch in case.data.once():
            seen.clear()
            with torch.no_grad():
                case.trainee.call(batch)
            for x in seen:
                if isinstance(x, torch.Tensor) and x.dim() == 3:
                    turned = x.transpose(0, 1) if module.batch_first else x
                    yield turned.detach().double().cpu()
    finally:
        handle.remove()


Own = Callable[[str], torch.Tensor]


def run(part: Part, x: torch.Tensor, own: Own) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """(outputs, pre-activations per gate), each over steps.

    Args:
        part: which layer.
        x: (steps, samples, features).
        own: value of a parameter by its name.
    """
    w_ih, w_hh = (own(n).detach().double().cpu() for n in part.names[:2])
    b_ih, b_hh = (
        (own(n).detach().double().cpu() for n in part.names[2:4])
        if len(part.names) == 4
        else (torch.zeros(len(w_ih)).double(),) * 2
    )
    h = torch.zeros(x.shape[1], part.hidden, dtype=torch.float64)
    c, outputs, kept = h, [], []
    for step in x.flip(0) if part.backward else x:
        before = step @ w_ih.T + b_ih, h @ w_hh.T + b_hh
        h, c, z = _step(part.kind, *before, h, c)
        outputs.append(h)
        kept.append(z)
    result = torch.stack(outputs)
    gates = [torch.stack(pieces) for pieces in zip(*kept, strict=True)]
    return (result.flip(0) if part.backward else result), gates


def _step(
    kind: str, a: torch.Tensor, b: torch.Tensor, h: torch.Tensor, c: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    if kind == "LSTM":
        i, f, g, o = (a + b).chunk(4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c, [i, f, g, o]
    if kind == "GRU":
        (ar, az, an), (br, bz, bn) = a.chunk(3, dim=1), b.chunk(3, dim=1)
        r, z = ar + br, az + bz
        n = an + r.sigmoid() * bn
        return (1 - z.sigmoid()) * n.tanh() + z.sigmoid() * h, c, [r, z, n]
    z = a + b
    return (z.tanh() if kind == "RNN_TANH" else z.relu()), c, [z]

"""Kappa-gates: each gate of a recurrent layer shrunk until it works, on its own trajectory.

A gate is a block of rows of W_ih, W_hh and both biases. Shrinking one changes the states and so the
others, hence up to six rounds. Where something has been learned, the readout is then fitted anew
(ridge regression) to the logits that it used to give. Over long sequences the forget gate of an
LSTM starts open again, with a bias of 1; measured not to help GRUs.
"""

from __future__ import annotations

from typing import ClassVar

import torch

from gradscope.probe.activations import SIGMOID, TANH
from gradscope.repair.base import Case, Remedy, Result
from gradscope.repair.compare import scale_of
from gradscope.repair.kappa import least_alpha, pre_activations, refitted
from gradscope.repair.recurrent import (
    GATES,
    OTHERWISE,
    Own,
    Part,
    find_parts,
    inputs_of,
    run,
    why_none,
)

ROUNDS = 6
LONG = 40
"""Steps from which the forget gate of an LSTM has to be open."""

LEARNED = 0.05
"""Share of the answers above chance from which the readout is kept."""

_TANH = ("cell", "new", "state")
_MOST = 1 << 19  # numbers of z that decide on alpha


class KappaGates(Remedy):
    """Gates in the order of the model, then the readout."""

    name: ClassVar[str] = "kappa-gates"
    summary: ClassVar[str] = "each saturated gate shrunk until it works, then the readout fitted"

    def requires(self, case: Case) -> str | None:
        """A recurrent layer of torch's that is bounded."""
        parts = [p for p in find_parts(case) if p.kind != "RNN_RELU"]
        return None if parts else why_none(case, "LSTM, GRU or tanh RNN, whose units saturate")

    def apply(self, case: Case) -> Result:
        """Each module on the inputs that reach it after those before it were repaired."""
        parts = [p for p in find_parts(case) if p.kind != "RNN_RELU"]
        readout = [
            k for k in case.chain.last if k.weight not in {n for p in parts for n in p.names}
        ]
        before = pre_activations(case, tuple(readout))
        changed: dict[str, torch.Tensor] = {}
        said: list[str] = []
        for module in dict.fromkeys(p.module for p in parts):
            mine = [p for p in parts if p.module == module]
            with case.with_tensors(changed):
                inputs = list(inputs_of(case, mine[0]))
            if not inputs:
                said.append(f"{mine[0].names[0]} left as it is: {OTHERWISE}")
                continue
            x = torch.cat(inputs, dim=1) if len({len(i) for i in inputs}) == 1 else inputs[0]
            changed |= _module(case, mine, x, said)
        if changed and _learned(case):
            for link in readout:
                if link.weight in before:
                    changed |= refitted(case, link, changed, before[link.weight])
                    said.append(f"{link.weight}: fitted anew to the outputs that it gave")
        return Result(changed, tuple(said))


def _learned(case: Case) -> bool:
    """Whether the readout has anything to keep: fitted to noise it was measured never to learn.

    By answers and not by the loss, which is far worse than a guess's where gates saturate.
    """
    score = case.trainee.score(case.data.held_out()).mean
    scale = scale_of(case.trainee, case.data)
    return scale(score) > scale.chance + LEARNED * (1 - scale.chance)


def _module(
    case: Case, parts: list[Part], x: torch.Tensor, said: list[str]
) -> dict[str, torch.Tensor]:
    changed: dict[str, torch.Tensor] = {}
    for depth in sorted({p.depth for p in parts}):
        outputs = []
        for part in [p for p in parts if p.depth == depth]:
            alphas = _part(case, part, x, changed)
            if part.kind == "LSTM" and len(x) >= LONG and len(part.names) > 2:
                changed |= forget_open(case, part, changed)
            gates = zip(GATES[part.kind], alphas, strict=True)
            shrunk = ", ".join(f"{g} {a:.3g}" for g, a in gates if a > 1)
            if shrunk:
                said.append(f"{part.names[0]}: alpha of {shrunk}")
            outputs.append(run(part, x, _own(case, changed))[0])
        x = torch.cat(outputs, dim=2)
    return changed


def _part(case: Case, part: Part, x: torch.Tensor, changed: dict[str, torch.Tensor]) -> list[float]:
    """Shrinks the gates of one layer in ``changed``; what each was divided by in all."""
    names = GATES[part.kind]
    whole = [1.0] * len(names)
    for _ in range(ROUNDS):
        gates = run(part, x, _own(case, changed))[1]
        alphas = [
            least_alpha(_some(z), TANH if name in _TANH else SIGMOID)
            for name, z in zip(names, gates, strict=True)
        ]
        if max(alphas) < 1.01:
            break
        whole = [w * a for w, a in zip(whole, alphas, strict=True)]
        values = []
        for value in part.read(_own(case, changed)):
            factor = torch.tensor([1 / a for a in alphas]).to(value).repeat_interleave(part.hidden)
            values.append(value * factor.reshape(-1, *[1] * (value.dim() - 1)))
        changed |= part.write(values)
    return whole


def forget_open(
    case: Case, part: Part, changed: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Biases of an LSTM with those of the forget gate adding up to 1."""
    *matrices, b_ih, b_hh = (v.clone() for v in part.read(_own(case, changed)))
    forget = slice(part.hidden, 2 * part.hidden)
    b_ih[forget], b_hh[forget] = 1.0, 0.0
    written = part.write([*matrices, b_ih, b_hh])
    return {n: v for n, v in written.items() if n not in part.names[:2]}


def _own(case: Case, changed: dict[str, torch.Tensor]) -> Own:
    return lambda name: changed[name] if name in changed else case.tensors[name]


def _some(z: torch.Tensor) -> torch.Tensor:
    flat = z.reshape(-1)
    return flat[:: len(flat) // _MOST + 1]

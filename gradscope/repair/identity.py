"""Identity: recurrent matrices that keep what they are given, for nets that have learned nothing.

W_hh of a plain RNN becomes the identity over long sequences and its nearest orthogonal matrix over
short ones, its biases 0; the forget gate of an LSTM starts open, with a bias of 1.
"""

from __future__ import annotations

from typing import ClassVar

import torch

from gradscope.repair.base import Case, Remedy, Result
from gradscope.repair.gates import forget_open
from gradscope.repair.polar import orthogonal_factor
from gradscope.repair.recurrent import find_parts, inputs_of, why_none

LONG = 60
"""Steps beyond which even an orthogonal matrix was measured to be worse than the identity."""


class Identity(Remedy):
    """Plain RNNs and LSTMs of torch's; a GRU is left as it is."""

    name: ClassVar[str] = "identity"
    summary: ClassVar[str] = "recurrent matrices to the identity, forget gates open"

    def requires(self, case: Case) -> str | None:
        """A recurrent layer that is no GRU."""
        parts = [p for p in find_parts(case) if p.kind != "GRU"]
        return None if parts else why_none(case, "LSTM or plain RNN")

    def apply(self, case: Case) -> Result:
        """Each layer by itself."""
        changed: dict[str, torch.Tensor] = {}
        said = []
        for part in find_parts(case):
            if part.kind == "GRU":
                said.append(f"{part.names[1]} left as it is: it belongs to a GRU")
                continue
            if part.kind == "LSTM":
                if len(part.names) > 2:
                    changed |= forget_open(case, part, changed)
                    said.append(f"{part.names[2]}: forget gate at 1")
                continue
            steps = max((len(x) for x in inputs_of(case, part)), default=0)
            weight = case.tensors[part.names[1]].detach()
            long = steps > LONG
            changed[part.names[1]] = (
                torch.eye(part.hidden).to(weight) if long else orthogonal_factor(weight)
            )
            changed |= {n: torch.zeros_like(case.tensors[n]) for n in part.names[2:]}
            said.append(f"{part.names[1]}: {'identity' if long else 'orthogonal'}, {steps} steps")
        return Result(changed, tuple(said))
